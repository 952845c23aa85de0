//! The LAN of the L4 tests: a client, an edge with the data plane, three backend hosts and, where asked for, a pod behind the edge.
//! Clients and backends have the edge as their gateway; VIPs are on no interface.

use std::net::SocketAddr;

use anyhow::Result;
use ingress_agent::dataplane::{Dataplane, DataplaneOptions};
use ingress_agent::model::snapshot::Protocol;

use crate::echo::{Asker, Echo, any};
use crate::l4::{PinPath, options};
use crate::lan::{Host, Lan};

pub const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// Port of every server.
pub const PORT: u16 = 8080;

#[derive(Debug)]
pub struct L4Lan {
    label: String,
    pub client: Host,
    pub edge: Host,
    pub backends: Vec<Host>,
    pub pins: PinPath,
    echoes: Vec<Option<Echo>>,
    lan: Lan,
}

impl L4Lan {
    /// `label` must be unique among the tests of one process.
    pub fn new(label: &str) -> Result<Self> {
        let lan = Lan::new(label)?;
        let edge = lan.host("edge", &["10.0.0.1/24", "fd00::1/64"])?;
        let client = lan.host("client", &["10.0.0.2/24", "fd00::2/64"])?;
        let mut world = Self {
            label: label.into(),
            client,
            edge,
            backends: Vec::new(),
            pins: PinPath::default(),
            echoes: Vec::new(),
            lan,
        };
        world.client.route_by(&["10.0.0.1", "fd00::1"])?;
        for i in 1..=3 {
            let addresses = [format!("10.0.0.1{i}/24"), format!("fd00::1{i}/64")];
            let host = world.lan.host(&format!("b{i}"), &[&addresses[0], &addresses[1]])?;
            host.route_by(&["10.0.0.1", "fd00::1"])?;
            world.echoes.push(Some(Echo::start(&host, &format!("b{i}"), PORT)?));
            world.backends.push(host);
        }
        Ok(world)
    }

    /// Endpoint `i` (1 to 3) as the snapshot names it.
    pub fn endpoint(i: usize, v6: bool) -> String {
        if v6 { format!("[fd00::1{i}]:{PORT}") } else { format!("10.0.0.1{i}:{PORT}") }
    }

    /// A pod on the edge, with a server called `pod`, at `10.9.0.2` and `fd09::2`.
    pub fn pod(&mut self) -> Result<Host> {
        let pod = self.edge.pod(&format!("{}-pod", self.label), "veth-pod", &["10.9.0.2", "fd09::2"])?;
        self.echoes.push(Some(Echo::start(&pod, "pod", PORT)?));
        Ok(pod)
    }

    /// Ends the server on backend `i` (1 to 3) with its connections.
    pub fn stop_server(&mut self, i: usize) {
        self.echoes[i - 1] = None;
    }

    pub fn open(&self) -> Dataplane {
        self.open_with(|_| {}).expect("open the data plane on the edge")
    }

    pub fn open_with(&self, change: impl FnOnce(&mut DataplaneOptions)) -> Result<Dataplane> {
        let mut options = options(&self.pins, &["eth0"]);
        change(&mut options);
        self.edge.inside(|| Dataplane::open(options))
    }

    /// A socket of the client towards a VIP, from `port` (0: any).
    pub fn ask(&self, protocol: Protocol, port: u16, vip: &str) -> Result<Asker> {
        let vip: SocketAddr = vip.parse()?;
        let mut local = any(CLIENT[usize::from(vip.is_ipv6())]);
        local.set_port(port);
        match protocol {
            Protocol::Tcp => Asker::tcp(&self.client, local, vip),
            Protocol::Udp => Asker::udp(&self.client, local, vip),
        }
    }
}
