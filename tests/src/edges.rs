//! Two edges on one LAN, with a client and three backends: everybody is everybody's neighbour, so that an address is wherever it was
//! announced last. The edges share the flows of `nat` services.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ingress_agent::dataplane::{Dataplane, DataplaneOptions, SyncOptions};
use ingress_agent::model::snapshot::Protocol::Tcp;
use ingress_agent::vip::{VipOptions, Vips};

use crate::echo::{Asker, Echo};
use crate::l4::{PinPath, Snapshots, nat, options};
use crate::lan::{Host, Lan};
use crate::place::Place;

/// Port of every server.
const PORT: u16 = 8080;
pub const VIP: &str = "10.0.0.100:80";
pub const VIP6: &str = "[fd00::100]:80";
pub const SYNC_PORT: u16 = 9254;
pub const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// The edges' addresses.
pub const A: &str = "10.0.0.1";
pub const B: &str = "10.0.0.3";

pub struct Edges {
    pub a: Host,
    pub b: Host,
    pub client: Host,
    pub pins: [PinPath; 2],
    pub key: PathBuf,
    place: Place,
    backends: Vec<(Host, Echo)>,
    pub lan: Lan,
}

impl Edges {
    /// `label` must be unique among the tests of one process.
    pub fn new(label: &str) -> Result<Self> {
        let lan = Lan::new(label)?;
        let a = lan.host("a", &["10.0.0.1/24", "fd00::1/64"])?;
        let b = lan.host("b", &["10.0.0.3/24", "fd00::3/64"])?;
        let client = lan.host("c", &["10.0.0.2/24", "fd00::2/64"])?;
        let mut backends = Vec::new();
        for i in 1..=3 {
            let host = lan.host(&format!("b{i}"), &[&format!("10.0.0.1{i}/24"), &format!("fd00::1{i}/64")])?;
            let echo = Echo::start(&host, &format!("b{i}"), PORT)?;
            backends.push((host, echo));
        }
        let place = Place::new(label).context("a place")?;
        let key = place.directory.join("sync.key");
        std::fs::write(&key, "a key that both of them have\n").context("write the key")?;
        Ok(Self { a, b, client, pins: Default::default(), key, place, backends, lan })
    }

    /// One service of both families, the same on both edges.
    pub fn snapshots() -> Snapshots {
        let endpoints = |v6: bool| -> Vec<_> {
            let endpoint = |i| if v6 { format!("[fd00::1{i}]:{PORT}") } else { format!("10.0.0.1{i}:{PORT}") };
            (1..=3).map(|i| nat(&endpoint(i))).collect()
        };
        Snapshots::default().service("s", Tcp, VIP, &endpoints(false)).service("s6", Tcp, VIP6, &endpoints(true))
    }

    pub fn sync(&self, peer: &str) -> SyncOptions {
        SyncOptions {
            peers: vec![peer.parse().expect("an address")],
            port: SYNC_PORT,
            key_file: self.key.clone(),
            rate: 50_000,
        }
    }

    pub fn open_a(&self, change: impl FnOnce(&mut DataplaneOptions)) -> Dataplane {
        Self::open(&self.a, &self.pins[0], self.sync(B), change)
    }

    pub fn open_b(&self, change: impl FnOnce(&mut DataplaneOptions)) -> Dataplane {
        Self::open(&self.b, &self.pins[1], self.sync(A), change)
    }

    fn open(host: &Host, pins: &PinPath, sync: SyncOptions, change: impl FnOnce(&mut DataplaneOptions)) -> Dataplane {
        let mut options = options(pins, &["eth0"]);
        options.sync = Some(sync);
        change(&mut options);
        host.inside(|| {
            let mut dataplane = Dataplane::open(options).expect("open the data plane");
            dataplane.apply(&Self::snapshots().build()).expect("apply");
            dataplane
        })
    }

    /// Adds both addresses to a host's interface and announces them, until they are released.
    pub fn hold(&self, host: &Host) -> Vips {
        let options = VipOptions { interface: "eth0".into(), proc_sys: "/proc/sys".into(), vrrp: None };
        let vips = host.inside(|| Vips::start(options)).expect("start the holder");
        vips.apply([VIP, VIP6].map(|vip| vip.parse::<SocketAddr>().expect("a VIP").ip()).into());
        vips
    }

    /// Takes them off again.
    pub fn release(vips: Vips) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(vips.release())
    }

    /// Client and backends ask anew who has an address, as after an announcement.
    pub fn forget_neighbours(&self) -> Result<()> {
        for host in self.backends.iter().map(|(host, _)| host).chain([&self.client]) {
            host.ip(&["neigh", "flush", "dev", "eth0"])?;
        }
        Ok(())
    }

    /// A connection of the client from `port`.
    pub fn connect(&self, port: u16, v6: bool) -> Result<Asker> {
        let local = SocketAddr::new(CLIENT[usize::from(v6)].parse::<IpAddr>()?, port);
        Asker::tcp(&self.client, local, if v6 { VIP6 } else { VIP }.parse()?)
    }

    pub fn directory(&self) -> &Path {
        &self.place.directory
    }
}

/// Flow records of an edge.
pub fn records(pins: &PinPath) -> usize {
    let buckets = pins.array::<64>(xdp_ebpf::map::FLOW_INDEX);
    let tags = buckets.iter().flat_map(|bucket| bucket[..32].chunks(4));
    tags.filter(|tag| u32::from_ne_bytes([tag[0], tag[1], tag[2], tag[3]]) >= xdp_ebpf::tag::FIRST).count()
}
