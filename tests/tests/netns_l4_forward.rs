//! Real clients reach real servers through native XDP: TCP and UDP, IPv4 and IPv6, spread over `nat` endpoints by
//! Maglev, exactly as `explain` says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ingress_agent::model::snapshot::{Forwarding, FrontendKind, Protocol, Protocol::Tcp, Protocol::Udp};
use ingress_tests::l4::{Snapshots, key, nat};
use ingress_tests::l4_lan::{CLIENT, L4Lan};

const VIP4: &str = "203.0.113.10:80";
const VIP6: &str = "[2001:db8::10]:80";

#[test]
fn nat_spreads_clients_as_explain_says_and_hides_them() {
    let lan = L4Lan::new("fwnat").expect("make the LAN");
    let mut dataplane = lan.open();
    let endpoints = |v6| (1..=3).map(|i| nat(&L4Lan::endpoint(i, v6))).collect::<Vec<_>>();
    let mut world = Snapshots::default();
    for (vip, v6) in [(VIP4, false), (VIP6, true)] {
        world.set("tcp", Tcp, vip, &endpoints(v6));
        world.set("udp", Udp, vip, &endpoints(v6));
        assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
        for protocol in [Tcp, Udp] {
            spread(&lan, &dataplane, protocol, vip);
        }
    }
}

/// Sends 48 flows; each must go where `explain` said before, from the source that it named.
#[track_caller]
fn spread(lan: &L4Lan, dataplane: &ingress_agent::dataplane::Dataplane, protocol: Protocol, vip: &str) {
    let vip_addr: SocketAddr = vip.parse().expect("an address");
    let client = CLIENT[usize::from(vip_addr.is_ipv6())].parse().expect("an address");
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for port in 40_000..40_048 {
        let from = SocketAddr::new(client, port);
        let told = dataplane.explain(protocol, from, vip_addr).expect("explain");
        assert!(!told.from_flow, "{told:?}");
        let mut asker = lan.ask(protocol, port, vip).unwrap_or_else(|e| panic!("{protocol} {from}: {e:#}; {told:#?}"));
        let answer = asker.ask().unwrap_or_else(|e| panic!("{protocol} {from}: {e:#}; {told:#?}"));
        let (endpoint, mode) = told.backend.expect("a backend");
        let name = format!("b{}", endpoint.ip().to_string().chars().last().expect("not empty"));
        assert_eq!((&answer.name, mode), (&name, Forwarding::Nat), "{told:#?}");
        assert_eq!(Some((answer.seen.ip(), answer.seen.port())), told.source, "{told:#?}");
        assert_eq!(answer.seen.ip(), vip_addr.ip(), "the source is the VIP");
        *shares.entry(answer.name).or_default() += 1;
        // Now there is a record, which says the same.
        let after = dataplane.explain(protocol, from, vip_addr).expect("explain");
        assert!(after.from_flow, "{after:#?}");
        assert_eq!((after.backend, after.source), (told.backend, told.source));
    }
    assert!(shares.len() == 3 && shares.values().all(|n| (6..=26).contains(n)), "{shares:?}");
    let traffic = dataplane.read().expect("read");
    let counts = traffic.frontends.iter().find(|(k, _)| *k == key(protocol, vip)).expect("counters").1;
    assert_eq!(counts.new_flows, 48);
    assert!(
        counts.rx_packets >= 48 && counts.tx_packets >= 48 && counts.rx_bytes > counts.rx_packets * 20,
        "{counts:?}"
    );
}

#[test]
fn affinity_keeps_a_client_together_and_a_configured_source_is_what_backends_see() {
    let lan = L4Lan::new("fwaffine").expect("make the LAN");
    let mut dataplane = lan.open();
    let endpoints: Vec<_> = (1..=3).map(|i| nat(&L4Lan::endpoint(i, false))).collect();
    let mut world = Snapshots::default().service("s", Tcp, VIP4, &endpoints);
    let source = "203.0.113.99".parse().expect("an address");
    let frontend = key(Tcp, VIP4);
    let pool = world.now.pools.keys().next().expect("one pool").clone();
    world.frontend(
        frontend,
        "s",
        FrontendKind::L4 { pool: pool.clone(), client_ip_affinity: Some(60), snat: source, sources: None },
    );
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    let ask = || lan.ask(Tcp, 0, VIP4).expect("connect").ask().expect("an answer");
    let first = ask();
    assert_eq!(first.seen.ip(), source);
    (0..20).for_each(|_| assert_eq!(ask().name, first.name));

    // Back to the defaults: flows under way keep their source, new ones get the VIP.
    let mut old = lan.ask(Tcp, 0, VIP4).expect("connect");
    let before = old.ask().expect("an answer");
    world.frontend(
        frontend,
        "s",
        FrontendKind::L4 { pool, client_ip_affinity: None, snat: frontend.vip, sources: None },
    );
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    assert_eq!(ask().seen.ip(), frontend.vip);
    assert_eq!(old.ask().expect("the flow goes on"), before);
}

/// kube-proxy's promise: a client stays where it is for the Service's time, also when the endpoint comes back that its hash names.
#[test]
fn a_client_keeps_the_endpoint_that_it_had_last_although_others_come() {
    let lan = L4Lan::new("fwkeep").expect("make the LAN");
    let mut dataplane = lan.open();
    let all: Vec<_> = (1..=3).map(|i| nat(&L4Lan::endpoint(i, false))).collect();
    let mut world = Snapshots::default().service("s", Tcp, VIP4, &all);
    let frontend = key(Tcp, VIP4);
    let pool = world.now.pools.keys().next().expect("one pool").clone();
    let affine =
        FrontendKind::L4 { pool: pool.clone(), client_ip_affinity: Some(60), snat: frontend.vip, sources: None };
    world.frontend(frontend, "s", affine);
    dataplane.apply(&world.build()).expect("apply");
    let ask = || lan.ask(Tcp, 0, VIP4).expect("connect").ask().expect("an answer").name;
    let first = ask();
    // What the hash names goes, and comes back.
    let gone: usize = first.trim_start_matches('b').parse().expect("b1, b2 or b3");
    let rest: Vec<_> = all.iter().enumerate().filter(|(i, _)| i + 1 != gone).map(|(_, b)| b.clone()).collect();
    world.pool(pool.clone(), rest);
    dataplane.apply(&world.build()).expect("apply");
    let second = ask();
    assert_ne!(second, first);
    world.pool(pool, all);
    dataplane.apply(&world.build()).expect("apply");
    let from = lan.ask(Tcp, 0, VIP4).expect("connect").ask().expect("an answer");
    assert_eq!(from.name, second, "by its hash alone it would be {first} again");
    (0..10).for_each(|_| assert_eq!(ask(), second));
    // Another agent on the same maps finds it as it was.
    drop(dataplane);
    let mut dataplane = lan.open();
    dataplane.apply(&world.build()).expect("apply");
    assert_eq!(ask(), second);
    let client = SocketAddr::new(CLIENT[0].parse().expect("an address"), 9);
    let told = dataplane.explain(Tcp, client, VIP4.parse().expect("an address")).expect("explain");
    assert!(told.steps.iter().any(|s| s.contains("the client keeps backend")), "{:?}", told.steps);
}
