//! Snapshots and data planes for L4 tests: a few words instead of the plan's whole input. Knows no topology.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData};
use ingress_agent::dataplane::{Dataplane, DataplaneOptions};
use ingress_agent::model::snapshot::{
    AppProtocol, Backend, BackendState, Forwarding, Frontend, FrontendKey, FrontendKind, ObjectName, Pool, PoolName,
    PoolScope, Protocol, Snapshot, Vip,
};
use xdp_ebpf::{SCHEMA, maglev, map};

/// Options with a pin path of their own and small maps. The path is removed by [`PinPath`]'s drop.
pub fn options(pins: &PinPath, interfaces: &[&str]) -> DataplaneOptions {
    DataplaneOptions {
        interfaces: interfaces.iter().map(|i| (*i).to_owned()).collect(),
        pin_path: pins.0.clone(),
        max_flows: 16_384,
        max_frontends: 64,
        max_backends: 1024,
        ring_slots: 262_144,
        hash_seed: Some(0x5eed),
        ..DataplaneOptions::default()
    }
}

/// A pin path for one test, removed with all that is pinned there. What a crashed test left is removed by the next process.
#[derive(Debug)]
pub struct PinPath(pub PathBuf);

const PINS: &str = "/sys/fs/bpf";
const PREFIX: &str = "sg-test-";

impl Default for PinPath {
    fn default() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for entry in std::fs::read_dir(PINS).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|n| n.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("{PINS}/{PREFIX}{}-{number}", std::process::id())))
    }
}

impl PinPath {
    /// All entries of a pinned array, as bytes.
    pub fn array<const N: usize>(&self, map: &str) -> Vec<[u8; N]> {
        let array: Array<_, [u8; N]> = self.open(map).try_into().expect("an array");
        array.iter().collect::<Result<_, _>>().expect("read it")
    }

    /// `FRONTENDS`, as bytes.
    pub fn frontends(&self) -> BTreeMap<[u8; 20], [u8; 32]> {
        let map: HashMap<_, [u8; 20], [u8; 32]> = self.open(map::FRONTENDS).try_into().expect("a hash");
        map.iter().collect::<Result<_, _>>().expect("read it")
    }

    /// How many ranges of clients `SOURCES` holds.
    pub fn sources(&self) -> usize {
        let map: LpmTrie<_, [u8; 20], u32> = self.open(map::SOURCES).try_into().expect("a trie");
        map.keys().count()
    }

    fn open(&self, map: &str) -> Map {
        let path = self.0.join(format!("v{SCHEMA}/maps/{map}"));
        Map::from_map_data(MapData::from_pin(path).expect("a pinned map")).expect("of a known type")
    }
}

impl Drop for PinPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Builds snapshots; every build is the next generation, and unchanged parts share their `Arc`s with the one before.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    pub now: Snapshot,
}

impl Snapshots {
    /// A Service `name` with one port: `vip:port` to `backends`.
    #[must_use]
    pub fn service(mut self, name: &str, protocol: Protocol, vip: &str, backends: &[Backend]) -> Self {
        self.set(name, protocol, vip, backends);
        self
    }

    pub fn set(&mut self, name: &str, protocol: Protocol, vip: &str, backends: &[Backend]) {
        let vip: SocketAddr = vip.parse().expect("address:port of the VIP");
        let key = FrontendKey { vip: vip.ip(), protocol, port: vip.port() };
        let pool =
            PoolName { service: ObjectName::new("test", name), port: vip.port(), protocol, scope: PoolScope::All };
        self.pool(pool.clone(), backends.to_vec());
        let kind = FrontendKind::L4 { pool, client_ip_affinity: None, snat: vip.ip(), sources: None };
        self.frontend(key, name, kind);
    }

    pub fn frontend(&mut self, key: FrontendKey, owner: &str, kind: FrontendKind) {
        let frontend = Frontend { key, owner: ObjectName::new("test", owner), kind };
        if self.now.frontends.get(&key).is_none_or(|old| **old != frontend) {
            self.now.frontends.insert(key, Arc::new(frontend));
        }
        self.now
            .vips
            .entry(key.vip)
            .or_insert_with(|| Vip { held_here: true, owners: [format!("test/{owner}")].into() });
    }

    pub fn pool(&mut self, name: PoolName, mut backends: Vec<Backend>) {
        backends.sort_by_key(|b| b.address);
        let table_size = maglev::size_for(backends.len());
        let pool = Pool { name: name.clone(), backends, table_size, app_protocol: AppProtocol::Http1 };
        if self.now.pools.get(&name).is_none_or(|old| **old != pool) {
            self.now.pools.insert(name, Arc::new(pool));
        }
    }

    pub fn remove(&mut self, protocol: Protocol, vip: &str) {
        let vip: SocketAddr = vip.parse().expect("address:port of the VIP");
        let key = FrontendKey { vip: vip.ip(), protocol, port: vip.port() };
        if let Some(FrontendKind::L4 { pool, .. }) = self.now.frontends.remove(&key).map(|f| f.kind.clone()) {
            self.now.pools.remove(&pool);
        }
        if !self.now.frontends.keys().any(|k| k.vip == key.vip) {
            self.now.vips.remove(&key.vip);
        }
    }

    pub fn build(&mut self) -> Arc<Snapshot> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        self.now.generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.now.clone())
    }
}

/// A ready endpoint elsewhere.
pub fn nat(address: &str) -> Backend {
    Backend {
        address: address.parse().expect("address:port of a backend"),
        weight: 1,
        state: BackendState::Ready,
        forwarding: Forwarding::Nat,
        node: None,
    }
}

/// A ready endpoint on this node.
pub fn local(address: &str) -> Backend {
    Backend { forwarding: Forwarding::Local, ..nat(address) }
}

pub fn draining(backend: Backend) -> Backend {
    Backend { state: BackendState::Draining, ..backend }
}

/// The key of a frontend, for looking up its counters.
pub fn key(protocol: Protocol, vip: &str) -> FrontendKey {
    let vip: SocketAddr = vip.parse().expect("address:port of the VIP");
    let ip: IpAddr = vip.ip();
    FrontendKey { vip: ip, protocol, port: vip.port() }
}

/// The verdicts that were given at all, for messages of failed tests and for expectations.
pub fn verdicts(dataplane: &Dataplane) -> BTreeMap<&'static str, u64> {
    let verdicts = dataplane.read().expect("read the counters").verdicts;
    verdicts.into_iter().filter(|(.., packets)| *packets > 0).map(|(label, _, packets)| (label, packets)).collect()
}
