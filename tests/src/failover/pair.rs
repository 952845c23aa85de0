//! Two nodes and a client: what can be done to the nodes, and what the client has open meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::held::Held;
use super::node::{Common, NAMESPACE, Node, OBJECTS, Router, Who, keepalived};
use super::requests::Requests;
use super::scenario::Round;
use super::twice::answered_twice;
use crate::cluster::ControlPlane;
use crate::deploy;
use crate::edge::sibling;
use crate::netns::Running;
use crate::outage::{Outage, Returner};
use crate::place::Place;
use crate::vip_site::{Site, VIP4, VIP6, has, mac};

const TCP: [&str; 2] = ["10.1.0.100:9000", "[fd01::100]:9000"];
const UDP: [&str; 2] = ["10.1.0.100:9003", "[fd01::100]:9003"];
const HTTP: [&str; 2] = ["10.1.0.100:80", "[fd01::100]:80"];
const PATIENCE: Duration = Duration::from_mins(1);
/// Of the log of each node, where one does not do what is waited for.
const LAST_LINES: usize = 40;
/// Flows younger than this are not told to the other node.
const SHARED_AFTER: Duration = Duration::from_secs(3);
/// The owner of a moment ago lingers for less.
const STILL: Duration = Duration::from_millis(500);

/// Where the agents' facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facts {
    Manifests,
    /// A real one, which is killed as soon as the nodes have settled.
    ApiServer,
}

/// Two nodes that elect who holds an address of each family, and a client: agents of ours that share their flows, or keepalived.
pub struct Pair {
    pub(super) site: Site,
    nodes: [Node; 2],
    pub(super) who: Who,
    interval_ms: u32,
    connections: Vec<Held>,
    wanted: usize,
    opened: Instant,
    _backend: Option<(Running, Returner)>,
    cluster: Option<ControlPlane>,
    _place: Place,
}

impl Pair {
    /// `label` must be unique in a process. Flows are shared only where connections are held.
    pub fn new(label: &str, who: Who, facts: Facts, interval_ms: u32, connections: usize) -> Result<Self> {
        let site = Site::new(label);
        let place = Place::new(label)?;
        fs::write(place.directory.join("sync.key"), "a key that both of them have\n")?;
        let (a, b) = (site.host(2), site.host(3));
        let backend = site.host(50);
        for port in ["p2", "p3"] {
            // A network card drops frames for another's MAC, which a switch floods when a port goes down; a veth does not.
            site.lan.switch.run("bridge", &["link", "set", "dev", port, "flood", "off"])?;
        }
        // XDP at the nodes sends to them.
        for host in [&site.client, &backend] {
            host.receive_xdp()?;
        }
        let mut command = Command::new(sibling("demo_backend")?);
        let running = match who {
            Who::Ours => {
                let serving = backend.ns.spawn(command.arg("backend").stdout(Stdio::null()))?;
                Some((serving, Returner::start(&backend, 9003)?))
            }
            Who::Keepalived => None,
        };
        let mut cluster = None;
        let mut kubeconfig = None;
        if facts == Facts::ApiServer {
            let started = ControlPlane::start(label, &site.host(99).ns, [10, 1, 0, 99].into())?;
            started.apply(&deploy::rights())?;
            started.apply(&format!("{NAMESPACE}{OBJECTS}"))?;
            kubeconfig = Some(started.service_account_kubeconfig("sluicegate-system", "sluicegate")?);
            cluster = Some(started);
        }
        let common = Common { who, place: &place, interval_ms, facts, kubeconfig: kubeconfig.as_deref() };
        let nodes = [Node::new(&common, "a", a, 2)?, Node::new(&common, "b", b, 3)?];
        let wanted = if who == Who::Ours { connections } else { 0 };
        let mut pair = Self {
            site,
            nodes,
            who,
            interval_ms,
            connections: Vec::new(),
            wanted,
            opened: Instant::now(),
            _backend: running,
            cluster,
            _place: place,
        };
        if pair.cluster.is_some() {
            pair.settle()?;
        }
        if let Some(cluster) = &mut pair.cluster {
            cluster.kill_api_server()?;
        }
        Ok(pair)
    }

    /// Waits until one node has both addresses and the other none; returns which.
    pub fn settle(&mut self) -> Result<usize> {
        let mut since = (usize::MAX, Instant::now());
        self.wait("one node holds both addresses, for three adverts and half a second", move |pair| {
            let held = pair.nodes.each_ref().map(|n| (has(&n.host, VIP4), has(&n.host, VIP6)));
            let owner = match held {
                [(true, true), (false, false)] => 0,
                [(false, false), (true, true)] => 1,
                _ => usize::MAX,
            };
            if owner != since.0 {
                since = (owner, Instant::now());
            }
            let long = Duration::from_millis(u64::from(pair.interval_ms) * 3) + STILL;
            (owner != usize::MAX && since.1.elapsed() > long).then_some(owner)
        })
    }

    fn wait<T>(&mut self, what: &str, mut until: impl FnMut(&mut Self) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = until(self) {
                return Ok(value);
            }
            ensure!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
        };
        self.nodes.each_ref().map(|n| format!("{}:\n{}", n.name, last(n.last_words()))).join("\n")
    }

    /// Opens those that are missing, and waits until the other node knows of them.
    pub(super) fn hold_connections(&mut self) -> Result<()> {
        let missing = self.wanted - self.connections.len();
        if missing > 0 {
            self.connections.extend(self.open(missing)?);
            self.opened = Instant::now();
        }
        if self.wanted == 0 {
            return Ok(());
        }
        let opened = self.opened;
        self.wait("flows are old enough to be shared", |_| (opened.elapsed() > SHARED_AFTER).then_some(()))
    }

    /// Connections of this moment, of which the other node knows nothing.
    pub(super) fn open(&self, count: usize) -> Result<Vec<Held>> {
        Held::open(&self.site.client, &addresses(TCP)?, if self.who == Who::Ours { count } else { 0 })
    }

    /// Asks on every connection and forgets those that do not answer.
    pub(super) fn lost(&mut self) -> usize {
        let before = self.connections.len();
        self.connections.retain_mut(Held::works);
        before - self.connections.len()
    }

    /// An echo request a millisecond to each address and, through our nodes, a datagram to each of a service's.
    pub(super) fn watch(&self) -> Result<Vec<Outage>> {
        let mut watches = vec![Outage::watch(&self.site.client, VIP4)?, Outage::watch(&self.site.client, VIP6)?];
        if self.who == Who::Ours {
            for to in addresses(UDP)? {
                watches.push(Outage::stream(&self.site.client, to)?);
            }
        }
        Ok(watches)
    }

    pub(super) fn ask_http(&self) -> Result<Option<Requests>> {
        if self.who != Who::Ours {
            return Ok(None);
        }
        Requests::start(&self.site.client, "shop.example", addresses(HTTP)?).map(Some)
    }

    pub(super) fn until_has(&mut self, n: usize) -> Result<()> {
        let what = format!("node {} has the addresses", self.nodes[n].name);
        self.wait(&what, |pair| {
            let host = &pair.nodes[n].host;
            (has(host, VIP4) && has(host, VIP6)).then_some(())
        })
    }

    pub(super) fn until_both_have(&mut self) -> Result<()> {
        self.until_has(0)?;
        self.until_has(1)
    }

    pub(super) fn until_only_one_has(&mut self) -> Result<()> {
        self.wait("one of them gave the addresses up", |pair| {
            let held = pair.nodes.each_ref().map(|n| has(&n.host, VIP4) || has(&n.host, VIP6));
            (held[0] != held[1]).then_some(())
        })
    }

    pub(super) fn cable(&self, n: usize, whole: bool) {
        self.site.cable(self.nodes[n].port, whole);
    }

    /// Whether frames of one node reach the other.
    pub(super) fn part(&self, parted: bool) -> Result<()> {
        for node in &self.nodes {
            let state = if parted { "on" } else { "off" };
            let port = format!("p{}", node.port);
            self.site.lan.switch.run("bridge", &["link", "set", "dev", &port, "isolated", state])?;
        }
        Ok(())
    }

    pub(super) fn kill(&mut self, n: usize) -> Result<()> {
        match &mut self.nodes[n].router {
            Router::Ours(agent) => agent.kill(),
            Router::Theirs { running, .. } => running.take().context("keepalived runs")?.kill(),
        }
    }

    pub(super) fn start(&mut self, n: usize) -> Result<()> {
        let interval_ms = self.interval_ms;
        let node = &mut self.nodes[n];
        match &mut node.router {
            Router::Ours(agent) => agent.start_again().map(drop),
            Router::Theirs { running, priority } => {
                *running = Some(keepalived(node.name, &node.host, *priority, interval_ms)?);
                Ok(())
            }
        }
    }

    pub(super) fn signal(&self, n: usize, signal: libc::c_int) -> Result<()> {
        match &self.nodes[n].router {
            Router::Ours(agent) => {
                let id = agent.id().context("the agent runs")?;
                // SAFETY: kill takes no pointer; the child is ours and not reaped.
                unsafe { libc::kill(id as i32, signal) };
            }
            Router::Theirs { running, .. } => running.as_ref().context("keepalived runs")?.signal(signal)?,
        }
        Ok(())
    }

    /// keepalived knows no other way than to end.
    pub(super) fn move_away(&mut self, owner: usize) -> Result<()> {
        let to = self.nodes[1 - owner].name;
        match &mut self.nodes[owner].router {
            Router::Ours(_) => self.nodes[owner].vip(&["move", VIP4, to]).map(drop),
            Router::Theirs { running, .. } => running.take().context("keepalived runs")?.stop(),
        }
    }

    /// Ours go on from where they are.
    pub(super) fn after_move(&mut self, owner: usize) -> Result<()> {
        if self.who == Who::Ours { Ok(()) } else { self.start(owner) }
    }

    pub(super) fn drain(&self, owner: usize, on: bool) -> Result<()> {
        self.nodes[owner].vip(&[if on { "drain" } else { "undrain" }]).map(drop)
    }

    /// How many questions who has an address both nodes answered.
    pub(super) fn answered_twice(&self) -> Result<usize> {
        answered_twice(&self.site.client, &self.nodes.each_ref().map(|n| mac(&n.host)))
    }

    /// How often either has become the owner.
    pub(super) fn takeovers(&self) -> Result<u64> {
        Ok(self.nodes[0].takeovers()? + self.nodes[1].takeovers()?)
    }

    /// Both ended, then both started: from there to the first answer.
    pub(super) fn cold_start(&mut self) -> Result<Round> {
        for n in 0..2 {
            match &mut self.nodes[n].router {
                Router::Ours(agent) => agent.stop()?,
                Router::Theirs { running, .. } => running.take().context("keepalived runs")?.stop()?,
            }
        }
        self.connections.clear();
        for node in &self.nodes {
            // Programs stay after a graceful end, and answer.
            if matches!(node.router, Router::Ours(_)) {
                let uninstall = ["uninstall", "--pin-path", &node.pins.to_string_lossy()];
                node.host.run(&sibling("sluicegate")?.to_string_lossy(), &uninstall)?;
            }
        }
        for vip in [VIP4, VIP6] {
            self.site.client.ip(&["neigh", "flush", "to", vip])?;
        }
        let watches = [Outage::watch(&self.site.client, VIP4)?, Outage::watch(&self.site.client, VIP6)?];
        for n in 0..2 {
            match &mut self.nodes[n].router {
                Router::Ours(agent) => agent.launch()?,
                Router::Theirs { .. } => self.start(n)?,
            }
        }
        self.settle()?;
        let mut round = Round::default();
        for watch in watches {
            round.gaps.push(watch.end()?.until_first);
        }
        Ok(round)
    }

    /// Two busy threads for each core, and UDP to a port of the owner that nobody serves.
    pub(super) fn flood(&self, owner: usize, time: Duration) -> Result<()> {
        let to: SocketAddr = format!("10.1.0.{}:9", owner + 2).parse()?;
        let socket = self.site.client.inside(|| std::net::UdpSocket::bind("10.1.0.9:0"))?;
        let end = Instant::now() + time;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    let _ = socket.send_to(&[0; 64], to);
                }
            });
            busy(time)
        })
    }
}

/// Two busy threads for each core.
pub(super) fn busy(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    let cores = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                let mut x = 1u64;
                while Instant::now() < end {
                    x = std::hint::black_box(x.wrapping_mul(3));
                }
            });
        }
    });
    Ok(())
}

fn addresses(texts: [&str; 2]) -> Result<[SocketAddr; 2]> {
    let [a, b] = texts;
    Ok([a.parse()?, b.parse()?])
}
