//! A second edge joins, the owner's cable is cut under load, and the addresses move back by command.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ingress_tests::edge::sibling;
use ingress_tests::load::{self, Outcome};
use ingress_tests::outage::Outage;
use ingress_tests::table::{Table, ms};
use ingress_tests::vip_site::has;

use crate::show::{indent, step};
use crate::world::{L4_V4, L4_V6, Load, WEB_V4, WEB_V6, World, start_edge};

const PATIENCE: Duration = Duration::from_secs(30);
const ALL: [&str; 4] = [L4_V4, L4_V6, WEB_V4, WEB_V6];
const CONNECTIONS: usize = 200;
/// Flows younger than a second and a half are not told to the other edge.
const SHARED_AFTER: Duration = Duration::from_secs(3);
/// The bar of a node's death at adverts of 100 ms is 400 ms; the rest is for a machine that has other work.
const DEATH: Duration = Duration::from_millis(600);
/// That of a planned move is 5 ms, which `cargo xtask bench failover` measures.
const MOVE: Duration = Duration::from_millis(100);

/// Ports of the edges' cables at the switch: the first host that was plugged in, and the last.
const CABLES: [&str; 2] = ["p1", "p7"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    First,
    Second,
}

impl Edge {
    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// As the agent was told by `--node`.
    const fn name(self) -> &'static str {
        match self {
            Self::First => "edge",
            Self::Second => "edge-2",
        }
    }
}

pub(crate) fn show(world: &mut World, table: &mut Table) -> Result<()> {
    step(
        "A second edge joins: both elect who holds the addresses (VRRP, an advert every 100 ms), and share their flows",
    );
    join(world)?;
    let owner = settled(world)?;
    println!("{}", indent(vip(world, owner, &["list"])?.trim_end()));

    step("Under load, the cable of the edge that has them is cut");
    let load = Traffic::start(world)?;
    std::thread::sleep(SHARED_AFTER);
    let probe = Outage::watch(&world.client4, L4_V4)?;
    cable(world, owner, false)?;
    let heir = owner.other();
    until("the other edge has the addresses", || has_all(world, heir))?;
    let taken = load::now_ms();
    let gap = probe.end()?.longest;
    println!("   {} has the addresses", heir.name());
    std::thread::sleep(Duration::from_secs(2));
    table.row("the owner's cable cut: nobody answered for", ms(gap), format!("at most {}", ms(DEATH)), gap <= DEATH);
    let web = load.finish(table, "its `nat` connections lost")?;
    // Neighbours hear of the new owner within the first announcement.
    let late = web.failed_since(taken + 100);
    let lost = web.failures.len() - late;
    println!("   {lost} HTTPS requests were lost with the edge that died: they had ended in its proxy");
    let what = "HTTPS requests failed after the takeover";
    table.row(what, format!("{late} (of {} in all)", web.ok), "0", late == 0 && web.ok > 100);

    step("Its cable is whole again, and the addresses come back by `sluicegate vip move`");
    cable(world, owner, true)?;
    let from = settled(world)?;
    let load = Traffic::start(world)?;
    std::thread::sleep(SHARED_AFTER);
    let probe = Outage::watch(&world.client4, L4_V4)?;
    for address in [L4_V4, WEB_V4] {
        vip(world, from, &["move", address, from.other().name()])?;
    }
    until("the other edge has the addresses", || has_all(world, from.other()))?;
    let gap = probe.end()?.longest;
    std::thread::sleep(Duration::from_secs(1));
    table.row("planned move: nobody answered for", ms(gap), format!("at most {}", ms(MOVE)), gap <= MOVE);
    let web = load.finish(table, "`nat` connections lost by it")?;
    let failed = web.failures.len();
    let what = "HTTPS requests failed by it";
    table.row(what, format!("{failed} (of {} in all)", web.ok), "0", failed == 0 && web.ok > 100);
    Ok(())
}

fn join(world: &mut World) -> Result<()> {
    let host = world.lan.host("edge2", &["192.0.2.3/24", "2001:db8:1::3/64"])?;
    host.forward()?;
    // The pod is behind the first edge, as in any pod network.
    host.ip(&["route", "add", "10.9.0.2/32", "via", "192.0.2.1"])?;
    host.ip(&["-6", "route", "add", "fd09::2/128", "via", "2001:db8:1::1"])?;
    for port in CABLES {
        // A network card drops frames for another's MAC, which a switch floods when a port goes down; a veth does not.
        world.lan.switch.run("bridge", &["link", "set", "dev", port, "flood", "off"])?;
    }
    let own = world.directory.join("edge-2");
    fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
    // The same directory: both know the same.
    std::os::unix::fs::symlink("../manifests", own.join("manifests")).context("link the manifests")?;
    let agent = start_edge(&host, "edge-2", &own, &world.directory)?;
    world.second = Some((host, agent));
    Ok(())
}

fn cable(world: &World, edge: Edge, whole: bool) -> Result<()> {
    world.lan.switch.ip(&["link", "set", CABLES[edge as usize], if whole { "up" } else { "down" }]).map(drop)
}

fn holds(world: &World, edge: Edge, address: &str) -> bool {
    match edge {
        Edge::First => has(&world.edge, address),
        Edge::Second => world.second.as_ref().is_some_and(|(host, _)| has(host, address)),
    }
}

fn has_all(world: &World, edge: Edge) -> bool {
    ALL.iter().all(|address| holds(world, edge, address))
}

/// Waits until one edge has had every address and the other none for half a second, which is longer than an election takes. Which one it
/// is: on a machine that stood still for long enough the other one has taken over meanwhile, and keeps them.
fn settled(world: &World) -> Result<Edge> {
    let mut since = (None, Instant::now());
    until("one edge has all addresses", || {
        let alone = |e: &Edge| has_all(world, *e) && !ALL.iter().any(|a| holds(world, e.other(), a));
        let owner = [Edge::First, Edge::Second].into_iter().find(alone);
        if owner.is_none() || owner != since.0 {
            since = (owner, Instant::now());
        }
        since.1.elapsed() > Duration::from_millis(500)
    })?;
    since.0.context("no edge has all addresses")
}

fn until(what: &str, mut held: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !held() {
        ensure!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// `sluicegate vip …` on an edge.
fn vip(world: &World, edge: Edge, arguments: &[&str]) -> Result<String> {
    let second = world.second.as_ref().filter(|_| edge == Edge::Second);
    let (host, agent) = second.map_or((&world.edge, &world.agent), |(host, agent)| (host, agent));
    let (binary, socket) = (sibling("sluicegate")?, agent.socket());
    let (binary, socket) = (binary.to_string_lossy(), socket.to_string_lossy());
    host.ns.run(&binary, &[&["vip"], arguments, &["--admin-socket", &socket]].concat())
}

struct Traffic {
    hold: Load,
    web: Load,
}

impl Traffic {
    fn start(world: &World) -> Result<Self> {
        let count = CONNECTIONS.to_string();
        let mut hold =
            Load::start(&world.client4, &["hold", &format!("{L4_V4}:9000"), "--connections", &count, "--avoid", "b2"])?;
        println!("   {} TCP connections, a message on each ten times a second, and HTTPS requests", hold.first_line()?);
        let authority = world.authority();
        let to = format!("{WEB_V4}:443");
        let web = ["https", &to, "--host", "shop.example", "--ca", &authority.to_string_lossy()];
        Ok(Self { hold, web: Load::start(&world.client4, &web)? })
    }

    /// Notes how many connections were lost; returns what became of the requests.
    fn finish(self, table: &mut Table, what: &str) -> Result<Outcome> {
        let (hold, web) = (Outcome::parse(&self.hold.finish()?)?, Outcome::parse(&self.web.finish()?)?);
        let lost = hold.failures.len();
        let all = lost == 0 && hold.ok == CONNECTIONS as u64;
        table.row(what, format!("{lost} of {}", hold.ok + lost as u64), "0", all);
        for (_, why) in hold.failures.iter().chain(&web.failures).take(3) {
            println!("     {why}");
        }
        Ok(web)
    }
}
