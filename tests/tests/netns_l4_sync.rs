//! Two edges that share their flows: connections go on when their address moves, and nobody without the key has a say.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ingress_agent::dataplane::Dataplane;
use ingress_agent::model::sync::SyncReading;
use ingress_tests::capture::Capture;
use ingress_tests::dice::Dice;
use ingress_tests::echo::{Answer, Asker};
use ingress_tests::edges::{A, B, CLIENT, Edges, SYNC_PORT, records};
use ingress_tests::l4::verdicts;
use ingress_tests::wait::until;

/// Few, so that flows get in each other's way.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_127;

fn reading(dataplane: &Dataplane) -> SyncReading {
    dataplane.sync().expect("the flow sync is on")
}

fn rejected(dataplane: &Dataplane, reason: &str) -> u64 {
    let reading = reading(dataplane);
    reading.rejected.iter().find(|(label, _)| *label == reason).expect("a known reason").1
}

/// Connections of both families, each with an answer.
#[track_caller]
fn connect(edges: &Edges, ports: std::ops::Range<u16>) -> Vec<(Asker, Answer)> {
    let open = |port| {
        let mut asker = edges.connect(port, port % 2 == 0).unwrap_or_else(|e| panic!("port {port}: {e:#}"));
        let answer = asker.ask().unwrap_or_else(|e| panic!("port {port}: {e:#}"));
        (asker, answer)
    };
    ports.map(open).collect()
}

#[track_caller]
fn all_go_on(connections: &mut [(Asker, Answer)], when: &str) {
    let mut lost = Vec::new();
    for (asker, before) in connections.iter_mut() {
        match asker.ask() {
            Ok(answer) if answer == *before => {}
            other => lost.push(format!("{:?}: {other:?}", asker.local())),
        }
    }
    assert!(lost.is_empty(), "{when}: {} of {} are lost: {lost:#?}", lost.len(), connections.len());
}

#[test]
fn established_connections_go_on_at_the_other_edge_when_one_dies() {
    let edges = Edges::new("symove").expect("make the LAN");
    let (a, b) = (edges.open_a(|o| o.snat_ports = PORTS), edges.open_b(|o| o.snat_ports = PORTS));
    let held = edges.hold(&edges.a);
    until("the address answers", || edges.connect(30_000, false).ok()?.ask().ok());
    let mut old = connect(&edges, 40_000..40_160);
    until("the other edge knows them", || (reading(&b).taken >= 160 && records(&edges.pins[1]) >= 160).then_some(()));
    let mut young = connect(&edges, 50_000..50_016);

    // Power off: the kernel of the dead edge says nothing any more.
    edges.a.ip(&["link", "set", "eth0", "down"]).expect("cut the link");
    let _held_by_b = edges.hold(&edges.b);
    all_go_on(&mut old, "after the move");
    let counted = verdicts(&b);
    assert_eq!(counted.get("flow_miss"), None, "each was found by its record: {counted:?}");

    // A connection younger than a second has no record there yet. The new holder comes to its endpoint by the same table, and to its source
    // port by the same order of choices past the same flows.
    let missed = young.len() as u64;
    all_go_on(&mut young, "young ones");
    let counted = verdicts(&b);
    assert!((1..=missed).contains(&counted["flow_miss"]), "they had no record: {counted:?}");

    // New ones find their way between the ports of the old ones.
    let before = verdicts(&b).get("port_probe").copied().unwrap_or(0);
    let mut new = connect(&edges, 52_000..52_200);
    let probes = verdicts(&b)["port_probe"] - before;
    assert!(probes > 10, "ports of flows that came from the other edge were in the way only {probes} times");
    all_go_on(&mut old, "beside new ones");
    all_go_on(&mut new, "the new ones");
    drop((a, held));
}

#[test]
fn an_edge_that_joins_is_told_all_before_it_may_take_over_and_flows_that_end_are_forgotten() {
    let edges = Edges::new("syjoin").expect("make the LAN");
    let a = edges.open_a(|_| {});
    assert!(!a.may_preempt()(), "it has just started");
    until("nobody answers", || a.may_preempt()().then_some(()));
    let mut held = edges.hold(&edges.a);
    until("the address answers", || edges.connect(30_000, false).ok()?.ask().ok());
    let mut connections = connect(&edges, 40_000..40_100);
    until("they are old enough", || (reading(&a).told == 100).then_some(()));

    let b = edges.open_b(|_| {});
    let may_preempt = b.may_preempt();
    until("the first sync", || {
        let (settled, reading) = (may_preempt(), reading(&b));
        assert!(!settled || reading.taken >= 100, "settled too early: {reading:?}");
        settled.then_some(())
    });
    assert!(reading(&b).peers[0].complete && records(&edges.pins[1]) >= 100);

    // Half of them end: the copies go first by the word of their end, then with their records.
    let ended = connections.split_off(50);
    drop(ended);
    until("the ends are told", || (reading(&a).told == 50).then_some(()));

    // The address comes back and forth; what an edge has seen itself is newer than what it was told.
    for turn in 0..4 {
        Edges::release(held).expect("release");
        held = edges.hold(if turn % 2 == 0 { &edges.b } else { &edges.a });
        all_go_on(&mut connections, &format!("move {turn}"));
    }
    let (of_a, of_b) = (verdicts(&a), verdicts(&b));
    assert_eq!((of_a.get("flow_miss"), of_b.get("flow_miss")), (None, None), "{of_a:?} {of_b:?}");
}

#[test]
fn datagrams_of_others_have_no_effect_and_are_counted_by_reason() {
    let edges = Edges::new("sybad").expect("make the LAN");
    let (a, b) = (edges.open_a(|_| {}), edges.open_b(|_| {}));
    let mut capture = Capture::start(&edges.b, "eth0").expect("listen");
    let _held = edges.hold(&edges.a);
    until("the address answers", || edges.connect(30_000, false).ok()?.ask().ok());
    let mut connections = connect(&edges, 40_000..40_040);
    until("the other edge knows them", || (reading(&b).taken >= 40).then_some(()));
    let is_flows =
        |f: &[u8]| f.len() > 150 && f[12..14] == [8, 0] && f[23] == 17 && f[42..46] == *b"SGFS" && f[47] == 1;
    assert!(capture.collect(Duration::from_secs(20), |f| f.iter().any(|(_, f)| is_flows(f))), "no datagram was seen");
    let real: Vec<Vec<u8>> =
        capture.frames.iter().filter(|(_, f)| is_flows(f)).map(|(_, f)| f[42..].to_vec()).collect();
    let to: SocketAddr = format!("{B}:{SYNC_PORT}").parse().expect("an address");
    let socket = edges.a.inside(|| UdpSocket::bind((A, 0))).expect("a socket on the peer");
    let said = |reason: &str| rejected(&b, reason);

    // What was said, word by word.
    let (replayed, before) = (said("replayed"), reading(&b));
    for datagram in &real {
        socket.send_to(datagram, to).expect("send");
    }
    until("all repetitions are counted", || (said("replayed") == replayed + real.len() as u64).then_some(()));

    // From a host that is no edge, and from one with another key (here: with none).
    let stranger = edges.client.inside(|| UdpSocket::bind((CLIENT[0], 0))).expect("a socket on the client");
    stranger.send_to(&real[0], to).expect("send");
    until("a stranger is counted", || (said("unknown_peer") == 1).then_some(()));
    let mut version = real[0].clone();
    version[4] = 2;
    socket.send_to(&version, to).expect("send");
    until("another version is counted", || (said("version") == 1).then_some(()));

    // Broken in every way that chance finds.
    let mut dice = Dice::new(7);
    for _ in 0..2000 {
        let mut bytes = dice.pick(&real).clone();
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len())),
            1 => bytes.extend((0..=dice.below(300)).map(|n| n as u8)),
            _ => {}
        }
        if !bytes.is_empty() {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        socket.send_to(&bytes, to).expect("send");
    }
    socket.send_to(&real[0], to).expect("send");
    until("all are counted", || (said("replayed") == replayed + real.len() as u64 + 1).then_some(()));
    let after = reading(&b);
    let faults = ["malformed", "version", "forged"].map(said);
    assert!(faults.iter().sum::<u64>() >= 1900 && faults.iter().all(|n| *n > 0), "{faults:?}");
    let known =
        |r: &SyncReading| (r.deleted, r.rejected.iter().filter(|(l, _)| l.contains('_')).map(|r| r.1).sum::<u64>());
    assert_eq!(known(&after).0, known(&before).0, "{after:?}");
    assert!(records(&edges.pins[1]) <= 42, "no record was made of them");
    all_go_on(&mut connections, "beside all that");
    drop(a);
}
