//! Packet tables of clients that are dropped for exceeding limits, in the real program: who is, where, and until when.

use std::net::SocketAddr;
use std::time::Duration;

use ingress_tests::packet::{ACK, FIN, PSH, Packet, RST, SYN, icmp, tcp, udp};
use ingress_tests::wait::until;
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::{World, addr};
use xdp_ebpf::verdict::Verdict::{self, *};
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, frontend_flags, map};

const PROXY6: &str = "[2001:db8:1::10]:80";
/// Of the proxy, too.
const QUIC: &str = "203.0.113.10:443";
const QUIC6: &str = "[2001:db8:1::10]:443";
/// Neighbours of the clients: all but the last bit is the same.
const STRANGER: &str = "198.51.100.6:40000";
const STRANGER6: &str = "[2001:db8::6]:40000";
const HOUR: Duration = Duration::from_hours(1);

/// `CLOCK_MONOTONIC`, nanoseconds.
fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The site with ports of the proxy in both families and protocols.
fn site_of(label: &str) -> World {
    let mut w = site(label, 128);
    for (id, proto, vip) in [(17, IPPROTO_TCP, PROXY6), (18, IPPROTO_UDP, QUIC), (19, IPPROTO_UDP, QUIC6)] {
        w.frontend(id, proto, at(vip), frontend_flags::L7, at(vip).ip()).expect("a frontend");
    }
    w
}

fn drop_until(w: &World, client: SocketAddr, until: u64) {
    w.rig.set(map::DROPPED, &addr(client.ip()), &until).expect("write DROPPED");
}

fn later(by: Duration) -> u64 {
    now() + by.as_nanos() as u64
}

#[track_caller]
fn dropped(w: &World, name: &str, packet: &Packet) {
    let bytes = packet.bytes();
    w.check(name, &bytes, DROP, &bytes, &[DropLimited]);
}

#[track_caller]
fn passes(w: &World, name: &str, packet: &Packet) {
    w.passes(name, &packet.bytes(), PassL7);
}

/// The counters that rise when this packet comes in.
#[track_caller]
fn rose(w: &World, packet: &Packet) -> Vec<Verdict> {
    w.ingress(&packet.bytes()).expect("a run").1
}

#[test]
fn a_client_is_dropped_at_ports_of_the_proxy_until_its_time_is_over() {
    let w = site_of("dropped");
    for (client, stranger, vip, quic) in [(CLIENT, STRANGER, PROXY, QUIC), (CLIENT6, STRANGER6, PROXY6, QUIC6)] {
        let (client, stranger, vip, quic) = (at(client), at(stranger), at(vip), at(quic));
        passes(&w, "before", &tcp(client, vip, SYN));
        drop_until(&w, client, later(HOUR));
        passes(&w, "nobody is said to be dropped, so nobody is asked", &tcp(client, vip, SYN));
        w.config.dropping = 1;
        for flags in [SYN, ACK, PSH | ACK, FIN | ACK, RST, SYN | ACK] {
            dropped(&w, "whatever opens, goes on or ends", &tcp(client, vip, flags));
        }
        let other_port = SocketAddr::new(client.ip(), 40_001);
        dropped(&w, "from any port", &tcp(other_port, vip, SYN));
        dropped(&w, "datagrams, too", &udp(client, quic));
        dropped(&w, "in two vlans", &tcp(client, vip, SYN).vlan(0x88a8, 1).vlan(0x8100, 2));
        dropped(&w, "at its last hop", &tcp(client, vip, SYN).ttl(1));
        passes(&w, "a neighbour", &tcp(stranger, vip, SYN));
        passes(&w, "a neighbour's datagram", &udp(stranger, quic));

        drop_until(&w, client, now());
        passes(&w, "its time is over", &tcp(client, vip, SYN));
        drop_until(&w, client, 0);
        passes(&w, "never", &tcp(client, vip, SYN));
        drop_until(&w, client, u64::MAX);
        dropped(&w, "for ever", &tcp(client, vip, SYN));
        w.rig.remove(map::DROPPED, &addr(client.ip())).expect("remove");
        passes(&w, "let go", &tcp(client, vip, SYN));
        w.config.dropping = 0;
    }
    // Nobody has to take it out.
    w.config.dropping = 1;
    let (client, vip) = (at(CLIENT), at(PROXY));
    drop_until(&w, client, later(Duration::from_millis(300)));
    dropped(&w, "not yet", &tcp(client, vip, SYN));
    until("it is heard again", || (rose(&w, &tcp(client, vip, SYN)) == [PassL7]).then_some(()));
}

#[test]
fn what_is_not_for_the_proxy_goes_its_way() {
    let w = site_of("droppedl4");
    w.config.dropping = 1;
    // The clients, and a backend that was a client of the proxy.
    for address in [CLIENT, CLIENT6, WEB_BACKEND, WEB6_BACKEND] {
        drop_until(&w, at(address), u64::MAX);
    }
    for (client, web, backend, pod, dns) in
        [(CLIENT, WEB, WEB_BACKEND, POD, DNS), (CLIENT6, WEB6, WEB6_BACKEND, POD6, DNS6)]
    {
        let (from, vip) = (at(client), at(web));
        assert_eq!(rose(&w, &tcp(from, vip, SYN)), [ForwardNat, FlowNew], "{client}");
        let answer = tcp(at(backend), source(IPPROTO_TCP, client, web, 0), SYN | ACK);
        assert_eq!(rose(&w, &answer), [ReplyNat], "{client}");
        assert_eq!(rose(&w, &tcp(from, vip, ACK)), [ForwardNat], "{client}");
        assert_eq!(rose(&w, &tcp(from, at(pod), SYN)), [ForwardLocal, FlowNew], "{client}");
        assert_eq!(rose(&w, &udp(from, at(dns))), [ForwardNat, FlowNew], "{client}");
        let kind = if from.is_ipv4() { 8 } else { 128 };
        assert_eq!(rose(&w, &icmp(from.ip(), vip.ip(), kind, 0, [0, 1, 0, 2], vec![])), [Echo], "{client}");
        let unserved = SocketAddr::new(vip.ip(), 7);
        assert_eq!(rose(&w, &tcp(from, unserved, SYN)), [PassNoFrontend], "{client}");
    }
}
