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

type Numbers = (BTreeMap<[u8; 20], [u8; 32]>, Vec<[u8; 16]>, Vec<[u8; 24]>);

/// What flows know: frontends, pools and endpoints by number, with epochs and table ranges.
fn numbers(pins: &PinPath) -> Numbers {
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

#[test]
fn only_the_surplus_is_refused() {
    let edge = Edge::new("msurplus");
    let mut dataplane =
        edge.open_with(|o| (o.max_frontends, o.max_backends) = (2, 5)).expect("open with room for two frontends");
    let mut world = Snapshots::default()
        .service("a", Tcp, "203.0.113.1:80", &backends(3))
        .service("b", Tcp, "203.0.113.2:80", &backends(3))
        .service("c", Tcp, "203.0.113.3:80", &backends(0));
    let problems = dataplane.apply(&world.build()).expect("apply").problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("test/b:80: 1 of 3 endpoints") && problems[0].contains("--max-backends"),
        "{problems:?}"
    );
    assert!(problems[1].contains("203.0.113.3:80") && problems[1].contains("--max-frontends"), "{problems:?}");
    let traffic = dataplane.read().expect("read");
    assert_eq!((traffic.frontends.len(), traffic.backends.len()), (2, 5));
    // They are told again while it lasts, and served once there is room.
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, problems);
    world.remove(Tcp, "203.0.113.1:80");
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    let traffic = dataplane.read().expect("read");
    assert_eq!((traffic.frontends.len(), traffic.backends.len()), (2, 3));
}

/// Two tables of 1021 slots fill an arena of 2048.
#[test]
fn a_full_arena_costs_the_newcomer_only() {
    let edge = Edge::new("marena");
    let mut dataplane = edge.open_with(|o| o.ring_slots = 2048).expect("open with room for two tables");
    let mut world = Snapshots::default().service("a", Tcp, "203.0.113.1:80", &backends(8)).service(
        "b",
        Tcp,
        "203.0.113.2:80",
        &backends(8),
    );
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    // No room beside the old table: it is rewritten in place.
    world.set("a", Tcp, "203.0.113.1:80", &backends(9));
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    // It should have 2039 slots now; it keeps 1021, and every endpoint has some.
    world.set("a", Tcp, "203.0.113.1:80", &backends(11));
    let problems = dataplane.apply(&world.build()).expect("apply").problems;
    assert!(
        problems.len() == 1 && problems[0].contains("test/a:80") && problems[0].contains("--ring-slots"),
        "{problems:?}"
    );
    let rings: Vec<[u8; 4096]> = edge.pins.array(map::RINGS);
    let mut named: Vec<u32> = rings.iter().flat_map(|page| page.chunks(4)).map(id).filter(|id| *id != 0).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), 19, "all endpoints of both are in a table");
    world.set("c", Tcp, "203.0.113.3:80", &backends(2));
    let problems = dataplane.apply(&world.build()).expect("apply").problems;
    assert!(problems.iter().any(|p| p.contains("test/c:80") && p.contains("gets no traffic")), "{problems:?}");
    world.remove(Tcp, "203.0.113.2:80");
    world.set("a", Tcp, "203.0.113.1:80", &backends(9));
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    let mut slots: Vec<_> = dataplane.read().expect("read").tables.iter().map(|(_, _, slots, _)| *slots).collect();
    slots.sort_unstable();
    assert_eq!(slots, [251, 1021]);
}

fn id(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
}

/// Unchanged parts cost nothing: a snapshot with the same `Arc`s writes nothing at all.
#[test]
fn a_changed_endpoint_touches_its_own_pool_only() {
    let edge = Edge::new("mtouch");
    let mut dataplane = edge.open();
    let mut world = Snapshots::default().service("a", Tcp, "203.0.113.1:80", &backends(4)).service(
        "b",
        Tcp,
        "203.0.113.2:80",
        &backends(4),
    );
    dataplane.apply(&world.build()).expect("apply");
    let before = numbers(&edge.pins);
    world.set("a", Tcp, "203.0.113.1:80", &backends(5));
    dataplane.apply(&world.build()).expect("apply");
    let after = numbers(&edge.pins);
    assert_eq!(after.0, before.0, "no frontend was written");
    let pools = after.1.iter().zip(&before.1).filter(|(a, b)| a != b).count();
    let endpoints = after.2.iter().zip(&before.2).filter(|(a, b)| a != b).count();
    assert_eq!((pools, endpoints), (1, 1));
    // The pool's old table stays as the previous one until its grace time is over.
    let (current, previous) =
        after.1.iter().zip(&before.1).find(|(a, b)| a != b).map(|(a, b)| (b, &a[8..])).expect("one");
    assert_eq!(previous, &current[..8]);
}
