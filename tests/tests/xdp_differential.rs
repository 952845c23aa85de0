//! The program against the plain model: 100,000 seeded random packets, valid, mutated and cut short, while backends come, go and
//! drain. Action, bytes and all counters must agree. `SLUICEGATE_SEED` chooses another run.

#[path = "xdp_differential/written.rs"]
mod written;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ingress_tests::dice::Dice;
use ingress_tests::l4_model::{Action, Maps, Model, NextHop};
use ingress_tests::packet::{self, Packet, Upper};
use ingress_tests::xdp_run::{MAC, OTHER_MAC, OTHER_PEER_MAC, PEER_MAC};
use ingress_tests::xdp_world::{World, addr as abi, ip};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{
    Addr, Backend, Config, Frontend, FrontendInfo, FrontendKey, IPPROTO_TCP, IPPROTO_UDP, backend_state, forwarding,
    frontend_flags, hash, map, vip_flags,
};

const PACKETS: usize = 100_000;
/// Small, so that buckets fill up and evict.
const BUCKETS: u32 = 64;

#[test]
fn program_and_model_agree_on_random_packets() {
    let seed = std::env::var("SLUICEGATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut dice = Dice::new(seed);
    let mut real = World::new("diff", BUCKETS).expect("set up the rig");
    let mut maps = world();
    written::write(&mut real, &maps, None);
    let mut model = Model::new(maps.clone(), next_hop);
    let mut sent: Vec<Vec<u8>> = vec![];
    for n in 0..PACKETS {
        if dice.one_in(500) {
            let before = maps.clone();
            change(&mut maps, &mut dice);
            written::write(&mut real, &maps, Some(&before));
            model.maps = maps.clone();
        }
        let frame = random(&mut dice, &maps, &sent);
        let ours = model.ingress(&frame);
        let theirs = real.rig.ingress(&frame).expect("run the program");
        // XDP_DROP 1, XDP_PASS 2, XDP_TX 3, XDP_REDIRECT 4.
        let action = match ours.action {
            Action::Drop => 1,
            Action::Pass => 2,
            Action::Tx => 3,
            Action::Redirect => 4,
        };
        assert!(
            (action, &ours.frame) == (theirs.action, &theirs.packet),
            "seed {seed}, packet {n}, {:?}\n  in    {}\n  model {action} {}\n  xdp   {} {}\nmodel's counters {:?}\nxdp's {:?}",
            ours.verdict,
            hex(&frame),
            hex(&ours.frame),
            theirs.action,
            hex(&theirs.packet),
            model.counts,
            counters(&real),
        );
        // Reading them all costs more than the packet.
        if n % 20 == 0 || n + 1 == PACKETS {
            let last = hex(&frame);
            assert_eq!(
                model.counts,
                counters(&real),
                "seed {seed}, by packet {n}, the last {:?}: {last}",
                ours.verdict
            );
        }
        if sent.len() < 512 {
            sent.push(theirs.packet);
        } else {
            let at = dice.below(sent.len());
            sent[at] = theirs.packet;
        }
    }
    for (name, traffic) in
        [(map::FRONTEND_TRAFFIC, &model.frontend_traffic), (map::BACKEND_TRAFFIC, &model.backend_traffic)]
    {
        for (id, counts) in traffic {
            assert_eq!(real.traffic(name, *id).expect("read traffic"), *counts, "{name} {id}");
        }
    }
    // A run that never met a rule shows nothing about it.
    let musts = "forward_nat forward_local reply_nat icmp_forward icmp_reply \
                 flow_miss flow_evicted port_probe drop_source drop_limited hand_over";
    for must in musts.split(' ') {
        assert!(
            model.counts.iter().any(|(v, n)| v.label() == must && *n > 10),
            "{must} hardly ever happened: {:?}",
            model.counts
        );
    }
}

fn counters(real: &World) -> BTreeMap<Verdict, u64> {
    let counts = real.rig.verdicts().expect("read the counters");
    Verdict::ALL.iter().copied().zip(counts).filter(|(_, n)| *n > 0).collect()
}

/// Where the rig's routes lead.
fn next_hop(dst: &Addr) -> NextHop {
    match ip(dst) {
        IpAddr::V4(v4) => match v4.octets() {
            [10, ..] | [198, 51, 100, _] => BACK,
            [172, 16, ..] => OTHER,
            _ => NextHop::Kernel,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0x2001, 0xdb8, 0xffff, ..] => OTHER,
            [0x2001, 0xdb8, ..] => BACK,
            _ => NextHop::Kernel,
        },
    }
}

const BACK: NextHop = NextHop::Back { src_mac: MAC, dst_mac: PEER_MAC };
const OTHER: NextHop = NextHop::Other { src_mac: OTHER_MAC, dst_mac: OTHER_PEER_MAC };

const VIPS: [&str; 4] = ["203.0.113.10", "203.0.113.11", "2001:db8:1::10", "2001:db8:1::11"];

fn addr(text: &str) -> [u8; 16] {
    abi(text.parse().expect("an address"))
}

fn world() -> Maps {
    let mut maps = Maps {
        config: Config {
            seed: 0x5eed,
            flow_mask: BUCKETS - 1,
            reply_mask: BUCKETS * 2 - 1,
            // Ticks never pass: which of two flows is older would depend on the machine's mood.
            tick_shift: 63,
            udp_idle: 1000,
            port_min: 20_000,
            // Few, so that they collide.
            port_count: 40,
            dropping: 0,
        },
        ..Maps::default()
    };
    // Backends: per family, behind each kind of next hop, as nat and local.
    for id in 1..=24u32 {
        let host = 2 + id % 8;
        let nets =
            [["2001:db8:a", "10.0.0"], ["2001:db8:b", "10.1.0"], ["2001:db8:ffff", "172.16.0"], ["fd77", "100.64.0"]];
        let net = nets[id as usize / 2 % 4][usize::from(id % 2 == 0)];
        let address = if id % 2 == 0 { format!("{net}.{host}") } else { format!("{net}::{host}") };
        let kind = if id % 3 == 0 { forwarding::LOCAL } else { forwarding::NAT };
        let port = [8080u16, 5353][id as usize / 2 % 2].to_be_bytes();
        maps.backends.insert(
            id,
            Backend { addr: addr(&address), port, forwarding: kind, state: backend_state::READY, epoch: 1 },
        );
    }
    for (n, vip) in VIPS.iter().enumerate() {
        maps.vips.insert(addr(vip), if n % 2 == 0 { vip_flags::ECHO } else { 0 });
        maps.filter.insert(hash::addr_filter_bit(&addr(vip)));
        let family = u32::from(vip.contains(':'));
        for (k, (proto, port)) in
            [(IPPROTO_TCP, 80u16), (IPPROTO_TCP, 443), (IPPROTO_UDP, 53), (IPPROTO_UDP, 20_003), (IPPROTO_TCP, 9000)]
                .iter()
                .enumerate()
        {
            let id = (n * 5 + k) as u32 + 1;
            let key = FrontendKey { addr: addr(vip), port: port.to_be_bytes(), proto: *proto, pad: 0 };
            let (flags, affinity) = match k {
                0 => (frontend_flags::L7, 0),
                2 => (frontend_flags::CLIENT_IP_AFFINITY, 30 * family),
                4 => (frontend_flags::SOURCES, 0),
                _ => (0, 0),
            };
            let snat = if k == 4 { addr(VIPS[n ^ 1]) } else { addr(vip) };
            maps.frontends.insert(key, Frontend { id, pool: if k == 0 { 0 } else { id }, flags, affinity, snat });
            maps.infos
                .insert(id, FrontendInfo { addr: addr(vip), port: port.to_be_bytes(), proto: *proto, pad: [0; 5] });
            if k == 4 {
                let (range, bits) = if family == 0 { ("198.51.100.0", 96 + 30) } else { ("2001:db8:c::", 126) };
                maps.sources.insert(id, (addr(range), bits));
            }
            if k != 0 {
                maps.rings.insert(id, (ring(id, family), vec![]));
            }
        }
    }
    maps
}

/// Backends of one family (odd ids are IPv6), in an order that depends on `salt`.
fn ring(salt: u32, family: u32) -> Vec<u32> {
    (0..61).map(|slot| (slot * salt.wrapping_mul(7) + salt) % 12 * 2 + 2 - family).collect()
}

fn change(maps: &mut Maps, dice: &mut Dice) {
    match dice.below(6) {
        0 => {
            let id = 1 + dice.below(24) as u32;
            let backend = maps.backends.get_mut(&id).expect("all ids are there");
            backend.state =
                *dice.pick(&[backend_state::GONE, backend_state::READY, backend_state::READY, backend_state::DRAINING]);
            backend.epoch += u32::from(dice.one_in(2));
        }
        1 => {
            let ids: Vec<u32> = maps.rings.keys().copied().collect();
            let id = *dice.pick(&ids);
            let family = u32::from(!xdp_ebpf::is_v4(&maps.infos[&id].addr));
            let next = if dice.one_in(6) { vec![] } else { ring(dice.below(100) as u32 + 1, family) };
            let slot = maps.rings.get_mut(&id).expect("just listed");
            let old = std::mem::replace(&mut slot.0, next);
            slot.1 = if dice.one_in(2) { old } else { vec![] };
        }
        2 => {
            let vip = addr(VIPS[dice.below(VIPS.len())]);
            let flags = if dice.one_in(2) { vip_flags::ECHO } else { 0 };
            if maps.vips.remove(&vip).is_none() || dice.one_in(2) {
                maps.vips.insert(vip, flags);
            }
        }
        // The second one is whom random packets come from.
        3 => maps.other = *dice.pick(&[None, Some([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]), Some(packet::CLIENT_MAC)]),
        4 => {
            let v6 = dice.one_in(2);
            let client = abi(ends(dice, v6).0);
            if maps.dropped.remove(&client).is_none() {
                maps.dropped.insert(client, !dice.one_in(4));
            }
            maps.config.dropping = u64::from(!maps.dropped.is_empty());
        }
        _ => {
            let whole = world();
            let keys: Vec<_> = whole.frontends.keys().copied().collect();
            let key = *dice.pick(&keys);
            if maps.frontends.remove(&key).is_none() {
                maps.frontends.insert(key, whole.frontends[&key]);
            }
        }
    }
}

fn random(dice: &mut Dice, maps: &Maps, sent: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = match dice.below(16) {
        0..8 => from_client(dice, maps).bytes(),
        8..11 => reversed(dice, sent).unwrap_or_else(|| from_client(dice, maps).bytes()),
        11..13 => error(dice, sent).unwrap_or_else(|| from_client(dice, maps).bytes()),
        13 => dice.pick(sent_or_empty(sent)).clone(),
        14 => {
            let v6 = dice.one_in(2);
            let (src, dst) = ends(dice, v6);
            let kind = *dice.pick(&[8, 128, 0, 135, 3, 1]);
            packet::icmp(src, dst, kind, dice.below(2) as u8, [0, 1, 0, 2], b"payload!".repeat(dice.below(5))).bytes()
        }
        _ => (0..14 + dice.below(120)).map(|_| dice.number() as u8).collect(),
    };
    for _ in 0..[0, 0, 0, 0, 1, 2][dice.below(6)] {
        let at = dice.below(frame.len());
        frame[at] = if dice.one_in(2) { dice.number() as u8 } else { frame[at] ^ (1 << dice.below(8)) };
    }
    if dice.one_in(12) {
        frame.truncate(dice.below(frame.len()));
    }
    if dice.one_in(10) {
        frame.extend(vec![0; dice.below(20)]);
    }
    frame.resize(frame.len().max(14), 0);
    frame
}

fn sent_or_empty(sent: &[Vec<u8>]) -> &[Vec<u8>] {
    static NOTHING: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| vec![vec![0; 60]]);
    if sent.is_empty() { &NOTHING } else { sent }
}

fn ends(dice: &mut Dice, v6: bool) -> (IpAddr, IpAddr) {
    let host = 1 + dice.below(12);
    let client = if v6 { format!("2001:db8:c::{host}") } else { format!("198.51.100.{host}") };
    let vip = VIPS[usize::from(v6) * 2 + dice.below(2)];
    (client.parse().expect("an address"), vip.parse().expect("an address"))
}

fn from_client(dice: &mut Dice, maps: &Maps) -> Packet {
    let keys: Vec<_> = maps.frontends.keys().collect();
    let key = **dice.pick(&keys);
    let v6 = !xdp_ebpf::is_v4(&key.addr);
    let (client, _) = ends(dice, v6);
    let vip: IpAddr = if v6 { key.addr.into() } else { <[u8; 4]>::try_from(&key.addr[12..]).expect("4 bytes").into() };
    let src = SocketAddr::new(client, 20_000 + dice.below(30) as u16);
    let port = if dice.one_in(20) { 20_000 + dice.below(40) as u16 } else { u16::from_be_bytes(key.port) };
    let dst = SocketAddr::new(vip, port);
    let mut packet = if key.proto == IPPROTO_TCP {
        let flags = *dice.pick(&[
            packet::SYN,
            packet::SYN,
            packet::ACK,
            packet::ACK,
            packet::ACK | packet::PSH,
            0x11,
            0x14,
            0x04,
            0x12,
        ]);
        packet::tcp(src, dst, flags)
    } else {
        packet::udp(src, dst)
    };
    if let Upper::Udp { checksum, .. } = &mut packet.upper {
        *checksum = v6 || !dice.one_in(4);
    }
    packet.tos = dice.number() as u8;
    packet.ttl = *dice.pick(&[64, 64, 64, 64, 255, 2, 1]);
    if dice.one_in(8) {
        packet = packet.vlan(*dice.pick(&[0x8100, 0x88a8]), dice.number() as u16);
    }
    if dice.one_in(16) {
        packet = packet.vlan(0x8100, 5).vlan(0x8100, 6);
    }
    if dice.one_in(8) {
        packet.options = vec![1; 4 * dice.below(11)];
        for _ in 0..dice.below(6) {
            packet.extensions.push((*dice.pick(&[0, 60, 60, 43, 44]), vec![0; 8]));
        }
    }
    if dice.one_in(30) {
        packet.fragment = [1, 2, *dice.pick(&[0x20, 0x40, 0]), dice.number() as u8];
    }
    packet
}

/// The answer to something that went out: every address, port and MAC the other way round.
fn reversed(dice: &mut Dice, sent: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut frame = sent.get(dice.below(sent.len().max(1)))?.clone();
    let (at, size) = match frame.get(12..14)? {
        [8, 0] if frame.len() > 14 + 24 => (26, 4),
        [0x86, 0xdd] if frame.len() > 14 + 44 => (22, 16),
        _ => return None,
    };
    let ports = at + 2 * size;
    for (a, b, n) in [(0, 6, 6), (at, at + size, size), (ports, ports + 2, 2)] {
        let (left, right) = frame.split_at_mut(b);
        left[a..a + n].swap_with_slice(&mut right[..n]);
    }
    // As after a hop, and sometimes at its end.
    frame[if size == 4 { 22 } else { 21 }] = *dice.pick(&[64, 64, 1]);
    frame[0] &= 0xfe;
    Some(frame)
}

/// An ICMP error that quotes something that went out, or was to come in.
fn error(dice: &mut Dice, sent: &[Vec<u8>]) -> Option<Vec<u8>> {
    let frame = if dice.one_in(2) { sent.get(dice.below(sent.len().max(1)))?.clone() } else { reversed(dice, sent)? };
    let v6 = match frame.get(12..14)? {
        [8, 0] => false,
        [0x86, 0xdd] => true,
        _ => return None,
    };
    let quoted = frame.get(14..)?;
    let source: IpAddr = if v6 {
        <[u8; 16]>::try_from(quoted.get(8..24)?).ok()?.into()
    } else {
        <[u8; 4]>::try_from(quoted.get(12..16)?).ok()?.into()
    };
    let router: IpAddr = if v6 { "2001:db8:c::99" } else { "198.51.100.99" }.parse().ok()?;
    let keep = [quoted.len(), 28, 48, 20, 64][dice.below(5)].min(quoted.len());
    let (kind, code) =
        *dice.pick(if v6 { &[(1, 4), (2, 0), (3, 0), (4, 1)] } else { &[(3, 3), (3, 4), (11, 0), (12, 0)] });
    let mtu = *dice.pick(&[1400u16, 1280, 1279, 68, 60]);
    let [high, low] = mtu.to_be_bytes();
    Some(packet::icmp(router, source, kind, code, [0, 0, high, low], quoted[..keep].to_vec()).bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
