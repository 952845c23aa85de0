//! Changes under traffic: who keeps a flow, who gets new ones, and how soon.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ingress_agent::model::snapshot::{Backend, FrontendKind, Protocol, Protocol::Tcp, Protocol::Udp};
use ingress_tests::echo::Asker;
use ingress_tests::l4::{Snapshots, draining, key, nat, verdicts};
use ingress_tests::l4_lan::L4Lan;
use ingress_tests::wait::SetOnDrop;

const VIP: &str = "203.0.113.10:80";

fn endpoints(which: &[usize]) -> Vec<Backend> {
    which.iter().map(|i| nat(&L4Lan::endpoint(*i, false))).collect()
}

/// Opens `count` flows and asks each who serves it.
#[track_caller]
fn flows(lan: &L4Lan, protocol: Protocol, count: usize) -> Vec<(Asker, String)> {
    let open = |_| {
        let mut asker = lan.ask(protocol, 0, VIP).expect("connect");
        let name = asker.ask().expect("an answer").name;
        (asker, name)
    };
    (0..count).map(open).collect()
}

fn names(flows: &[(Asker, String)]) -> BTreeSet<&str> {
    flows.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn a_draining_endpoint_keeps_its_flows_and_gets_no_new_one() {
    let lan = L4Lan::new("chdrain").expect("make the LAN");
    let mut dataplane = lan.open();
    for protocol in [Tcp, Udp] {
        let mut world = Snapshots::default().service("s", protocol, VIP, &endpoints(&[1, 2]));
        dataplane.apply(&world.build()).expect("apply");
        let mut old = flows(&lan, protocol, 16);
        assert_eq!(names(&old), BTreeSet::from(["b1", "b2"]), "both serve");
        world.set("s", protocol, VIP, &[draining(nat(&L4Lan::endpoint(1, false))), endpoints(&[2]).remove(0)]);
        dataplane.apply(&world.build()).expect("apply");
        for (asker, name) in &mut old {
            assert_eq!(asker.ask().expect("the flow goes on").name, *name);
        }
        assert_eq!(names(&flows(&lan, protocol, 16)), BTreeSet::from(["b2"]));
        world.remove(protocol, VIP);
        dataplane.apply(&world.build()).expect("apply");
    }
}

#[test]
fn flows_of_an_endpoint_that_is_gone_move_at_once_in_udp_and_end_in_tcp() {
    let lan = L4Lan::new("chgone").expect("make the LAN");
    // TCP: when the time for what is under way is over (`netns_l4_swap.rs`).
    let mut dataplane = lan.open_with(|o| o.leave = Duration::ZERO).expect("open");
    let mut world =
        Snapshots::default().service("s", Udp, VIP, &endpoints(&[1, 2])).service("s", Tcp, VIP, &endpoints(&[1, 2]));
    dataplane.apply(&world.build()).expect("apply");
    let (mut udp, mut tcp) = (flows(&lan, Udp, 16), flows(&lan, Tcp, 16));
    assert_eq!((names(&udp).len(), names(&tcp).len()), (2, 2));
    world.set("s", Udp, VIP, &endpoints(&[2, 3]));
    world.set("s", Tcp, VIP, &endpoints(&[2, 3]));
    dataplane.apply(&world.build()).expect("apply");
    for (asker, name) in &mut udp {
        let now = asker.ask().expect("the very next datagram is answered").name;
        assert!(now == "b2" || now == "b3", "{now}");
        assert!(name != "b2" || now == "b2", "flows of living endpoints stay");
    }
    for (asker, name) in &mut tcp {
        let result = asker.ask();
        if name == "b2" {
            assert_eq!(result.expect("the connection goes on").name, "b2");
        } else {
            // Another endpoint gets the packet, does not know the connection and says so with RST.
            let error = format!("{:#}", result.expect_err("the endpoint is gone"));
            assert!(error.contains("reset"), "{error}");
        }
    }
}

#[test]
fn growing_moves_no_flow_and_the_last_endpoint_leaves_refusals() {
    let lan = L4Lan::new("chgrow").expect("make the LAN");
    let mut dataplane = lan.open();
    let mut world = Snapshots::default().service("s", Tcp, VIP, &endpoints(&[1]));
    dataplane.apply(&world.build()).expect("apply");
    let mut old = flows(&lan, Tcp, 24);
    world.set("s", Tcp, VIP, &endpoints(&[1, 2, 3]));
    dataplane.apply(&world.build()).expect("apply");
    for (asker, name) in &mut old {
        assert_eq!(asker.ask().expect("the flow goes on").name, *name);
    }
    assert_eq!(names(&flows(&lan, Tcp, 24)).len(), 3);
    world.set("s", Tcp, VIP, &[]);
    dataplane.apply(&world.build()).expect("apply");
    let before = verdict(&dataplane, "pass_no_backend");
    let vip = VIP.parse().expect("an address");
    let told = dataplane.explain(Tcp, "10.0.0.2:1".parse().expect("an address"), vip).expect("explain");
    assert_eq!(told.backend, None, "{told:?}");
    assert!(lan.ask(Tcp, 0, VIP).is_err(), "nobody serves");
    assert!(verdict(&dataplane, "pass_no_backend") > before);
}

/// The removed frontend's records are freed by the sweep, and its number is given to nobody before.
#[test]
fn a_removed_frontend_leaves_no_flow_behind() {
    let lan = L4Lan::new("chsweep").expect("make the LAN");
    let mut dataplane = lan.open();
    let other = "203.0.113.11:80";
    let mut world =
        Snapshots::default().service("s", Tcp, VIP, &endpoints(&[1, 2])).service("o", Tcp, other, &endpoints(&[1, 2]));
    dataplane.apply(&world.build()).expect("apply");
    let _gone = flows(&lan, Tcp, 20);
    let mut stays = lan.ask(Tcp, 0, other).expect("connect");
    stays.ask().expect("an answer");
    dataplane.tick().expect("tick");
    assert_eq!(dataplane.read().expect("read").flows, 21);
    world.remove(Tcp, VIP);
    dataplane.apply(&world.build()).expect("apply");
    // One tick ends the pass under way, the next goes over all with the removed frontend in mind.
    for _ in 0..2 {
        dataplane.tick().expect("tick");
    }
    assert_eq!(dataplane.read().expect("read").flows, 1);
    stays.ask().expect("the other frontend's flow goes on");
}

/// Every connection that is opened while endpoints come and go is answered: no packet sees half a state.
#[test]
fn constant_change_fails_no_connection() {
    let lan = L4Lan::new("chchurn").expect("make the LAN");
    let mut dataplane = lan.open_with(|o| o.previous_table = Duration::from_millis(50)).expect("open");
    let mut world = Snapshots::default().service("s", Tcp, VIP, &endpoints(&[1, 2, 3]));
    dataplane.apply(&world.build()).expect("apply");
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let stopping = SetOnDrop(&stop);
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // An endpoint that drains keeps the flow until it has answered.
                lan.ask(Tcp, 0, VIP).expect("connect").ask().expect("an answer");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        // On a busy machine the connections need more changes to come to something.
        let enough = |round| round >= 300 && answered.load(Ordering::Relaxed) > 50;
        for round in (0..).take_while(|round| !enough(*round) && !load.is_finished()) {
            let one = nat(&L4Lan::endpoint(round % 3 + 1, false));
            let rest: Vec<_> = endpoints(&[1, 2, 3]).into_iter().filter(|b| b.address != one.address).collect();
            world.set("s", Tcp, VIP, &[rest, vec![draining(one)]].concat());
            assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
            dataplane.tick().expect("tick");
        }
        drop(stopping);
        load.join().expect("no connection failed");
    });
}

fn verdict(dataplane: &ingress_agent::dataplane::Dataplane, label: &str) -> u64 {
    let traffic = dataplane.read().expect("read");
    traffic.verdicts.iter().find(|(l, ..)| *l == label).expect("a verdict of that name").2
}

/// `loadBalancerSourceRanges`, changed while flows are open, and taken over by the next agent.
#[test]
fn only_admitted_clients_open_flows_and_open_ones_go_on() {
    let lan = L4Lan::new("chsrc").expect("make the LAN");
    let mut dataplane = lan.open();
    let mut world = Snapshots::default().service("s", Udp, VIP, &endpoints(&[1]));
    let guard = |world: &mut Snapshots, ranges: Option<&[&str]>| {
        let frontend = key(Udp, VIP);
        let FrontendKind::L4 { pool, client_ip_affinity, snat, .. } = world.now.frontends[&frontend].kind.clone()
        else {
            panic!("an L4 frontend");
        };
        let sources = ranges.map(|list| list.iter().map(|range| range.parse().expect("a range")).collect());
        world.frontend(frontend, "s", FrontendKind::L4 { pool, client_ip_affinity, snat, sources });
        world.build()
    };
    let mut old = lan.ask(Udp, 0, VIP).expect("a socket");
    let client = old.local().expect("a local address").ip();
    let own = format!("{client}/32");
    let admitted = || lan.ask(Udp, 0, VIP).expect("a socket").ask().is_ok();
    let dropped = |dataplane: &_| verdicts(dataplane).get("drop_source").copied().unwrap_or(0);

    dataplane.apply(&guard(&mut world, Some(&[&own, "192.0.2.200/32"]))).expect("apply");
    assert_eq!(old.ask().expect("the client is admitted").name, "b1");
    dataplane.apply(&guard(&mut world, Some(&["192.0.2.200/32"]))).expect("apply");
    assert_eq!(old.ask().expect("its flow goes on").name, "b1");
    assert!(!admitted() && dropped(&dataplane) > 0, "no new flow: {:?}", verdicts(&dataplane));
    let told = dataplane.explain(Udp, (client, 9).into(), VIP.parse().expect("an address")).expect("explain");
    assert!(told.steps.iter().any(|step| step.contains("loadBalancerSourceRanges: dropped")), "{told:?}");

    drop(dataplane);
    let mut dataplane = lan.open();
    assert!(!admitted(), "adopted, no snapshot yet");
    dataplane.apply(&guard(&mut world, Some(&[&own]))).expect("apply");
    assert!(admitted(), "the list changed");
    assert_eq!(lan.pins.sources(), 1, "nothing of the old list is left");
    dataplane.apply(&guard(&mut world, Some(&[]))).expect("apply");
    assert!(!admitted(), "a list of nobody");
    dataplane.apply(&guard(&mut world, None)).expect("apply");
    assert!(admitted(), "no list");
    dataplane.apply(&guard(&mut world, Some(&[&own]))).expect("apply");
    world.remove(Udp, VIP);
    dataplane.apply(&world.build()).expect("apply");
    assert_eq!(lan.pins.sources(), 0, "a frontend that is gone leaves no range");
}
