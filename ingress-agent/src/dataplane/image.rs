//! What the maps hold, as this agent knows it: the state that a snapshot is compared with. Every store into a map that packets
//! read is made by this file and its children; nothing here knows how programs are attached.

mod addresses;
mod adopt;
mod apply;
mod frontends;
mod guard;
mod leaving;
mod pools;
mod sources;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use ipnet::IpNet;
use xdp_ebpf::Addr;

use self::addresses::AddressUse;
use self::adopt::Adopted;
use self::guard::Guard;
use self::leaving::Leaving;
use self::sweep::Sweep;
use super::filter::FilterCounts;
use super::ids::{Ids, REST};
use super::maps::Maps;
use super::options::DataplaneOptions;
use super::pool::{PoolKey, PoolState};
use super::sync::directory::Directory;
use super::tables::Tables;
use crate::model::snapshot::{Frontend, FrontendKey};

pub(super) struct Image {
    pub maps: Maps,
    pub seed: u64,
    pub frontends: BTreeMap<FrontendKey, FrontendState>,
    pub vips: BTreeSet<IpAddr>,
    /// What `VIPS` holds: the VIPs, and the addresses from which `nat` backends see clients come.
    addresses: BTreeMap<Addr, AddressUse>,
    /// Sources that were replaced while flows used them, and when they are forgotten.
    lingering: VecDeque<(Instant, Addr)>,
    pub pools: BTreeMap<PoolKey, PoolState>,
    pub tables: Tables,
    /// Found in the maps and not yet claimed by the first snapshot.
    adopted: Option<Adopted>,
    filter: FilterCounts,
    frontend_ids: Ids,
    pool_ids: Ids,
    backend_ids: Ids,
    leaving: Leaving,
    /// Endpoints in all pools, at most `max_backends`.
    backends: usize,
    max_backends: usize,
    pub sweep: Sweep,
    /// A table being filled, kept for its memory.
    scratch: Vec<u32>,
    guard: Guard,
    /// Kept up where flows are shared with other edges.
    pub directory: Option<Directory>,
}

pub(super) struct FrontendState {
    /// What was applied last. `None`: adopted from the maps.
    source: Option<Arc<Frontend>>,
    pub image: xdp_ebpf::Frontend,
    pub pool: Option<PoolKey>,
    /// What `SOURCES` holds for its id, sorted.
    pub sources: Vec<IpNet>,
}

impl Image {
    /// Reads what adopted maps hold; empty ones hold nothing.
    pub(super) fn read(maps: Maps, seed: u64, options: &DataplaneOptions, now: Instant) -> Result<Self> {
        let keep = options.previous_table;
        let tables = Tables::new(maps.ring_slots(), keep);
        let sweep = Sweep::new(maps.flow_buckets());
        let mut image = Self {
            frontend_ids: Ids::new(maps.frontend_info.end() as u32, REST),
            pool_ids: Ids::new(maps.pools.end() as u32, REST),
            // A previous table may name an endpoint that is gone.
            backend_ids: Ids::new(maps.backends.end() as u32, keep + REST),
            maps,
            seed,
            frontends: BTreeMap::new(),
            vips: BTreeSet::new(),
            addresses: BTreeMap::new(),
            lingering: VecDeque::new(),
            pools: BTreeMap::new(),
            tables,
            adopted: None,
            filter: FilterCounts::new(),
            backends: 0,
            leaving: Leaving::new(options.leave),
            max_backends: options.max_backends as usize,
            sweep,
            scratch: Vec::new(),
            guard: Guard::default(),
            directory: None,
        };
        image.adopt(now)?;
        Ok(image)
    }

    /// Periodic work, a bounded amount a call.
    pub(super) fn tick(&mut self, now: Instant, tick: u32) -> Result<()> {
        self.tables.tick(&self.maps, now);
        self.end_leave(now);
        self.forget_lingering(now)?;
        self.sweep_some(now, tick)
    }
}
