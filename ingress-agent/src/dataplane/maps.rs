//! The maps of the loaded program, each in the shape in which the agent uses it: mapped into memory, through windows, or by
//! system calls. Knows no snapshot.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{DevMapHash, HashMap, Map, MapData, MapError, PerCpuArray};
use xdp_ebpf::affinity::{Affinity, AffinityKey};
use xdp_ebpf::{
    Addr, AddrFilter, Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Pool, RING_PAGE_SLOTS,
    ReplyBucket, Ring, Traffic, Vip, map,
};

use super::pins::{MapSpec, Pins};
use super::plain::Abi;
use super::region::Region;

pub(super) struct Maps {
    pub config: Region<Config>,
    /// The words of the one `ADDR_FILTER`, those of addresses before those of ports.
    pub filter: Region<u64>,
    pub frontend_info: Region<FrontendInfo>,
    pub pools: Region<Pool>,
    pub backends: Region<Backend>,
    pub vips: HashMap<MapData, Addr, Abi<Vip>>,
    pub frontends: HashMap<MapData, Abi<FrontendKey>, Abi<Frontend>>,
    /// The bits of a [`SourceKey`](xdp_ebpf::SourceKey) after their number: frontend and address.
    pub sources: LpmTrie<MapData, [u8; 20], u32>,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub dropped: HashMap<MapData, Addr, u64>,
    pub affinity: HashMap<MapData, Abi<AffinityKey>, Abi<Affinity>>,
    pub devices: DevMapHash<MapData>,
    pub verdicts: PerCpuArray<MapData, u64>,
    pub frontend_traffic: PerCpuArray<MapData, Abi<Traffic>>,
    pub backend_traffic: PerCpuArray<MapData, Abi<Traffic>>,
    rings: Large,
    flow_index: Large,
    flows: Large,
    reply_index: Large,
    /// Hash capacity of `FRONTENDS` and of `VIPS`.
    pub max_frontends: usize,
    pub max_vips: usize,
}

/// A large map that is looked at through windows.
struct Large {
    map: MapData,
    entries: u32,
}

impl Large {
    fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl Maps {
    pub(super) fn open(pins: &Pins, specs: &[MapSpec]) -> Result<Self> {
        let data = |name: &str| {
            MapData::from_pin(pins.map(name)).with_context(|| format!("open {}", pins.map(name).display()))
        };
        let entries = |name: &str| specs.iter().find(|s| s.name == name).map_or(0, |s| s.entries);
        let sized = |name| -> Result<Large> { Ok(Large { map: data(name)?, entries: entries(name) }) };
        let typed = |name| -> Result<Map> { Ok(Map::from_map_data(data(name)?)?) };
        Ok(Self {
            config: whole(&data(map::CONFIG)?, 1)?,
            filter: whole(&data(map::ADDR_FILTER)?, (size_of::<AddrFilter>() / size_of::<u64>()) as u32)?,
            frontend_info: whole(&data(map::FRONTEND_INFO)?, entries(map::FRONTEND_INFO))?,
            pools: whole(&data(map::POOLS)?, entries(map::POOLS))?,
            backends: whole(&data(map::BACKENDS)?, entries(map::BACKENDS))?,
            vips: typed(map::VIPS)?.try_into()?,
            frontends: typed(map::FRONTENDS)?.try_into()?,
            sources: typed(map::SOURCES)?.try_into()?,
            dropped: typed(map::DROPPED)?.try_into()?,
            affinity: typed(map::AFFINITY)?.try_into()?,
            devices: typed(map::DEVICES)?.try_into()?,
            verdicts: typed(map::VERDICTS)?.try_into()?,
            frontend_traffic: typed(map::FRONTEND_TRAFFIC)?.try_into()?,
            backend_traffic: typed(map::BACKEND_TRAFFIC)?.try_into()?,
            rings: sized(map::RINGS)?,
            flow_index: sized(map::FLOW_INDEX)?,
            flows: sized(map::FLOWS)?,
            reply_index: sized(map::REPLY_INDEX)?,
            max_frontends: entries(map::FRONTENDS) as usize,
            max_vips: entries(map::VIPS) as usize,
        })
    }

    pub(super) fn ring_slots(&self) -> u32 {
        self.rings.entries.saturating_mul(RING_PAGE_SLOTS)
    }

    pub(super) fn flow_buckets(&self) -> u32 {
        self.flow_index.entries
    }

    pub(super) fn reply_buckets(&self) -> u32 {
        self.reply_index.entries
    }

    /// The slots of one table. The ring is not empty.
    pub(super) fn ring(&self, ring: Ring) -> Result<Region<u32>> {
        Region::map(self.rings.fd(), ring.offset() as usize, ring.len() as usize).context("map a range of RINGS")
    }

    pub(super) fn flow_buckets_in(&self, first: usize, count: usize) -> Result<Region<FlowBucket>> {
        Region::map(self.flow_index.fd(), first, count).context("map a part of FLOW_INDEX")
    }

    pub(super) fn flows_in(&self, first: usize, count: usize) -> Result<Region<Flow>> {
        Region::map(self.flows.fd(), first, count).context("map a part of FLOWS")
    }

    pub(super) fn replies_in(&self, first: usize, count: usize) -> Result<Region<ReplyBucket>> {
        Region::map(self.reply_index.fd(), first, count).context("map a part of REPLY_INDEX")
    }
}

/// A pinned array map as a whole, for somebody who needs a mapping of its own.
pub(super) fn mapped<T: super::plain::Plain>(pins: &Pins, name: &str, entries: usize) -> Result<Region<T>> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    Region::map(data.fd().as_fd(), 0, entries).with_context(|| format!("map {name}"))
}

/// What came of a removal, an entry that is gone already being removed: the kernel answers ENOENT (bpf(2)), which aya passes on.
pub(super) fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn whole<T: super::plain::Plain>(map: &MapData, entries: u32) -> Result<Region<T>> {
    Region::map(map.fd().as_fd(), 0, entries as usize)
}
