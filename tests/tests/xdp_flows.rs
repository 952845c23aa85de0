//! Flows' lives: who gets which backend and port, what a record survives, and who gives way when there is no room.

use std::net::SocketAddr;

use ingress_tests::packet::{ACK, FIN, Packet, RST, SYN, tcp, udp};
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::{Seen, World};
use xdp_ebpf::verdict::Verdict::{self, *};
use xdp_ebpf::{IPPROTO_TCP, WAYS, backend_state, flow_state, forwarding, hash, map, rules};

/// The counters that rise when this packet comes in.
#[track_caller]
fn rose(w: &World, packet: &Packet) -> Vec<Verdict> {
    w.ingress(&packet.bytes()).expect("a run").1
}

/// The only record.
#[track_caller]
fn only(w: &World) -> Seen {
    let seen = w.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0]
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::new(at(CLIENT).ip(), port)
}

fn web(port: u16, flags: u8) -> Packet {
    tcp(client(port), at(WEB), flags)
}

fn answer(flags: u8) -> Packet {
    tcp(at(WEB_BACKEND), source(IPPROTO_TCP, CLIENT, WEB, 0), flags)
}

#[test]
fn a_record_follows_the_connection_from_syn_to_fin() {
    let w = site("states", 128);
    let steps: &[(&str, Packet, &[Verdict], u8)] = &[
        ("syn", web(40_000, SYN), &[ForwardNat, FlowNew], flow_state::NEW),
        ("syn again", web(40_000, SYN), &[ForwardNat], flow_state::NEW),
        ("ack before any answer", web(40_000, ACK), &[ForwardNat], flow_state::NEW),
        ("the answer", answer(SYN | ACK), &[ReplyNat], flow_state::REPLIED),
        ("ack", web(40_000, ACK), &[ForwardNat], flow_state::ESTABLISHED),
        ("another answer", answer(ACK), &[ReplyNat], flow_state::ESTABLISHED),
        ("a syn in between", web(40_000, SYN), &[ForwardNat], flow_state::ESTABLISHED),
        ("the backend's fin", answer(FIN | ACK), &[ReplyNat], flow_state::CLOSING),
        ("the client's fin", web(40_000, FIN | ACK), &[ForwardNat], flow_state::CLOSING),
        ("the port again", web(40_000, SYN), &[ForwardNat], flow_state::NEW),
        ("reset", web(40_000, RST), &[ForwardNat], flow_state::CLOSING),
    ];
    for (name, packet, counters, state) in steps {
        assert_eq!(rose(&w, packet), *counters, "{name}");
        assert_eq!(only(&w).state, *state, "{name}");
    }
}

#[test]
fn a_miss_is_counted_and_goes_by_the_previous_table_while_there_is_one() {
    let mut w = site("miss", 128);
    assert_eq!(rose(&w, &web(1, ACK)), [ForwardNat, FlowNew, FlowMiss]);
    assert_eq!(rose(&w, &web(2, SYN | ACK)), [ForwardNat, FlowNew, FlowMiss], "syn and ack opens nothing");
    assert_eq!(rose(&w, &web(3, FIN)), [ForwardNat, FlowNew, FlowMiss]);
    assert_eq!(w.seen().iter().filter(|s| s.state == flow_state::CLOSING).count(), 1);
    let before = w.seen().len();
    let to = SocketAddr::new(at(WEB).ip(), source(IPPROTO_TCP, "198.51.100.7:4", WEB, 0).port());
    w.check(
        "a reset leaves no record",
        &web(4, RST).bytes(),
        TX,
        &sent(tcp(to, at(WEB_BACKEND), RST)),
        &[ForwardNat, FlowMiss],
    );
    assert_eq!(w.seen().len(), before);

    w.backend(21, at("10.0.1.21:80"), forwarding::NAT);
    w.pools[1].previous = w.ring(&[21; 7]);
    assert_eq!(rose(&w, &web(5, ACK)), [ForwardNat, FlowNew, FlowMiss, PreviousTable]);
    assert_eq!(rose(&w, &web(6, SYN)), [ForwardNat, FlowNew], "a syn goes by the current one");
    let backend = |w: &World, port: u16| {
        w.seen().iter().find(|s| s.flow.client_port == port.to_be_bytes()).map(|s| s.flow.backend)
    };
    assert_eq!((backend(&w, 5), backend(&w, 6)), (Some(21), Some(1)));
    w.backends[21].state = backend_state::GONE;
    assert_eq!(rose(&w, &web(7, ACK)), [ForwardNat, FlowNew, FlowMiss], "the previous table names nobody alive");
    assert_eq!(backend(&w, 7), Some(1));
}

#[test]
fn a_draining_backend_keeps_its_flows_and_a_gone_or_reused_one_loses_them() {
    let mut w = site("drain", 128);
    assert_eq!(rose(&w, &web(40_000, SYN)), [ForwardNat, FlowNew]);
    w.backend(21, at("10.0.1.21:80"), forwarding::NAT);
    w.pool(1, &[21; 7]);
    w.backends[1].state = backend_state::DRAINING;
    assert_eq!(rose(&w, &web(40_000, ACK)), [ForwardNat]);
    assert_eq!(rose(&w, &answer(ACK)), [ReplyNat]);
    assert_eq!(only(&w).flow.backend, 1);

    w.backends[1].epoch += 1;
    assert_eq!(rose(&w, &answer(ACK)), [PassNoFrontend], "another endpoint has the slot");
    assert_eq!(rose(&w, &web(40_000, ACK)), [ForwardNat, FlowNew, FlowMiss]);
    assert_eq!(only(&w).flow.backend, 21, "the record was made anew in its own way");

    w.backends[21].state = backend_state::GONE;
    w.pool(1, &[1; 7]);
    assert_eq!(rose(&w, &web(40_000, SYN)), [ForwardNat, FlowNew]);
    assert_eq!(only(&w).flow.backend, 1);
    w.pool(1, &[]);
    assert_eq!(rose(&w, &web(40_001, SYN)), [PassNoBackend]);
    assert_eq!(rose(&w, &web(40_000, ACK)), [ForwardNat], "a flow outlives its table");
    w.backends[1].state = backend_state::GONE;
    assert_eq!(rose(&w, &web(40_000, ACK)), [PassNoBackend, FlowMiss]);
}

#[test]
fn a_udp_flow_stays_until_it_was_idle_or_its_backend_is_gone() {
    let mut w = site("udp", 128);
    let ask = udp(at(CLIENT), at(DNS));
    assert_eq!(rose(&w, &ask), [ForwardNat, FlowNew]);
    w.backend(21, at("10.0.1.21:53"), forwarding::NAT);
    w.pool(2, &[21; 7]);
    let index = only(&w).index;
    w.age(index, 30);
    assert_eq!((rose(&w, &ask), only(&w).flow.backend), (vec![ForwardNat], 2), "30 ticks are not idle");
    w.age(index, 31);
    assert_eq!((rose(&w, &ask), only(&w).flow.backend), (vec![ForwardNat, FlowNew], 21), "31 are");
    w.set_state(index, flow_state::ESTABLISHED);
    w.age(index, 31);
    assert_eq!(rose(&w, &ask), [ForwardNat], "chosen anew, the same");
    assert_eq!(only(&w).state, flow_state::NEW);
    w.backends[21].state = backend_state::GONE;
    w.pool(2, &[2; 7]);
    assert_eq!((rose(&w, &ask), only(&w).flow.backend), (vec![ForwardNat, FlowNew], 2), "moved at once");
}

#[test]
fn affinity_leaves_the_clients_port_out() {
    let w = site("affinity", 1024);
    let backends = |host: u8| -> Vec<u32> {
        for port in 1000..1020 {
            rose(&w, &tcp(SocketAddr::from(([198, 51, 100, host], port)), at(STICKY), SYN));
        }
        w.seen().iter().filter(|s| s.flow.client[15] == host).map(|s| s.flow.backend).collect()
    };
    let all: Vec<Vec<u32>> = (1..40).map(backends).collect();
    for chosen in &all {
        assert_eq!(chosen.len(), 20);
        assert!(chosen.iter().all(|b| b == &chosen[0]), "one client, one backend: {chosen:?}");
    }
    let mut firsts: Vec<u32> = all.iter().map(|c| c[0]).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 4, "39 clients use more than half of eight backends: {firsts:?}");
}

#[test]
fn two_flows_never_share_a_reverse_key() {
    let w = site("keys", 1024);
    // One port fewer than flows, so that candidates collide.
    (w.config.port_min, w.config.port_count) = (30_000, 40);
    let mut keys = vec![];
    for port in 0..40 {
        // Both frontends leave from one address towards one backend.
        let vip = if port % 2 == 0 { WEB } else { TWIN };
        let (run, counted) = w.ingress(&tcp(client(port + 1), at(vip), SYN).bytes()).expect("a run");
        match counted[0] {
            ForwardNat => keys.push(u16::from_be_bytes([run.packet[34], run.packet[35]])),
            why => assert_eq!((why, run.action), (DropNoPort, DROP), "{counted:?}"),
        }
    }
    let flows = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), flows, "each has a port of its own");
    assert!(flows >= 30 && keys.iter().all(|k| (30_000..30_040).contains(k)), "{keys:?}");
    // Each answer finds its own client.
    for seen in w.seen() {
        let to = SocketAddr::new(at(WEB).ip(), u16::from_be_bytes(seen.flow.port));
        let (run, counted) = w.ingress(&tcp(at(WEB_BACKEND), to, ACK).bytes()).expect("a run");
        assert_eq!((counted, &run.packet[36..38]), (vec![ReplyNat], &seen.flow.client_port[..]));
        let vip = if seen.flow.frontend == 1 { WEB } else { TWIN };
        assert_eq!(run.packet[26..30], octets(vip), "from the VIP that the client asked");
    }
}

fn octets(vip: &str) -> [u8; 4] {
    let std::net::IpAddr::V4(v4) = at(vip).ip() else { panic!("an IPv4 address") };
    v4.octets()
}

#[test]
fn local_keeps_the_clients_port_unless_another_vip_has_it_at_the_pod() {
    let w = site("localport", 128);
    w.check(
        "first",
        &tcp(at(CLIENT), at(POD), SYN).bytes(),
        PASS,
        &tcp(at(CLIENT), at(POD_BACKEND), SYN).bytes(),
        &[ForwardLocal, FlowNew],
    );
    let moved = SocketAddr::new(at(CLIENT).ip(), source(IPPROTO_TCP, CLIENT, POD_TWIN, 1).port());
    let (input, output) = (tcp(at(CLIENT), at(POD_TWIN), SYN), tcp(moved, at(POD_BACKEND), SYN));
    w.check("by the twin", &input.bytes(), PASS, &output.bytes(), &[ForwardLocal, FlowNew, PortProbe]);
    for (to, vip) in [(at(CLIENT), POD), (moved, POD_TWIN)] {
        let (input, output) = (tcp(at(POD_BACKEND), to, ACK), tcp(at(vip), at(CLIENT), ACK));
        w.check_egress("each answers as its VIP", &input.bytes(), &output.bytes(), &[ReplyLocal]);
    }
}

#[test]
fn a_frontends_port_is_never_taken_as_a_source() {
    let mut w = site("frontport", 128);
    let first = source(IPPROTO_TCP, CLIENT, WEB, 0);
    w.frontend(40, IPPROTO_TCP, first, 0, first.ip()).expect("a frontend on that port");
    let second = source(IPPROTO_TCP, CLIENT, WEB, 1);
    w.check(
        "the second candidate",
        &web(40_000, SYN).bytes(),
        TX,
        &sent(tcp(second, at(WEB_BACKEND), SYN)),
        &[ForwardNat, FlowNew, PortProbe],
    );
    // The same port of the other protocol is free.
    assert_eq!(rose(&w, &udp(at(CLIENT), at(DNS))), [ForwardNat, FlowNew]);
}

#[test]
fn a_dead_or_long_closed_flow_gives_its_port_up() {
    let mut w = site("deadport", 1024);
    (w.config.port_min, w.config.port_count) = (30_000, 1);
    assert_eq!(rose(&w, &web(1, SYN)), [ForwardNat, FlowNew]);
    let index = only(&w).index;
    let mut refused = vec![DropNoPort];
    refused.extend(vec![PortProbe; rules::PORT_PROBES as usize]);
    assert_eq!(rose(&w, &web(2, SYN)), refused, "the only port is taken");
    w.set_state(index, flow_state::CLOSING);
    w.age(index, rules::CLOSING_REUSE);
    let mut spare = vec![ForwardNat, FlowNew];
    spare.extend(vec![PortProbe; rules::PORT_PROBES as usize]);
    assert_eq!(rose(&w, &web(2, SYN)), spare, "after all others");
    let index = only(&w).index;
    w.age(index, rules::DEAD_NEW + 1);
    assert_eq!(rose(&w, &web(3, SYN)), spare, "a dead flow's is free, after all that nobody has");
    assert_eq!(only(&w).flow.client_port, 3u16.to_be_bytes());
}

/// Clients whose flows to `WEB` share a bucket.
fn neighbours(w: &World, n: usize) -> Vec<u16> {
    let bucket = |port| hash_of(IPPROTO_TCP, client(port), at(WEB)) as u32 & w.config.flow_mask;
    (1..u16::MAX).filter(|port| bucket(*port) == 5).take(n).collect()
}

#[test]
fn a_full_bucket_gives_up_closing_and_new_flows_first_and_the_oldest_of_them() {
    let mut w = site("evict", 16);
    let ports = neighbours(&w, WAYS + 6);
    for port in &ports[..WAYS] {
        assert_eq!(rose(&w, &web(*port, SYN)), [ForwardNat, FlowNew]);
    }
    let there = |w: &World| -> Vec<u16> {
        let mut there: Vec<u16> = w.seen().iter().map(|s| u16::from_be_bytes(s.flow.client_port)).collect();
        there.sort_unstable();
        there
    };
    let base = 5 * WAYS;
    for way in 0..WAYS {
        w.set_state(base + way, flow_state::ESTABLISHED);
    }
    w.set_state(base + 2, flow_state::NEW);
    w.set_state(base + 3, flow_state::NEW);
    w.age(base + 3, 10);
    w.set_state(base + 4, flow_state::REPLIED);
    w.set_state(base + 5, flow_state::CLOSING);
    w.age(base + 6, rules::DEAD_ESTABLISHED + 1);
    // By way: which one a record took follows from its hash.
    let mut expected = [0; WAYS];
    for seen in w.seen() {
        expected[seen.index - base] = u16::from_be_bytes(seen.flow.client_port);
    }
    let mut next = ports[WAYS..].iter();
    for (name, way, counters) in [
        ("a dead one", 6, &[ForwardNat, FlowNew] as &[_]),
        ("a closing one", 5, &[ForwardNat, FlowNew, FlowEvicted]),
        ("the older new one", 3, &[ForwardNat, FlowNew, FlowEvicted]),
        ("the other", 2, &[ForwardNat, FlowNew, FlowEvicted]),
        ("one that only replied", 4, &[ForwardNat, FlowNew, FlowEvicted]),
        ("the oldest of the established", 7, &[ForwardNat, FlowNew, FlowEvicted, FlowEvictedEstablished]),
    ] {
        if way == 7 {
            w.age(base + 7, 5);
        }
        let port = *next.next().expect("enough neighbours");
        let gone = expected[way];
        assert_eq!(rose(&w, &web(port, SYN)), counters, "{name}");
        w.set_state(base + way, flow_state::ESTABLISHED);
        expected[way] = port;
        let mut sorted = expected;
        sorted.sort_unstable();
        assert_eq!(there(&w), sorted, "{name}");
        let to = source(IPPROTO_TCP, &client(gone).to_string(), WEB, 0);
        assert_eq!(rose(&w, &tcp(at(WEB_BACKEND), to, ACK)), [PassNoFrontend], "{name}: its answers find nobody");
    }
}

#[test]
fn of_flows_that_are_about_equally_old_the_one_at_the_hashs_first_way_goes() {
    for (older_by, first) in [(1, true), (rules::IDLE_UNIT, false)] {
        let mut w = site("evictunit", 16);
        let ports = neighbours(&w, WAYS + 1);
        for port in &ports[..WAYS] {
            assert_eq!(rose(&w, &web(*port, SYN)), [ForwardNat, FlowNew]);
        }
        let first_way = hash::first_way(hash_of(IPPROTO_TCP, client(ports[WAYS]), at(WEB))) as usize;
        let older = (first_way + 3) % WAYS;
        w.age(5 * WAYS + older, older_by);
        assert_eq!(rose(&w, &web(ports[WAYS], SYN)), [ForwardNat, FlowNew, FlowEvicted]);
        let taken = w.seen().iter().find(|s| u16::from_be_bytes(s.flow.client_port) == ports[WAYS]).map(|s| s.index);
        assert_eq!(taken, Some(5 * WAYS + if first { first_way } else { older }), "older by {older_by} ticks");
    }
}

#[test]
fn the_index_of_replies_holds_the_records_and_one_left_behind_after_a_thousand_flows_in_a_small_table() {
    let w = site("index", 16);
    for port in 1..=1000 {
        rose(&w, &web(port, SYN));
        if port % 3 == 0 {
            rose(&w, &web(port, FIN));
        }
    }
    let seen = w.seen();
    assert_eq!(seen.len(), 16 * WAYS, "the table is full");
    let entries =
        w.replies.iter().enumerate().flat_map(|(b, bucket)| bucket.entry.map(|e| (b, e)).into_iter().enumerate());
    let left = entries.filter(|(way, (bucket, entry))| {
        let flow = w.flows[entry.flow as usize];
        entry.tag != 0 && flow.reply as usize != bucket * WAYS + way
    });
    // The thread may have moved from one CPU to another.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(
        (1..=cpus).contains(&left.count()),
        "an entry for each record, and what the last eviction on a CPU left behind"
    );
    for s in seen {
        let entry = w.replies[s.flow.reply as usize / WAYS].entry[s.flow.reply as usize % WAYS];
        assert_eq!(entry.flow as usize, s.index);
        let backend = w.backends[s.flow.backend as usize];
        let seed = w.config.seed.wrapping_add(hash::REPLY_SEED);
        let key = hash::tuple(seed, &backend.addr, &s.flow.source, backend.port, s.flow.port, IPPROTO_TCP);
        assert_eq!(entry.tag, hash::tag(key));
    }
}

#[test]
fn a_guarded_frontend_opens_flows_for_its_ranges_only_and_keeps_those_that_are_open() {
    let w = site("guard", 128);
    let packet = |client: &str, vip: &str, flags| tcp(at(client), at(vip), flags);
    let inside = packet("198.51.100.255:1", GUARDED, SYN);
    assert_eq!(rose(&w, &inside), [ForwardNat, FlowNew]);
    assert_eq!(rose(&w, &packet("[2001:db8::1]:1", GUARDED6, SYN)), [ForwardNat, FlowNew]);
    for (name, outside) in [
        ("just above the range", packet("198.51.101.0:1", GUARDED, SYN)),
        ("just below the range", packet("198.51.99.255:1", GUARDED, SYN)),
        ("a miss", packet("198.51.101.0:2", GUARDED, ACK)),
        ("another /64", packet("[2001:db8:0:1::1]:1", GUARDED6, SYN)),
    ] {
        w.check(name, &outside.bytes(), DROP, &outside.bytes(), &[DropSource]);
    }
    assert_eq!(rose(&w, &packet("198.51.101.0:1", TWIN, SYN)), [ForwardNat, FlowNew], "the other frontends are open");
    w.rig.remove(map::SOURCES, &w.source_key(15, "198.51.100.0/24").expect("a key")).expect("remove the range");
    assert_eq!(rose(&w, &packet("198.51.100.255:1", GUARDED, ACK)), [ForwardNat], "it has its record");
    assert_eq!(rose(&w, &inside), [DropSource], "and may not open another");
}
