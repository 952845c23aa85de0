//! Two whole agents and an address that moves between them: killed, stopped, told to move, told to end.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::Host;
use ingress_tests::place::Place;
use ingress_tests::vip_site::{Site, VIP4, VIP6, has, manifests, until_has};
use ingress_tests::wait::until;
use serde_json::Value;

struct Edge {
    name: &'static str,
    host: Host,
    agent: Agent,
    directory: PathBuf,
}

struct World {
    site: Site,
    edges: [Edge; 2],
    _place: Place,
}

impl World {
    /// Both agents run, and `edges[0]` is the one that has the address.
    fn new(label: &'static str) -> Self {
        let site = Site::new(label);
        let place = Place::new(label).expect("make a directory");
        let edge = |name: &'static str, n: u8| {
            let host = site.host(n);
            let directory = place.directory.join(name);
            fs::create_dir_all(directory.join("manifests")).expect("make its directory");
            fs::write(directory.join("manifests/demo.yaml"), manifests("10.1.0.9")).expect("write its manifests");
            let pins = place.pins.join(name);
            let arguments = ["--node", name, "--vip-mode", "vrrp"];
            let agent = Agent::start(&host, &directory, &pins, &arguments).expect("start the agent");
            Edge { name, host, agent, directory }
        };
        let mut edges = [edge("a", 2), edge("b", 3)];
        let holder = until("who comes first has it, and nobody else", || {
            let has = edges.each_ref().map(|e| has(&e.host, VIP4) && has(&e.host, VIP6));
            let first = edges[0].elections()["routers"][0]["order"][0].as_str()? == "a";
            (has == [first, !first]).then_some(first)
        });
        if !holder {
            edges.swap(0, 1);
        }
        edges[1].until_state("backup");
        Self { site, edges, _place: place }
    }

    #[track_caller]
    fn until_on(&self, n: usize) {
        for vip in [VIP4, VIP6] {
            until_has(&self.edges[n].host, vip, true);
            until_has(&self.edges[1 - n].host, vip, false);
        }
    }
}

impl Edge {
    fn vip(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.host.ns.command(sibling("sluicegate").expect("it is built"));
        let out =
            command.arg("vip").args(arguments).arg("--admin-socket").arg(self.directory.join("admin.sock")).output();
        let out = out.expect("start it");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    fn elections(&self) -> Value {
        let (_, out, _) = self.vip(&["list", "-o", "json"]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    #[track_caller]
    fn until_state(&self, state: &str) {
        until(&format!("{} is {state}", self.name), || {
            (self.elections()["routers"][0]["state"] == state).then_some(())
        });
    }
}

#[test]
fn addresses_move_by_command_and_a_restart_drains_first() {
    let mut world = World::new("vra1");
    let watched = [world.site.watch(VIP4), world.site.watch(VIP6)];
    let names = world.edges.each_ref().map(|e| e.name);
    // On the node that has it, and on the node that wants it.
    let (code, out, err) = world.edges[0].vip(&["move", VIP4, names[1]]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    world.until_on(1);
    let (code, _, err) = world.edges[0].vip(&["move", VIP6, names[0]]);
    assert_eq!((code, err.as_str()), (0, ""));
    world.until_on(0);
    let (code, _, err) = world.edges[1].vip(&["move", VIP4, names[0]]);
    assert!(code == 1 && err.contains(&format!("run this on {}", names[0])), "{err}");
    let (code, _, err) = world.edges[1].vip(&["move", "10.1.0.77", names[0]]);
    assert!(code == 1 && err.contains("no address that is served here"), "{err}");

    assert_eq!(world.edges[0].vip(&["drain"]).0, 0);
    world.until_on(1);
    let (code, _, err) = world.edges[0].vip(&["move", VIP4, names[0]]);
    assert!(code == 1 && err.contains("may not hold"), "{err}");
    assert!(world.edges[0].vip(&["list"]).1.contains("is drained"));
    assert_eq!(world.edges[0].vip(&["undrain"]).0, 0);
    world.until_on(0);

    // SIGTERM: the other one has it before this one has ended.
    world.edges[0].agent.stop().expect("stop it");
    world.until_on(1);
    world.edges[0].agent.start_again().expect("start it again");
    world.until_on(0);
    for watch in watched {
        let found = watch.end().expect("the probe tells");
        eprintln!("six planned moves: longest gap {:?}, {} of {} answered", found.longest, found.answered, found.sent);
        assert!(found.longest <= Duration::from_millis(50), "{found:?}");
    }

    // The Node's annotation drains as well.
    let drained = manifests("10.1.0.9").replace(
        &format!("name: {} ", names[0]),
        &format!("name: {}, annotations: {{ sluicegate.io/drain: 'true' }} ", names[0]),
    );
    for edge in &world.edges {
        edge.agent.write("demo.yaml", &drained).expect("change the manifests");
    }
    world.until_on(1);
    let (list, status) = (world.edges[1].vip(&["list"]).1, world.edges[1].agent.status().expect("status"));
    for text in [&list, &status] {
        assert!(text.contains("active") && text.contains(VIP4) && text.contains("this node (2"), "{text}");
    }
    let metrics = world.edges[1].agent.get("/metrics").expect("metrics").1;
    for sample in [
        "sluicegate_vrrp_active{",
        "sluicegate_vrrp_rejected_total{reason=\"checksum\"} 0",
        "sluicegate_vrrp_takeovers_total{",
    ] {
        assert!(metrics.contains(sample), "{sample} not in\n{metrics}");
    }
}

#[test]
fn killed_and_stopped_agents_lose_their_addresses_within_four_adverts() {
    let mut world = World::new("vra2");
    let watch = world.site.watch(VIP4);
    world.edges[0].agent.kill().expect("kill -9");
    until_has(&world.edges[1].host, VIP4, true);
    until_has(&world.edges[1].host, VIP6, true);
    let found = watch.end().expect("the probe tells");
    eprintln!("kill -9: longest gap {:?}, {} of {} answered", found.longest, found.answered, found.sent);
    assert!(found.longest <= Duration::from_millis(400), "{found:?}");
    // It comes back, adopts what it left on its interface, and takes its addresses back as the stronger one.
    world.edges[0].agent.start_again().expect("start it again");
    world.until_on(0);

    // A stopped agent holds on to what it has; when it wakes, it gives that up before it says anything, and has it back by the rules.
    let watch = world.site.watch(VIP4);
    let id = world.edges[0].agent.id().expect("it runs") as i32;
    // SAFETY: kill has no memory preconditions; the child is ours and not reaped.
    unsafe { libc::kill(id, libc::SIGSTOP) };
    until_has(&world.edges[1].host, VIP4, true);
    world.edges[1].until_state("active");
    // SAFETY: as above.
    unsafe { libc::kill(id, libc::SIGCONT) };
    world.until_on(0);
    let found = watch.end().expect("the probe tells");
    eprintln!("SIGSTOP: longest gap {:?}, {} of {} answered", found.longest, found.answered, found.sent);
    assert!(found.longest <= Duration::from_millis(400), "{found:?}");
    assert!(world.edges[0].elections()["routers"][0]["fenced"].as_u64() >= Some(1), "{}", world.edges[0].elections());
}
