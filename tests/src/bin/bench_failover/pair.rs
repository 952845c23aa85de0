//! Two nodes that elect who holds an address of each family, and a client: agents of ours that share their flows, or keepalived.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ingress_tests::capture::Capture;
use ingress_tests::echo::{Asker, Echo, any};
use ingress_tests::edge::sibling;
use ingress_tests::keepalived::Keepalived;
use ingress_tests::outage::Outage;
use ingress_tests::place::Place;
use ingress_tests::vip_site::{Site, VIP4, VIP6, has, mac};

use crate::node::{Node, Router, Who, keepalived};
use crate::scenario::Round;

const PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_mins(1);
/// Flows younger than this are not told to the other node.
const SHARED_AFTER: Duration = Duration::from_secs(3);

pub(crate) struct Pair {
    site: Site,
    nodes: [Node; 2],
    interval_ms: u32,
    connections: Vec<Asker>,
    wanted: usize,
    opened: Instant,
    _backend: Option<Echo>,
    _place: Place,
}

impl Pair {
    pub(crate) fn new(who: Who, interval_ms: u32, connections: usize) -> Result<Self> {
        let label = if who == Who::Ours { "bfo" } else { "bfk" };
        let site = Site::new(label);
        let place = Place::new(label)?;
        fs::write(place.directory.join("sync.key"), "a key that both of them have\n")?;
        let (a, b) = (site.host(2), site.host(3));
        let backend = site.host(50);
        for port in ["p2", "p3"] {
            // A network card drops frames for another's MAC, which a switch floods when a port goes down; a veth does not.
            site.lan.switch.run("bridge", &["link", "set", "dev", port, "flood", "off"])?;
        }
        let echo = if who == Who::Ours { Some(Echo::start(&backend, "backend", PORT)?) } else { None };
        let nodes = [
            Node::new(who, "a", a, 2, &place, interval_ms, connections > 0)?,
            Node::new(who, "b", b, 3, &place, interval_ms, connections > 0)?,
        ];
        Ok(Self {
            site,
            nodes,
            interval_ms,
            connections: Vec::new(),
            wanted: if who == Who::Ours { connections } else { 0 },
            opened: Instant::now(),
            _backend: echo,
            _place: place,
        })
    }

    /// Waits until one node has both addresses and the other none; returns which.
    pub(crate) fn settle(&mut self) -> Result<usize> {
        let mut since = (usize::MAX, Instant::now());
        self.wait("one node holds both addresses, for three adverts and a second", move |pair| {
            let held = pair.nodes.each_ref().map(|n| (has(&n.host, VIP4), has(&n.host, VIP6)));
            let owner = match held {
                [(true, true), (false, false)] => 0,
                [(false, false), (true, true)] => 1,
                _ => usize::MAX,
            };
            if owner != since.0 {
                since = (owner, Instant::now());
            }
            let long = Duration::from_millis(u64::from(pair.interval_ms) * 3 + 1000);
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
        let of = |node: &Node| match &node.router {
            Router::Ours(agent) => agent.last_words(),
            Router::Theirs { running, .. } => running.as_ref().map(Keepalived::log).unwrap_or_default(),
        };
        self.nodes.each_ref().map(|n| format!("{}:\n{}", n.name, of(n))).join("\n")
    }

    /// Opens those that are missing, and waits until the other node knows of them.
    pub(crate) fn hold_connections(&mut self) -> Result<()> {
        let vip: SocketAddr = format!("{VIP4}:{PORT}").parse()?;
        while self.connections.len() < self.wanted {
            let mut asker = Asker::tcp(&self.site.client, any("10.1.0.9"), vip)?;
            asker.ask()?;
            self.connections.push(asker);
            self.opened = Instant::now();
        }
        let opened = self.opened;
        if self.wanted == 0 {
            return Ok(());
        }
        self.wait("flows are old enough to be shared", |_| (opened.elapsed() > SHARED_AFTER).then_some(()))
    }

    /// Asks on every connection and forgets those that do not answer.
    pub(crate) fn lost(&mut self) -> usize {
        let before = self.connections.len();
        self.connections.retain_mut(|c| c.ask().is_ok());
        before - self.connections.len()
    }

    pub(crate) fn watch(&self) -> Result<[Outage; 2]> {
        Ok([Outage::watch(&self.site.client, VIP4)?, Outage::watch(&self.site.client, VIP6)?])
    }

    pub(crate) fn until_has(&mut self, n: usize) -> Result<()> {
        let what = format!("node {} has the addresses", self.nodes[n].name);
        self.wait(&what, |pair| {
            let host = &pair.nodes[n].host;
            (has(host, VIP4) && has(host, VIP6)).then_some(())
        })
    }

    pub(crate) fn until_both_have(&mut self) -> Result<()> {
        self.until_has(0)?;
        self.until_has(1)
    }

    pub(crate) fn until_one_has(&mut self) -> Result<()> {
        self.wait("one of them gave the addresses up", |pair| {
            let held = pair.nodes.each_ref().map(|n| has(&n.host, VIP4) || has(&n.host, VIP6));
            (held[0] != held[1]).then_some(())
        })
    }

    pub(crate) fn cable(&self, n: usize, whole: bool) {
        self.site.cable(self.nodes[n].port, whole);
    }

    /// Whether frames of one node reach the other.
    pub(crate) fn part(&self, parted: bool) -> Result<()> {
        for node in &self.nodes {
            let state = if parted { "on" } else { "off" };
            let port = format!("p{}", node.port);
            self.site.lan.switch.run("bridge", &["link", "set", "dev", &port, "isolated", state])?;
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self, n: usize) -> Result<()> {
        match &mut self.nodes[n].router {
            Router::Ours(agent) => agent.kill(),
            Router::Theirs { running, .. } => running.take().context("keepalived runs")?.kill(),
        }
    }

    pub(crate) fn start(&mut self, n: usize) -> Result<()> {
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

    pub(crate) fn signal(&self, n: usize, signal: libc::c_int) -> Result<()> {
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

    pub(crate) fn move_away(&mut self, owner: usize) -> Result<()> {
        let to = self.nodes[1 - owner].name;
        match &mut self.nodes[owner].router {
            Router::Ours(_) => self.vip(owner, &["move", VIP4, to]),
            Router::Theirs { running, .. } => running.take().context("keepalived runs")?.stop(),
        }
    }

    pub(crate) fn move_back(&mut self, owner: usize) -> Result<()> {
        match &self.nodes[owner].router {
            Router::Ours(_) => self.vip(1 - owner, &["move", VIP4, self.nodes[owner].name]),
            Router::Theirs { .. } => self.start(owner),
        }
    }

    pub(crate) fn drain(&self, owner: usize, on: bool) -> Result<()> {
        self.vip(owner, &[if on { "drain" } else { "undrain" }])
    }

    fn vip(&self, n: usize, arguments: &[&str]) -> Result<()> {
        let node = &self.nodes[n];
        let socket = node.directory.join("admin.sock");
        let mut command = node.host.ns.command(sibling("sluicegate")?);
        let out = command.arg("vip").args(arguments).arg("--admin-socket").arg(socket).output()?;
        ensure!(out.status.success(), "vip {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    /// Three ARP requests of the client; how many of them two nodes answered.
    pub(crate) fn asked_twice(&self) -> Result<usize> {
        let macs = self.nodes.each_ref().map(|n| mac(&n.host));
        let mut twice = 0;
        for _ in 0..3 {
            let mut capture = Capture::start(&self.site.client, "eth0")?;
            self.site.client.ip(&["neigh", "flush", "to", VIP4])?;
            // It answers or not: what is counted is who answers the ARP request before it.
            let _ = self.site.client.run("ping", &["-c1", "-W1", VIP4]);
            capture.collect(Duration::from_millis(20), |_| false);
            let answered = |mac: &String| {
                capture.frames.iter().any(|(_, f)| {
                    // RFC 826: an answer (2), from the address asked for.
                    f.get(12..14) == Some(&[8, 6])
                        && f.get(20..22) == Some(&[0, 2])
                        && f.get(28..32) == Some(&[10, 1, 0, 100])
                        && f.get(22..28)
                            .is_some_and(|m| m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":") == *mac)
                })
            };
            twice += usize::from(macs.iter().all(answered));
        }
        Ok(twice)
    }

    /// Both ended, then both started: from there to the first answer.
    pub(crate) fn cold_start(&mut self) -> Result<Round> {
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
        let watches = self.watch()?;
        for n in 0..2 {
            match &mut self.nodes[n].router {
                Router::Ours(agent) => agent.launch()?,
                Router::Theirs { .. } => self.start(n)?,
            }
        }
        self.settle()?;
        let gaps = watches.map(|watch| watch.end().until_first);
        Ok(Round { gaps, ..Round::default() })
    }

    /// Two busy threads for each core, and UDP to a port that nobody serves.
    pub(crate) fn flood(&self, owner: usize, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let cores = std::thread::available_parallelism()?.get();
        let to: SocketAddr = format!("10.1.0.{}:9", owner + 2).parse()?;
        let socket = self.site.client.inside(|| std::net::UdpSocket::bind("10.1.0.9:0"))?;
        std::thread::scope(|scope| {
            for _ in 0..2 * cores {
                scope.spawn(|| {
                    let mut x = 1u64;
                    while Instant::now() < end {
                        x = std::hint::black_box(x.wrapping_mul(3));
                    }
                });
            }
            scope.spawn(|| {
                while Instant::now() < end {
                    let _ = socket.send_to(&[0; 64], to);
                }
            });
        });
        if !has(&self.nodes[owner].host, VIP4) {
            bail!("the owner lost the address under load");
        }
        Ok(())
    }
}
