//! The data plane's maps as an image of the snapshot, on real maps in namespaces: what is served, what is refused and why, and
//! what a restart finds again. No packet is sent here.

use std::collections::BTreeMap;

use ingress_agent::dataplane::{Dataplane, DataplaneOptions};
use ingress_agent::model::snapshot::{Backend, Protocol::Tcp};
use ingress_agent::model::traffic::AttachMode;
use ingress_tests::l4::{PinPath, Snapshots, draining, nat, options};
use ingress_tests::lan::{Host, Lan};
use xdp_ebpf::map;

struct Edge {
    host: Host,
    pins: PinPath,
    _lan: Lan,
}

impl Edge {
    fn new(label: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let host = lan.host("edge", &["10.0.0.1/24"]).expect("plug in the edge");
        Self { host, pins: PinPath::default(), _lan: lan }
    }

    #[track_caller]
    fn open(&self) -> Dataplane {
        self.open_with(|_| {}).expect("open the data plane")
    }

    fn open_with(&self, change: impl FnOnce(&mut DataplaneOptions) + Send) -> anyhow::Result<Dataplane> {
        let mut options = options(&self.pins, &["eth0"]);
        change(&mut options);
        self.host.inside(|| Dataplane::open(options))
    }
}

fn backends(count: usize) -> Vec<Backend> {
    (0..count).map(|i| nat(&format!("10.1.{}.{}:80", i / 250, i % 250 + 1))).collect()
}

/// What flows know: frontends, pools and endpoints by number, with epochs and table ranges.
fn numbers(pins: &PinPath) -> (BTreeMap<[u8; 20], [u8; 32]>, Vec<[u8; 16]>, Vec<[u8; 24]>) {
    (pins.frontends(), pins.array(map::POOLS), pins.array(map::BACKENDS))
}

#[test]
fn a_restart_finds_everything_under_the_same_numbers() {
    let edge = Edge::new("mrestart");
    let (web, db) = ("203.0.113.10:80", "203.0.113.11:5432");
    let mut world = Snapshots::default().service("web", Tcp, web, &backends(5)).service(
        "db",
        Tcp,
        db,
        &[draining(nat("10.1.0.1:5432")), nat("10.1.0.2:5432")],
    );
    let mut first = edge.open();
    assert_eq!(first.apply(&world.build()).expect("apply").problems, [""; 0]);
    let before = numbers(&edge.pins);
    let tables = first.read().expect("read").tables;
    let mut slots: Vec<_> = tables.iter().map(|(_, _, slots, _)| *slots).collect();
    slots.sort_unstable();
    assert_eq!(slots, [251, 509]);
    drop(first);

    let mut second = edge.open();
    assert_eq!(numbers(&edge.pins), before, "opening changes nothing");
    assert_eq!(second.apply(&world.build()).expect("apply").problems, [""; 0]);
    assert_eq!(numbers(&edge.pins), before, "the same snapshot changes nothing");
    assert_eq!(second.read().expect("read").tables, tables);
    assert_eq!(second.attachments()[0].mode, AttachMode::Native);
    drop(second);

    // A third start with another world removes what is not named any more, and only that.
    world.remove(Tcp, db);
    let mut third = edge.open();
    assert_eq!(third.apply(&world.build()).expect("apply").problems, [""; 0]);
    let after = numbers(&edge.pins);
    assert_eq!(after.0.len(), 1);
    assert!(after.0.iter().all(|(key, value)| before.0[key] == *value));
    let living = |backends: &[[u8; 24]]| backends.iter().filter(|b| b[19] != 0).copied().collect::<Vec<_>>();
    assert_eq!(living(&after.2).len(), 5);
    assert!(living(&after.2).iter().all(|b| living(&before.2).contains(b)));
}
