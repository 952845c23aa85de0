//! Packet tables of who answers for a VIP: one row a packet, before and after another node was heard. The kernel's part is in
//! `netns_fence.rs`.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ingress_tests::packet::{ACK, Packet, SYN, Upper, icmp, tcp};
use ingress_tests::wait::until;
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::{World, addr};
use xdp_ebpf::rules::{ADVERTS_MISSED, FENCE_LEAST};
use xdp_ebpf::verdict::Verdict::{self, *};
use xdp_ebpf::{Heartbeat, Router, Vip, mac_word, map, router, router_role, vip_flags};

const VRID: u8 = 51;
const GROUP: &str = "224.0.0.18";
const GROUP6: &str = "ff02::12";
const PEER: &str = "192.0.2.9";
const PEER6: &str = "fe80::9";
/// Where unicast adverts come.
const OWN: &str = "192.0.2.1";
/// A second, in centiseconds: long enough for a row, whatever the machine is doing.
const SECOND: u16 = 100;
const LONG: u64 = 3600 * 1_000_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

struct Fenced {
    w: World,
    routers: &'static mut [Router],
    heartbeat: &'static mut [Heartbeat],
}

/// The site with its first VIPs held by VRID 51 of either family, and the filter's bits as the agent sets them.
fn fenced(label: &str) -> Fenced {
    let mut w = site(label, 128);
    for vip in [WEB, WEB6] {
        let (flags, router) = (vip_flags::ECHO, router(VRID, at(vip).is_ipv6()));
        w.rig.set(map::VIPS, &addr(at(vip).ip()), &Vip { flags, router }).expect("write VIPS");
    }
    for group in [GROUP, GROUP6, OWN, "ff02::1:ff00:10"] {
        w.ours(ip(group));
    }
    let routers = w.rig.array(map::ROUTERS, xdp_ebpf::ROUTERS as usize).expect("ROUTERS");
    let heartbeat = w.rig.array(map::HEARTBEAT, 1).expect("HEARTBEAT");
    Fenced { w, routers, heartbeat }
}

fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// An ARP packet: operation, target.
fn arp(op: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V4(target) = target else { panic!("ARP is for IPv4") };
    let head = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 6, 0, 1, 8, 0, 6, 4, 0, op]].concat();
    [&head[..], &[2, 0, 0, 0, 0, 9], &[192, 0, 2, 9], &[0; 6], &target.octets()].concat()
}

fn group(mut packet: Packet) -> Packet {
    packet.macs.0 = match packet.dst {
        IpAddr::V4(v4) => [1, 0, 0x5e, v4.octets()[1] & 0x7f, v4.octets()[2], v4.octets()[3]],
        IpAddr::V6(v6) => [0x33, 0x33, v6.octets()[12], v6.octets()[13], v6.octets()[14], v6.octets()[15]],
    };
    packet.ttl(255)
}

/// A neighbour solicitation for `target`, sent to `to`.
fn solicit(target: IpAddr, to: &str) -> Packet {
    let IpAddr::V6(v6) = target else { panic!("for IPv6") };
    let packet = icmp(ip(PEER6), ip(to), 135, 0, [0; 4], [&v6.octets()[..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat());
    if to.starts_with("ff") { group(packet) } else { packet.ttl(255) }
}

/// A VRRP packet: version and type, VRID, priority, address count, four more bytes, addresses.
fn vrrp(to: &str, head: [u8; 8], addresses: &[IpAddr]) -> Packet {
    let mut payload = head.to_vec();
    for address in addresses {
        match address {
            IpAddr::V4(v4) => payload.extend(v4.octets()),
            IpAddr::V6(v6) => payload.extend(v6.octets()),
        }
    }
    let from = if to.contains(':') { PEER6 } else { PEER };
    let upper = Upper::Other { protocol: 112, payload };
    let packet = Packet { upper, dst: ip(to), src: ip(from), ..tcp(at(CLIENT), at(WEB), SYN) };
    if to == OWN { packet.ttl(255) } else { group(packet) }
}

fn advert(to: &str, vrid: u8, priority: u8, centiseconds: u16, addresses: &[IpAddr]) -> Packet {
    let [high, low] = centiseconds.to_be_bytes();
    vrrp(to, [0x31, vrid, priority, addresses.len() as u8, high, low, 0, 0], addresses)
}

fn own_advert(v6: bool) -> Packet {
    if v6 {
        advert(GROUP6, VRID, 100, SECOND, &[ip(PEER6), at(WEB6).ip()])
    } else {
        advert(GROUP, VRID, 100, SECOND, &[at(WEB).ip()])
    }
}

impl Fenced {
    #[track_caller]
    fn drops(&self, name: &str, packet: &[u8]) {
        self.w.check(name, packet, DROP, packet, &[DropElsewhere]);
    }

    fn forget(&mut self) {
        self.routers.fill(Router::default());
        self.heartbeat[0] = Heartbeat::default();
    }
}

#[test]
fn an_advert_while_the_agent_is_silent_keeps_requests_from_the_kernel() {
    let f = fenced("fence");
    let (vip, vip6) = (at(WEB).ip(), at(WEB6).ip());
    let request = arp(1, vip);
    let to_group = solicit(vip6, "ff02::1:ff00:10").bytes();
    let to_vip = solicit(vip6, "2001:db8:1::10").bytes();
    f.w.passes("a request before", &request, PassEtherType);
    f.w.passes("a solicitation before", &to_group, PassNotOurs);
    f.w.passes("a solicitation to the vip before", &to_vip, PassProtocol);

    let advert = own_advert(false).bytes();
    f.w.check("the first advert", &advert, PASS, &advert, &[PassNotOurs, Fenced]);
    f.w.passes("the next one", &advert, PassNotOurs);
    let router = &f.routers[router(VRID, false) as usize];
    let sender = mac_word(own_advert(false).macs.1);
    assert_eq!((router.other, router.other_until), (sender, router.elsewhere_until), "whose connections these are");
    assert_eq!(f.heartbeat[0].hand_over_until, router.other_until);
    f.drops("a request", &request);
    let tagged = [&request[..12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], &request[12..]].concat();
    f.drops("a request in two vlans", &tagged);
    let probe = [&request[..28], &[0; 4], &request[32..]].concat();
    f.drops("a probe (RFC 5227)", &probe);
    let passing: &[(&str, Vec<u8>)] = &[
        ("a reply", arp(2, vip)),
        ("a request for another vip", arp(1, at(TWIN).ip())),
        ("a request for nobody", arp(1, ip("203.0.113.99"))),
        ("a request cut short", request[..41].to_vec()),
        ("a request of another hardware", [&request[..14], &[0, 6], &request[16..]].concat()),
        ("a request of another protocol", [&request[..16], &[0x86, 0xdd], &request[18..]].concat()),
    ];
    for (name, packet) in passing {
        f.w.passes(name, packet, PassEtherType);
    }
    f.w.passes("ipv6 is another router", &to_group, PassNotOurs);

    let advert6 = own_advert(true).bytes();
    f.w.check("an advert over ipv6", &advert6, PASS, &advert6, &[PassNotOurs, Fenced]);
    f.drops("a solicitation", &to_group);
    f.drops("a solicitation to the vip itself", &to_vip);
    let solicited = solicit(vip6, "ff02::1:ff00:10");
    let shorter =
        Packet { upper: Upper::Other { protocol: 58, payload: vec![135, 0, 0, 0, 0, 0, 0, 0] }, ..solicited.clone() };
    f.w.passes("a solicitation cut short", &shorter.bytes(), PassNotOurs);
    let another = solicit(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x5500, 0x10)), "ff02::1:ff00:10");
    f.w.passes("a solicitation for a namesake", &another.bytes(), PassNotOurs);
    let advertisement = icmp(ip(PEER6), vip6, 136, 0, [0; 4], vip_bytes(vip6)).ttl(255);
    f.w.passes("an advertisement", &advertisement.bytes(), PassProtocol);

    // A client that has not heard of the move is served.
    let syn = tcp(at(CLIENT), at(WEB), SYN);
    let (run, rose) = f.w.ingress(&syn.bytes()).expect("a run");
    assert_eq!((run.action, rose), (TX, vec![ForwardNat, FlowNew]));
    let (run, rose) = f.w.ingress(&tcp(at(CLIENT), at(WEB), ACK).bytes()).expect("a run");
    assert_eq!((run.action, rose), (TX, vec![ForwardNat]));
}

fn vip_bytes(vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V6(v6) => v6.octets().to_vec(),
        IpAddr::V4(v4) => v4.octets().to_vec(),
    }
}

#[test]
fn only_a_sound_advert_for_our_addresses_counts() {
    let mut f = fenced("fencebad");
    let (vip, vip6, twin) = (at(WEB).ip(), at(WEB6).ip(), at(TWIN).ip());
    let other = |n: u8| IpAddr::from([198, 51, 100, n]);
    let others: Vec<IpAddr> = (1..=8).map(other).collect();
    let head = |kind, vrid, count, interval: [u8; 2]| [kind, vrid, 100, count, interval[0], interval[1], 0, 0];
    let tick = [0, 100];
    let rows: Vec<(&str, Packet, bool)> = vec![
        ("version 3", own_advert(false), true),
        ("version 3 over ipv6", own_advert(true), true),
        ("version 2", vrrp(GROUP, head(0x21, VRID, 1, [0, 1]), &[vip]), true),
        ("to this node alone", advert(OWN, VRID, 100, SECOND, &[vip]), true),
        ("our address is the eighth", advert(GROUP, VRID, 1, SECOND, &[&others[..7], &[vip]].concat()), true),
        ("in a vlan", own_advert(false).vlan(0x8100, 7), true),
        ("reserved bits set", vrrp(GROUP, head(0x31, VRID, 1, [0xf0, 100]), &[vip]), true),
        ("ttl 254", own_advert(false).ttl(254), false),
        ("hop limit 254", own_advert(true).ttl(254), false),
        ("version 1", vrrp(GROUP, head(0x11, VRID, 1, tick), &[vip]), false),
        ("version 4", vrrp(GROUP, head(0x41, VRID, 1, tick), &[vip]), false),
        ("version 2 over ipv6", vrrp(GROUP6, head(0x21, VRID, 2, [0, 1]), &[ip(PEER6), vip6]), false),
        ("another type", vrrp(GROUP, head(0x32, VRID, 1, tick), &[vip]), false),
        ("another vrid", advert(GROUP, VRID + 1, 100, SECOND, &[vip]), false),
        ("vrid 0", advert(GROUP, 0, 100, SECOND, &[vip]), false),
        ("somebody else's addresses", advert(GROUP, VRID, 100, SECOND, &others), false),
        ("a vip without a router", advert(GROUP, VRID, 100, SECOND, &[twin]), false),
        ("our address is the ninth", advert(GROUP, VRID, 100, SECOND, &[&others[..], &[vip]].concat()), false),
        ("interval 0", advert(GROUP, VRID, 100, 0, &[vip]), false),
        ("version 2, interval 0", vrrp(GROUP, head(0x21, VRID, 1, [0, 0]), &[vip]), false),
        ("no address", advert(GROUP, VRID, 100, SECOND, &[]), false),
        ("fewer addresses than it says", vrrp(GROUP, head(0x31, VRID, 2, tick), &[vip]), false),
        ("priority 0", advert(GROUP, VRID, 0, SECOND, &[vip]), false),
        (
            "seven bytes",
            Packet { upper: Upper::Other { protocol: 112, payload: vec![0x31; 7] }, ..own_advert(false) },
            false,
        ),
    ];
    for (name, packet, counts) in rows {
        f.forget();
        let bytes = packet.bytes();
        let (run, rose) = f.w.ingress(&bytes).expect("a run");
        assert_eq!(run.action, PASS, "{name}");
        assert_eq!(rose, if counts { vec![PassNotOurs, Fenced] } else { vec![PassNotOurs] }, "{name}");
        let fenced = f.routers.iter().any(|r| r.elsewhere_until > now());
        assert_eq!(fenced, counts, "{name}");
        assert!(run.packet == bytes, "{name} was changed");
    }
    let malformed: &[(&str, Packet, Verdict)] = &[
        (
            "a unicast packet in a group frame",
            {
                let mut p = tcp(at(CLIENT), at(WEB), SYN);
                p.macs.0[0] |= 1;
                p
            },
            PassMalformed,
        ),
        (
            "ipv6: the same",
            {
                let mut p = tcp(at(CLIENT6), at(WEB6), SYN);
                p.macs.0[0] |= 1;
                p
            },
            PassMalformed,
        ),
        ("a fragment to the group", Packet { fragment: [0, 1, 0x20, 0], ..own_advert(false) }, PassFragment),
    ];
    for (name, packet, why) in malformed {
        f.w.passes(name, &packet.bytes(), *why);
    }
}

#[test]
fn a_living_agent_decides_for_itself() {
    let f = fenced("fencelive");
    let request = arp(1, at(WEB).ip());
    let advert = own_advert(false).bytes();
    let id = router(VRID, false) as usize;
    f.heartbeat[0] = Heartbeat { at: now(), fresh_for: LONG, ..Heartbeat::default() };
    f.w.check("the heart beats, and does not know yet", &advert, PASS, &advert, &[PassNotOurs, Fenced]);
    f.drops("what an earlier agent may have left does not answer", &request);
    f.routers[id] = Router { role: router_role::ACTIVE, ..Router::default() };
    f.w.passes("an advert while the heart beats", &advert, PassNotOurs);
    f.w.passes("and no fence", &request, PassEtherType);

    // As backup it wants no answers, and its word counts as long as it lives.
    f.routers[id].role = router_role::BACKUP;
    f.drops("a request to a backup", &request);
    f.heartbeat[0].fresh_for = 1;
    f.w.passes("a backup whose agent is dead, and nobody is heard", &request, PassEtherType);
    f.routers[id].role = router_role::ACTIVE;
    f.heartbeat[0] = Heartbeat { at: now(), fresh_for: LONG, ..Heartbeat::default() };
    f.w.passes("a request to the active one", &request, PassEtherType);

    // What was fenced while the heart stood still stays so until the agent has looked around.
    f.heartbeat[0].fresh_for = 1;
    f.w.check("an advert while it stands still", &advert, PASS, &advert, &[PassNotOurs, Fenced]);
    f.heartbeat[0] = Heartbeat { at: now(), fresh_for: LONG, ..Heartbeat::default() };
    f.drops("it beats again, and has not spoken", &request);
    f.routers[id].elsewhere_until = 0;
    f.w.passes("it holds the address", &request, PassEtherType);
}

#[test]
fn a_fence_lapses_when_its_reason_is_gone() {
    let mut f = fenced("fencelapse");
    let request = arp(1, at(WEB).ip());
    let id = router(VRID, false) as usize;
    for (centiseconds, name) in [(1u16, "10 ms"), (4095, "40.95 s")] {
        f.forget();
        let before = now();
        f.w.ingress(&advert(GROUP, VRID, 100, centiseconds, &[at(WEB).ip()]).bytes()).expect("a run");
        let lasts = (u64::from(centiseconds) * 10_000_000 * ADVERTS_MISSED).max(FENCE_LEAST);
        assert!((before + lasts..=now() + lasts).contains(&f.routers[id].elsewhere_until), "{name}");
    }
    // The node leaves: one interval more, in which its successor speaks.
    let (before, leaving) = (now(), advert(GROUP, VRID, 0, 10, &[at(WEB).ip()]).bytes());
    f.w.passes("priority 0", &leaving, PassNotOurs);
    assert!((before + 100_000_000..=now() + 100_000_000).contains(&f.routers[id].elsewhere_until));
    until("it lapses", || {
        std::thread::sleep(Duration::from_millis(1));
        (f.w.ingress(&request).expect("a run").1 == [PassEtherType]).then_some(())
    });
    assert!(now() >= before + 100_000_000, "not before its time");
}
