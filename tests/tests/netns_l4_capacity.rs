//! The promised capacity: 10,000 frontends, 100,000 endpoints, 1,000,000 flows. What is beyond is refused by name, and nothing else.

use std::time::Instant;

use ingress_agent::dataplane::DataplaneOptions;
use ingress_agent::model::snapshot::{Backend, Protocol::Tcp};
use ingress_tests::l4::{Snapshots, nat};
use ingress_tests::l4_lan::L4Lan;

fn vip(i: usize) -> String {
    format!("198.18.{}.{}:{}", i / 250 % 40, i % 250 + 1, 80 + i / 10_000)
}

/// Ten endpoints a service, of which the first is a server.
fn endpoints(i: usize) -> Vec<Backend> {
    let others = (0..9).map(|j| nat(&format!("10.{}.{}.{}:80", 20 + j, i / 250, i % 250 + 1)));
    std::iter::once(nat(&L4Lan::endpoint(1, false))).chain(others).collect()
}

#[test]
fn the_promised_capacity_loads_serves_and_is_adopted() {
    let lan = L4Lan::new("capfull").expect("make the LAN");
    let defaults = DataplaneOptions::default();
    let full = |o: &mut DataplaneOptions| {
        *o = DataplaneOptions { interfaces: o.interfaces.clone(), pin_path: o.pin_path.clone(), ..defaults.clone() };
    };
    let mut dataplane = lan.open_with(full).expect("open at full size");
    let mut world = Snapshots::default();
    (0..10_000).for_each(|i| world.set(&format!("s{i}"), Tcp, &vip(i), &endpoints(i)));
    let snapshot = world.build();
    let started = Instant::now();
    assert_eq!(dataplane.apply(&snapshot).expect("apply").problems, [""; 0]);
    println!("10,000 frontends and 100,000 endpoints applied in {:?}", started.elapsed());
    let traffic = dataplane.read().expect("read");
    assert_eq!((traffic.frontends.len(), traffic.backends.len()), (10_000, 100_000));
    assert_eq!(traffic.flow_capacity, 1 << 20);

    // One endpoint changes.
    world.set("s4000", Tcp, &vip(4000), &endpoints(4000)[..1]);
    let snapshot = world.build();
    let started = Instant::now();
    assert_eq!(dataplane.apply(&snapshot).expect("apply").problems, [""; 0]);
    println!("nine endpoints of 100,000 removed in {:?}", started.elapsed());
    assert_eq!(lan.ask(Tcp, 0, &vip(4000)).expect("connect").ask().expect("an answer").name, "b1");

    // A frontend too many is refused, and a place that becomes free is taken.
    world.set("surplus", Tcp, "198.19.0.1:80", &endpoints(1)[..1]);
    let problems = dataplane.apply(&world.build()).expect("apply").problems;
    assert!(
        problems.len() == 1 && problems[0].contains("198.19.0.1:80") && problems[0].contains("--max-frontends"),
        "{problems:?}"
    );
    world.remove(Tcp, &vip(1));
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    assert_eq!(lan.ask(Tcp, 0, "198.19.0.1:80").expect("connect").ask().expect("an answer").name, "b1");

    drop(dataplane);
    let started = Instant::now();
    let mut second = lan.open_with(full).expect("adopt");
    println!("adopted in {:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(second.apply(&world.build()).expect("apply").problems, [""; 0]);
    println!("compared with the first snapshot in {:?}", started.elapsed());
    assert_eq!(second.read().expect("read").frontends.len(), 10_000);
    lan.ask(Tcp, 0, &vip(4000)).expect("connect").ask().expect("an answer");
}
