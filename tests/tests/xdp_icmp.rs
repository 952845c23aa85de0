//! ICMP tables: echo, errors in both directions with every way they can be wrong, and the errors that the program makes itself.

use ingress_tests::packet::{ACK, Packet, SYN, icmp, tcp, udp};
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::World;
use xdp_ebpf::verdict::Verdict::*;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, map};

const ROUTER: &str = "198.51.100.1:0";
const ROUTER6: &str = "[2001:db8::1]:0";

/// An error from `from` to the source of the packet that it quotes.
fn error(from: &str, kind: u8, code: u8, rest: [u8; 4], quoted: &Packet) -> Packet {
    icmp(at(from).ip(), quoted.src, kind, code, rest, quoted.ip_bytes())
}

/// The same with the quote cut to `len` bytes.
fn cut(mut packet: Packet, len: usize) -> Packet {
    if let ingress_tests::packet::Upper::Icmp { payload, .. } = &mut packet.upper {
        payload.truncate(len);
    }
    packet
}

/// Starts the flows that errors are about.
#[track_caller]
fn flows(w: &World) {
    for (packet, back) in [
        (tcp(at(CLIENT), at(WEB), SYN), None),
        (udp(at(CLIENT), at(DNS)), None),
        (tcp(at(CLIENT6), at(WEB6), SYN), None),
        (udp(at(CLIENT6), at(DNS6)), None),
        (tcp(at(CLIENT), at(POD), SYN), Some(POD)),
    ] {
        let (run, _) = w.ingress(&packet.bytes()).expect("a run");
        assert_eq!(run.action, if back.is_some() { PASS } else { TX });
    }
}

#[test]
fn echo_requests_to_a_vip_are_answered_where_the_agent_says_so() {
    let mut w = site("echo", 128);
    for (name, client, vip, request, reply) in
        [("echo", CLIENT, WEB, 8, 0), ("echo over ipv6", CLIENT6, WEB6, 128, 129)]
    {
        let (client, vip) = (at(client).ip(), at(vip).ip());
        for body in [&b"ping"[..], b"odd", b"", &[0xff; 1000]] {
            let ask = icmp(client, vip, request, 0, [1, 2, 3, 4], body.to_vec()).vlan(0x8100, 12);
            let mut answer = icmp(vip, client, reply, 0, [1, 2, 3, 4], body.to_vec()).vlan(0x8100, 12);
            answer.macs = (ask.macs.1, ask.macs.0);
            w.check(name, &ask.clone().ttl(3).bytes(), TX, &answer.bytes(), &[Echo]);
        }
        let (ask, mut answer) =
            (icmp(client, vip, request, 0, [0; 4], vec![0; 8]), icmp(vip, client, reply, 0, [0; 4], vec![0; 8]));
        answer.macs = (ask.macs.1, ask.macs.0);
        w.check("nothing but zeros", &ask.bytes(), TX, &answer.bytes(), &[Echo]);
        w.passes("an unknown code", &icmp(client, vip, request, 1, [0; 4], vec![]).bytes(), PassProtocol);
        w.passes("a reply", &icmp(client, vip, reply, 0, [0; 4], vec![]).bytes(), PassProtocol);
        w.vip(vip, 0).expect("clear the flag");
        w.passes("the flag is off", &icmp(client, vip, request, 0, [0; 4], vec![]).bytes(), PassProtocol);
        w.rig.remove(map::VIPS, &ingress_tests::xdp_world::addr(vip)).expect("remove the address");
        w.passes("no longer a vip", &icmp(client, vip, request, 0, [0; 4], vec![]).bytes(), PassNotOurs);
    }
    let solicit = icmp(at(CLIENT6).ip(), at(WEB6).ip(), 135, 0, [0; 4], vec![0; 16]);
    w.vip(at(WEB6).ip(), 1).expect("a vip again");
    w.passes("neighbour discovery is the kernel's", &solicit.bytes(), PassProtocol);
}

#[test]
fn an_error_about_an_answer_goes_to_the_backend() {
    let w = site("icmpfwd", 128);
    flows(&w);
    let (web, dns) = (source(IPPROTO_TCP, CLIENT, WEB, 0), source(IPPROTO_UDP, CLIENT, DNS, 0));
    let (web6, dns6) = (source(IPPROTO_TCP, CLIENT6, WEB6, 0), source(IPPROTO_UDP, CLIENT6, DNS6, 0));
    // What the program sent to the client, and what the backend had sent.
    let rows = [
        ("tcp", ROUTER, tcp(at(WEB), at(CLIENT), ACK), tcp(at(WEB_BACKEND), web, ACK)),
        ("udp", ROUTER, udp(at(DNS), at(CLIENT)), udp(at(DNS_BACKEND), dns)),
        ("tcp over ipv6", ROUTER6, tcp(at(WEB6), at(CLIENT6), ACK), tcp(at(WEB6_BACKEND), web6, ACK)),
        ("udp over ipv6", ROUTER6, udp(at(DNS6), at(CLIENT6)), udp(at(DNS6_BACKEND), dns6)),
    ];
    for (name, router, seen, meant) in &rows {
        let kinds: &[(u8, u8, [u8; 4])] = if seen.src.is_ipv4() {
            &[(3, 1, [0; 4]), (3, 4, [0, 0, 5, 0]), (11, 0, [0; 4]), (12, 0, [4, 0, 0, 0])]
        } else {
            &[(1, 3, [0; 4]), (2, 0, [0, 0, 5, 0]), (3, 0, [0; 4]), (4, 1, [0, 0, 0, 6])]
        };
        for (kind, code, rest) in kinds {
            let input = error(router, *kind, *code, *rest, seen);
            let output = icmp(meant.dst, meant.src, *kind, *code, *rest, meant.ip_bytes());
            w.check(&format!("{name}, type {kind}"), &input.bytes(), TX, &sent(output), &[IcmpForward]);
        }
    }
    let [(_, router, seen, meant), ..] = &rows;
    // Eight bytes of TCP: RFC 792's minimum, without the checksum.
    let input = cut(error(router, 3, 1, [0; 4], seen), 28).vlan(0x8100, 4);
    let output = cut(icmp(meant.dst, meant.src, 3, 1, [0; 4], meant.ip_bytes()), 28);
    w.check("a quote of 28 bytes", &input.bytes(), TX, &sent(output), &[IcmpForward]);
    w.passes("a quote of 27 bytes", &cut(error(router, 3, 1, [0; 4], seen), 27).bytes(), PassMalformed);
    w.passes("a quote of 19 bytes", &cut(error(router, 3, 1, [0; 4], seen), 19).bytes(), PassMalformed);
    w.passes("at the end of its ttl", &error(router, 3, 1, [0; 4], seen).ttl(1).bytes(), PassTtl);

    let pod = tcp(at(POD), at(CLIENT), ACK);
    let inside =
        icmp(at(ROUTER).ip(), at(POD_BACKEND).ip(), 3, 1, [0; 4], tcp(at(POD_BACKEND), at(CLIENT), ACK).ip_bytes());
    w.check(
        "about a local backend's answer",
        &error(ROUTER, 3, 1, [0; 4], &pod).bytes(),
        PASS,
        &inside.bytes(),
        &[IcmpForward],
    );
}

#[test]
fn an_error_about_a_forwarded_packet_goes_to_the_client() {
    let w = site("icmpback", 128);
    flows(&w);
    let (web, dns) = (source(IPPROTO_TCP, CLIENT, WEB, 0), source(IPPROTO_UDP, CLIENT, DNS, 0));
    let web6 = source(IPPROTO_TCP, CLIENT6, WEB6, 0);
    for (name, from, kind, seen, meant) in [
        ("a closed port", DNS_BACKEND, (3, 3), udp(dns, at(DNS_BACKEND)), udp(at(CLIENT), at(DNS))),
        ("a router's", "10.9.9.9:0", (11, 0), tcp(web, at(WEB_BACKEND), ACK), tcp(at(CLIENT), at(WEB), ACK)),
        ("ipv6", WEB6_BACKEND, (1, 4), tcp(web6, at(WEB6_BACKEND), ACK), tcp(at(CLIENT6), at(WEB6), ACK)),
    ] {
        let input = error(from, kind.0, kind.1, [0; 4], &seen);
        let output = icmp(meant.dst, meant.src, kind.0, kind.1, [0; 4], meant.ip_bytes());
        w.check(name, &input.bytes(), TX, &sent(output), &[IcmpReply]);
    }
}

#[test]
fn errors_that_belong_to_nobody_pass_untouched() {
    let w = site("icmpnone", 128);
    flows(&w);
    let seen = tcp(at(WEB), at(CLIENT), ACK);
    let options = Packet { options: vec![1; 8], ..seen.clone() };
    let quoting = |bytes: Vec<u8>| icmp(at(ROUTER).ip(), at(WEB).ip(), 3, 1, [0; 4], bytes).bytes();
    let changed = |at: usize, to: u8| {
        let mut bytes = seen.ip_bytes();
        bytes[at] = to;
        quoting(bytes)
    };
    for (name, input, why) in [
        (
            "another client",
            error(ROUTER, 3, 1, [0; 4], &tcp(at(WEB), at("198.51.100.7:40001"), ACK)).bytes(),
            PassIcmpUnrelated,
        ),
        (
            "another port",
            error(ROUTER, 3, 1, [0; 4], &tcp(at("203.0.113.10:444"), at(CLIENT), ACK)).bytes(),
            PassIcmpUnrelated,
        ),
        ("an l7 frontend", error(ROUTER, 3, 1, [0; 4], &tcp(at(PROXY), at(CLIENT), ACK)).bytes(), PassL7),
        ("another source in the quote", quoting(tcp(at(TWIN), at(CLIENT), ACK).ip_bytes()), PassIcmpUnrelated),
        ("a quoted fragment", changed(7, 1), PassIcmpUnrelated),
        ("a quoted version", changed(0, 0x65), PassIcmpUnrelated),
        ("a quoted header of 16 bytes", changed(0, 0x44), PassMalformed),
        ("a quoted protocol", changed(9, 47), PassIcmpUnrelated),
        ("quoted options cut short", quoting(options.ip_bytes()[..27].to_vec()), PassMalformed),
        ("an mtu of 67", error(ROUTER, 3, 4, [0, 0, 0, 67], &seen).bytes(), PassPtbTooSmall),
        ("source quench", error(ROUTER, 4, 0, [0; 4], &seen).bytes(), PassProtocol),
        (
            "an ipv6 mtu of 1279",
            error(ROUTER6, 2, 0, [0, 0, 4, 0xff], &tcp(at(WEB6), at(CLIENT6), ACK)).bytes(),
            PassPtbTooSmall,
        ),
        ("a redirect", error(ROUTER6, 137, 0, [0; 4], &tcp(at(WEB6), at(CLIENT6), ACK)).bytes(), PassProtocol),
    ] {
        w.passes(name, &input, why);
    }
}

#[test]
fn packets_above_the_next_hops_mtu_are_reported_by_the_vip() {
    let w = site("toobig", 128);
    // `out0` takes 1400 bytes, `in0` 1500.
    let payload = [7; 1400];
    let far = tcp(at(CLIENT), at(FAR), ACK).payload(&payload);
    for (name, packet) in [
        ("untagged", far.clone()),
        ("in a vlan", far.clone().vlan(0x8100, 0x2005)),
        ("in two vlans, with options", Packet { options: vec![1; 40], ..far.clone() }.vlan(0x88a8, 1).vlan(0x8100, 2)),
    ] {
        let mut back = icmp(packet.dst, packet.src, 3, 4, [0, 0, 5, 0x78], packet.ip_bytes()[..68].to_vec());
        (back.macs, back.vlans) = ((packet.macs.1, packet.macs.0), packet.vlans.clone());
        back.fragment = [0; 4];
        let known = !w.seen().is_empty();
        let rose: &[_] = if known { &[PacketTooBig] } else { &[PacketTooBig, FlowNew, FlowMiss] };
        w.check(name, &packet.bytes(), TX, &back.bytes(), rose);
    }
    let mut kernel = Packet { fragment: [0; 4], ..far.clone() };
    let (input, to) = (kernel.bytes(), source(IPPROTO_TCP, CLIENT, FAR, 0));
    kernel = Packet { fragment: [0; 4], ..tcp(to, at(FAR_BACKEND), ACK).payload(&payload).ttl(63) };
    w.check("the kernel may fragment it", &input, PASS, &kernel.bytes(), &[ForwardNatPass]);
    let fits = tcp(at(CLIENT), at(FAR), ACK).payload(&[7; 1360]);
    let (run, rose) = w.ingress(&fits.bytes()).expect("a run");
    assert_eq!((run.action, rose), (REDIRECT, vec![ForwardNat]), "1400 bytes fit");
    // Longer than `in0` could have received: an aggregate, whose pieces fit.
    let aggregate = tcp(at(CLIENT), at(FAR), ACK).payload(&[7; 3000]);
    let (run, rose) = w.ingress(&aggregate.bytes()).expect("a run");
    assert_eq!((run.action, rose), (PASS, vec![ForwardNatPass]), "the kernel segments it");
}

#[test]
fn ipv6_packets_above_the_next_hops_mtu_are_reported_by_the_vip() {
    let mut w = site("toobig6", 128);
    w.backend(7, at("[2001:db8:ffff::5]:8443"), xdp_ebpf::forwarding::NAT);
    let packet = tcp(at(CLIENT6), at(WEB6), SYN).payload(&[9; 1400]);
    let mut back = icmp(packet.dst, packet.src, 2, 0, [0, 0, 5, 0x78], packet.ip_bytes()[..256].to_vec());
    back.macs = (packet.macs.1, packet.macs.0);
    w.check("to the client", &packet.bytes(), TX, &back.bytes(), &[PacketTooBig, FlowNew]);
}

#[test]
fn an_answer_above_the_clients_mtu_is_reported_to_the_backend() {
    let w = site("toobigback", 128);
    let client = "172.16.9.9:4000";
    w.ingress(&tcp(at(client), at(WEB), SYN).bytes()).expect("a run");
    let answer = tcp(at(WEB_BACKEND), source(IPPROTO_TCP, client, WEB, 0), ACK).payload(&[3; 1400]);
    let mut back = icmp(answer.dst, answer.src, 3, 4, [0, 0, 5, 0x78], answer.ip_bytes()[..68].to_vec());
    (back.macs, back.fragment) = ((answer.macs.1, answer.macs.0), [0; 4]);
    w.check("to the backend", &answer.bytes(), TX, &back.bytes(), &[PacketTooBig]);
}
