//! Packet tables: one row a packet, with the action, every byte of the result and the counters that rise. Flows' lives are in
//! `xdp_flows.rs`, ICMP in `xdp_icmp.rs`.

use ingress_tests::packet::{ACK, Packet, SYN, Upper, icmp, tcp, udp};
use ingress_tests::xdp_run::{OTHER_MAC, OTHER_PEER_MAC};
use ingress_tests::xdp_site::*;
use xdp_ebpf::verdict::Verdict::{self, *};
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, map};

/// The bytes of a packet after a change.
fn with(packet: &Packet, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = packet.bytes();
    change(&mut bytes);
    bytes
}

fn extended(packet: &Packet, extensions: &[(u8, Vec<u8>)]) -> Packet {
    Packet { extensions: extensions.to_vec(), ..packet.clone() }
}

#[test]
fn packets_that_are_not_forwarded_pass_untouched_and_say_why() {
    let w = site("passes", 128);
    let syn = tcp(at(CLIENT), at(WEB), SYN);
    let syn6 = tcp(at(CLIENT6), at(WEB6), SYN);
    let other = |protocol| {
        let payload = b"payload".to_vec();
        Packet { upper: Upper::Other { protocol, payload }, ..syn.clone() }.bytes()
    };
    let option8 = |kind: u8| (kind, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let rows: &[(&str, Vec<u8>, Verdict)] = &[
        ("arp", with(&syn, |b| b[12..14].copy_from_slice(&[8, 6])), PassEtherType),
        ("a bare ethernet header", syn.bytes()[..14].to_vec(), PassMalformed),
        ("to an address of nobody's", tcp(at(CLIENT), at("203.0.113.99:443"), SYN).bytes(), PassNotOurs),
        ("to an ipv6 address of nobody's", tcp(at(CLIENT6), at("[2001:db8:1::99]:443"), SYN).bytes(), PassNotOurs),
        ("three vlan tags", syn.clone().vlan(0x88a8, 1).vlan(0x8100, 2).vlan(0x8100, 3).bytes(), PassHeaders),
        ("a vlan tag cut short", with(&syn.clone().vlan(0x8100, 1), |b| b.truncate(16)), PassMalformed),
        ("a group mac", with(&syn, |b| b[0] = 1), PassMalformed),
        ("ip version 5", with(&syn, |b| b[14] = 0x55), PassMalformed),
        ("a header of 16 bytes", with(&syn, |b| b[14] = 0x44), PassMalformed),
        ("a length below the header", with(&syn, |b| b[17] = 19), PassMalformed),
        ("a length above what came", with(&syn, |b| b[17] += 1), PassMalformed),
        ("a first fragment", with(&syn, |b| b[20] = 0x20), PassFragment),
        ("a last fragment", with(&syn, |b| b[21] = 1), PassFragment),
        ("tcp of 19 bytes", with(&syn, |b| b[17] = 39), PassMalformed),
        ("udp of 7 bytes", with(&udp(at(CLIENT), at(DNS)), |b| b[17] = 27), PassMalformed),
        (
            "icmp of 7 bytes",
            with(&icmp(at(CLIENT).ip(), at(WEB).ip(), 8, 0, [0; 4], vec![]), |b| b[17] = 27),
            PassMalformed,
        ),
        ("gre to a vip", other(47), PassProtocol),
        ("no such port", tcp(at(CLIENT), at("203.0.113.10:444"), SYN).bytes(), PassNoFrontend),
        ("the port of the other protocol", udp(at(CLIENT), at(WEB)).bytes(), PassNoFrontend),
        ("an l7 frontend", tcp(at(CLIENT), at(PROXY), SYN).bytes(), PassL7),
        ("an l7 frontend at the end of its ttl", tcp(at(CLIENT), at(PROXY), SYN).ttl(1).bytes(), PassL7),
        ("no backend", tcp(at(CLIENT), at(EMPTY), SYN).bytes(), PassNoBackend),
        ("ttl 1", syn.clone().ttl(1).bytes(), PassTtl),
        ("ttl 0", syn.clone().ttl(0).bytes(), PassTtl),
        ("to a local backend's own address", tcp(at(CLIENT), at(POD_BACKEND), SYN).bytes(), PassNotOurs),
        ("ipv6: version 4", with(&syn6, |b| b[14] = 0x40), PassMalformed),
        ("ipv6: a length above what came", with(&syn6, |b| b[19] += 1), PassMalformed),
        ("ipv6: a fragment", extended(&syn6, &[(44, vec![0, 0, 0, 1, 0, 0, 0, 1])]).bytes(), PassFragment),
        ("ipv6: a routing header", extended(&syn6, &[(43, vec![0, 0, 4, 0, 0, 0, 0, 0])]).bytes(), PassHeaders),
        ("ipv6: five extension headers", extended(&syn6, &[0, 60, 60, 60, 60].map(option8)).bytes(), PassHeaders),
        ("ipv6: an extension past the payload", with(&extended(&syn6, &[option8(60)]), |b| b[55] = 200), PassMalformed),
        ("ipv6: hop limit 1", syn6.clone().ttl(1).bytes(), PassTtl),
        ("ipv6: no such port", udp(at(CLIENT6), at(WEB6)).bytes(), PassNoFrontend),
        (
            "ipv6: sctp",
            Packet { upper: Upper::Other { protocol: 132, payload: vec![0; 16] }, ..syn6.clone() }.bytes(),
            PassProtocol,
        ),
    ];
    for (name, input, why) in rows {
        w.passes(name, input, *why);
    }
    assert!(w.seen().is_empty(), "none of them may leave a record");
}

#[test]
fn a_packet_cut_at_any_length_passes_untouched() {
    let w = site("cut", 128);
    let quoted = udp(at(DNS), at(CLIENT)).ip_bytes();
    let options = Packet { options: vec![1; 12], ..tcp(at(CLIENT), at(WEB), SYN) };
    let extensions = [(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])];
    for (name, packet) in [
        ("tcp", tcp(at(CLIENT), at(WEB), SYN)),
        ("tcp with options in two vlans", options.vlan(0x88a8, 5).vlan(0x8100, 6)),
        ("udp", udp(at(CLIENT), at(DNS))),
        ("tcp over ipv6 with extension headers", extended(&tcp(at(CLIENT6), at(WEB6), SYN), &extensions)),
        ("udp over ipv6", udp(at(CLIENT6), at(DNS6))),
        ("an icmp error", icmp(at(CLIENT).ip(), at(DNS).ip(), 3, 3, [0; 4], quoted)),
        ("an echo request", icmp(at(CLIENT).ip(), at(WEB).ip(), 8, 0, [0; 4], b"ping".to_vec())),
    ] {
        let whole = packet.bytes();
        // The kernel runs no test on less than an Ethernet header.
        for len in 14..whole.len() {
            let (run, rose) = w.ingress(&whole[..len]).expect("a run");
            assert_eq!(run.action, PASS, "{name} cut to {len}");
            assert!(run.packet == whole[..len], "{name} cut to {len} was changed");
            assert_eq!(rose, [PassMalformed], "{name} cut to {len}");
        }
    }
    assert!(w.seen().is_empty(), "none of them may leave a record");
}

#[test]
fn nat_sends_a_client_to_its_backend() {
    let w = site("nat", 1024);
    let (t, u) = (IPPROTO_TCP, IPPROTO_UDP);
    let mut port = 40_000;
    // Each row is a client of its own.
    let mut client = |v6: bool| {
        port += 1;
        if v6 { format!("[2001:db8::7]:{port}") } else { format!("198.51.100.7:{port}") }
    };
    type Change = fn(Packet) -> Packet;
    let rows: &[(&str, u8, &str, &str, Change)] = &[
        ("tcp", t, WEB, WEB_BACKEND, |p| p),
        ("tcp with ip options", t, WEB, WEB_BACKEND, |p| Packet { options: vec![1; 40], ..p }),
        ("tcp with a traffic class", t, WEB, WEB_BACKEND, |p| Packet { tos: 0xb8, ..p }),
        ("tcp without don't-fragment", t, WEB, WEB_BACKEND, |p| Packet { fragment: [1, 2, 0, 0], ..p }),
        ("tcp in a vlan", t, WEB, WEB_BACKEND, |p| p.vlan(0x8100, 100)),
        ("tcp in two vlans", t, WEB, WEB_BACKEND, |p| p.vlan(0x88a8, 100).vlan(0x8100, 0x6200)),
        ("udp", u, DNS, DNS_BACKEND, |p| p),
        ("udp of odd length", u, DNS, DNS_BACKEND, |p| p.payload(b"odd")),
        ("udp without a checksum", u, DNS, DNS_BACKEND, |mut p| {
            if let Upper::Udp { checksum, .. } = &mut p.upper {
                *checksum = false;
            }
            p
        }),
        ("tcp over ipv6", t, WEB6, WEB6_BACKEND, |p| p),
        ("udp over ipv6", u, DNS6, DNS6_BACKEND, |p| p),
        ("tcp over ipv6 in a vlan", t, WEB6, WEB6_BACKEND, |p| p.vlan(0x8100, 7)),
        ("tcp behind four extension headers", t, WEB6, WEB6_BACKEND, |p| {
            extended(&p, &[0, 60, 60, 60].map(|kind| (kind, vec![0, 0, 1, 4, 0, 0, 0, 0])))
        }),
    ];
    for (name, proto, vip, backend, change) in rows {
        let client = client(vip.starts_with('['));
        let make = |from, to| change(if *proto == t { tcp(from, to, SYN) } else { udp(from, to) });
        let source = source(*proto, &client, vip, 0);
        let (input, output) = (make(at(&client), at(vip)).bytes(), sent(make(source, at(backend))));
        w.check(name, &input, TX, &output, &[ForwardNat, FlowNew]);
        let (input, output) = (make(at(backend), source).bytes(), sent(make(at(vip), at(&client))));
        w.check(&format!("{name}, answered"), &input, TX, &output, &[ReplyNat]);
    }
}

#[test]
fn the_next_hop_decides_how_a_packet_leaves() {
    let w = site("hops", 128);
    let far = source(IPPROTO_TCP, CLIENT, FAR, 0);
    let mut there = tcp(far, at(FAR_BACKEND), SYN).ttl(63);
    there.macs = (OTHER_PEER_MAC, OTHER_MAC);
    let syn = tcp(at(CLIENT), at(FAR), SYN);
    w.check("by another device", &syn.bytes(), REDIRECT, &there.bytes(), &[ForwardNat, FlowNew]);
    let tagged = syn.clone().vlan(0x8100, 9).bytes();
    w.check("by another device, its tag left behind", &tagged, REDIRECT, &there.bytes(), &[ForwardNat]);

    w.rig.remove(map::DEVICES, &w.rig.other).expect("remove the device");
    let kernel = tcp(far, at(FAR_BACKEND), SYN).ttl(63).vlan(0x8100, 9).bytes();
    w.check("by a device without xdp", &tagged, PASS, &kernel, &[ForwardNatPass]);

    let mute = source(IPPROTO_TCP, CLIENT, MUTE, 0);
    let (input, output) = (tcp(at(CLIENT), at(MUTE), SYN), tcp(mute, at(MUTE_BACKEND), SYN).ttl(63));
    w.check("to an unresolved neighbour", &input.bytes(), PASS, &output.bytes(), &[ForwardNatPass, FlowNew]);
    let from = tcp(at(MUTE_BACKEND), mute, SYN | ACK);
    w.check("an answer from there", &from.bytes(), TX, &sent(tcp(at(MUTE), at(CLIENT), SYN | ACK)), &[ReplyNat]);
    w.passes("an answer at the end of its ttl", &from.ttl(1).bytes(), PassTtl);

    // A client behind a neighbour that is not resolved.
    let near = tcp(at("192.0.2.78:5000"), at(WEB), SYN);
    let to = source(IPPROTO_TCP, "192.0.2.78:5000", WEB, 0);
    w.check("from a neighbour", &near.bytes(), TX, &sent(tcp(to, at(WEB_BACKEND), SYN)), &[ForwardNat, FlowNew]);
    let (input, output) = (tcp(at(WEB_BACKEND), to, ACK), tcp(at(WEB), at("192.0.2.78:5000"), ACK).ttl(63));
    w.check("back to it", &input.bytes(), PASS, &output.bytes(), &[ReplyNatPass]);
}

#[test]
fn local_backends_see_the_client_and_answer_as_the_vip() {
    let w = site("local", 128);
    for (name, make, client, vip, pod) in [
        ("tcp", (|a, b| tcp(a, b, ACK)) as fn(_, _) -> Packet, CLIENT, POD, POD_BACKEND),
        ("udp", |a, b| udp(a, b), CLIENT, POD_UDP, POD_UDP_BACKEND),
        ("tcp over ipv6", |a, b| tcp(a, b, ACK), CLIENT6, POD6, POD6_BACKEND),
    ] {
        let (client, vip, pod) = (at(client), at(vip), at(pod));
        let new: &[Verdict] = if name == "udp" { &[ForwardLocal, FlowNew] } else { &[ForwardLocal, FlowNew, FlowMiss] };
        w.check(name, &make(client, vip).bytes(), PASS, &make(client, pod).bytes(), new);
        let tagged = |p: Packet| p.vlan(0x8100, 5).bytes();
        w.check("again, in a vlan", &tagged(make(client, vip)), PASS, &tagged(make(client, pod)), &[ForwardLocal]);
        w.check_egress("the answer", &make(pod, client).bytes(), &make(vip, client).bytes(), &[ReplyLocal]);
        let other = make(pod, std::net::SocketAddr::new(client.ip(), 1)).bytes();
        w.check_egress("what it says to another port", &other, &other, &[]);
    }
    // The kernel knows a checksum of zero as none.
    let mut bare = udp(at(POD_UDP_BACKEND), at(CLIENT));
    let mut answer = udp(at(POD_UDP), at(CLIENT));
    for packet in [&mut bare, &mut answer] {
        if let Upper::Udp { checksum, .. } = &mut packet.upper {
            *checksum = false;
        }
    }
    w.check_egress("udp without a checksum", &bare.bytes(), &answer.bytes(), &[ReplyLocal]);
    let foreign = tcp(at("10.0.0.1:80"), at(CLIENT), ACK).bytes();
    w.check_egress("what others send is left alone", &foreign, &foreign, &[]);
    let nat = tcp(at(CLIENT), at(WEB), SYN).bytes();
    w.ingress(&nat).expect("a run");
    let reply = tcp(at(WEB_BACKEND), source(IPPROTO_TCP, CLIENT, WEB, 0), ACK).bytes();
    w.check_egress("a nat flow's answer is not ours to rewrite here", &reply, &reply, &[]);
}

#[test]
fn traffic_is_counted_by_frontend_and_backend_from_layer_3_up() {
    let w = site("traffic", 128);
    let syn = tcp(at(CLIENT), at(WEB), SYN).vlan(0x8100, 3).bytes();
    let ack = tcp(at(WEB_BACKEND), source(IPPROTO_TCP, CLIENT, WEB, 0), SYN | ACK).bytes();
    for packet in [&syn, &ack, &syn, &tcp(at(CLIENT), at(WEB), SYN).ttl(1).bytes()] {
        w.ingress(packet).expect("a run");
    }
    for map in [map::FRONTEND_TRAFFIC, map::BACKEND_TRAFFIC] {
        let t = w.traffic(map, 1).expect("counters");
        assert_eq!((t.rx_packets, t.rx_bytes, t.tx_packets, t.tx_bytes, t.new_flows), (2, 80, 1, 40, 1), "{map}");
    }
}
