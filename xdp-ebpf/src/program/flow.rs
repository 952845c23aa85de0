//! Finding a flow's record: by the client's tuple, and by the backend's. Reads only; `insert.rs` makes records.

use xdp_ebpf::{Config, WAYS, backend_state, hash, meta, tag};

use crate::family::Family;
use crate::maps::{self, Address, BackendView, Bucket, Record};
use crate::words;

/// Where a packet goes: towards a backend, or back to a client.
#[derive(Clone, Copy)]
pub struct Way {
    pub src: Address,
    pub dst: Address,
    pub sport: u16,
    pub dport: u16,
    pub frontend: u32,
    pub backend: u32,
    /// The backend's `forwarding`.
    pub forwarding: u8,
}

/// A record's place.
#[derive(Clone, Copy)]
pub struct Place {
    pub bucket: &'static Bucket,
    pub way: u32,
}

impl Place {
    #[inline(always)]
    pub fn meta(&self) -> u32 {
        self.bucket.meta[self.way as usize & (WAYS - 1)].load()
    }

    #[inline(always)]
    pub fn tag(&self) -> u32 {
        self.bucket.tag[self.way as usize & (WAYS - 1)].load()
    }

    /// Stores the word if it differs: a line that nobody changed stays shared between the CPUs' caches.
    #[inline(always)]
    pub fn touch(&self, old: u32, new: u32) {
        if old != new {
            self.bucket.meta[self.way as usize & (WAYS - 1)].store(new);
        }
    }
}

/// The first way of a bucket with this tag.
#[inline(always)]
pub fn way_of(bucket: &'static Bucket, hash: u64) -> Option<u32> {
    let tag = hash::tag(hash);
    for way in 0..WAYS {
        if bucket.tag[way].load() == tag {
            return Some(maps::forget::<7>(way as u32, tag));
        }
    }
    None
}

/// The way of a client's own record.
#[inline(always)]
pub fn own(bucket: &'static Bucket, at: u32, hash: u64, client: Address, port: u16, frontend: u32) -> Option<u32> {
    let way = way_of(bucket, hash)?;
    let record = maps::record(at * WAYS as u32 + way)?;
    (record.client == client && record.client_port == port && record.frontend == frontend).then_some(way)
}

/// Whether a record's backend is still the one that it was made for.
#[inline(always)]
pub fn good(backend: &BackendView, epoch: u32) -> bool {
    backend.epoch == epoch && backend.state != backend_state::GONE
}

/// The way to the backend of a client's flow that is already there. For errors about it: nothing is touched.
#[inline(always)]
pub fn from_client<F: Family>(
    config: &Config,
    src: Address,
    dst: Address,
    sport: u16,
    dport: u16,
    proto: u8,
    frontend: u32,
) -> Option<Way> {
    let hash = F::hash(config.seed, src, dst, sport, dport, proto);
    let at = hash as u32 & config.flow_mask;
    let bucket = maps::bucket(at)?;
    let way = way_of(bucket, hash)?;
    let record: &Record = maps::record(at * WAYS as u32 + way)?;
    let backend = maps::backend(record.backend)?;
    let same = record.client == src && record.client_port == sport && record.frontend == frontend;
    let same = same && good(backend, record.epoch);
    let found = Way {
        src: record.source,
        dst: backend.addr,
        sport: record.port,
        dport: backend.port,
        frontend,
        backend: record.backend,
        forwarding: backend.forwarding,
    };
    words::barrier();
    (same && Place { bucket, way }.tag() == hash::tag(hash)).then_some(found)
}

/// The record of a backend's packet and the way back to its client, with the place of its word.
#[inline(always)]
pub fn from_backend<F: Family>(
    seed: u64,
    mask: u32,
    src: Address,
    dst: Address,
    sport: u16,
    dport: u16,
    proto: u8,
) -> Option<(Place, Way)> {
    let hash = F::hash(seed.wrapping_add(hash::REPLY_SEED), src, dst, sport, dport, proto);
    let replies = maps::replies(hash as u32 & mask)?;
    let wanted = hash::tag(hash);
    let mut flow = None;
    for way in 0..WAYS {
        let entry = replies.entry[way].load();
        if entry_tag(entry) == wanted {
            flow = Some(entry_flow(entry));
            break;
        }
    }
    let flow = flow?;
    let place = Place { bucket: maps::bucket(flow / WAYS as u32)?, way: flow % WAYS as u32 };
    let before = place.tag();
    if before < tag::FIRST {
        return None;
    }
    let record: &Record = maps::record(flow)?;
    let backend = maps::backend(record.backend)?;
    let info = maps::frontend_info(record.frontend)?;
    let same = record.source == dst
        && record.port == dport
        && backend.addr == src
        && backend.port == sport
        && info.proto == proto
        && good(backend, record.epoch);
    let way = Way {
        src: info.addr,
        dst: record.client,
        sport: info.port,
        dport: record.client_port,
        frontend: record.frontend,
        backend: record.backend,
        forwarding: backend.forwarding,
    };
    words::barrier();
    (same && place.tag() == before).then_some((place, way))
}

/// The word after another packet.
#[inline(always)]
pub fn next_meta(old: u32, now: u32, from: u8, to: u8, last: bool) -> u32 {
    let state = match meta::state(old) {
        _ if last => xdp_ebpf::flow_state::CLOSING,
        state if state == from => to,
        state => state,
    };
    meta::new(now, state, meta::proto(old))
}

/// An entry of `REPLY_INDEX` as the word that it is stored with.
#[inline(always)]
pub fn entry(tag: u32, flow: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (tag.to_ne_bytes(), flow.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
pub fn entry_tag(entry: u64) -> u32 {
    let [a, b, c, d, ..] = entry.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
pub fn entry_flow(entry: u64) -> u32 {
    let [.., a, b, c, d] = entry.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

impl Way {
    pub const NOWHERE: Self = Self {
        src: Address { high: 0, low: 0 },
        dst: Address { high: 0, low: 0 },
        sport: 0,
        dport: 0,
        frontend: 0,
        backend: 0,
        forwarding: 0,
    };
}
