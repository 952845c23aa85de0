//! Choosing a backend, and making a flow's record. Not inlined: the verifier and the instruction cache see it once.

use xdp_ebpf::affinity::Affinity;
use xdp_ebpf::rules::{CLOSING_REUSE, PORT_PROBES, dead, flow_rank};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{Config, WAYS, backend_state, flow_state, forwarding, hash, meta, tag};

use crate::evict::{free, sluicegate_evict, sluicegate_tidy, sluicegate_victim};
use crate::family::{Family, V4, V6};
use crate::flow::{Place, Way, entry, entry_flow, entry_tag, good, own};
use crate::maps::{self, Address, AffinityView, BackendView, Bucket, Key, Record};
use crate::segment::flag;
use crate::verdict;

/// No way of a bucket.
pub const NONE: u32 = u32::MAX;

/// Nobody looked for the record yet: a SYN begins with the choice, so that the line of `REPLY_INDEX` that it needs is on its way
/// from memory while the flow's own is looked for.
pub const UNSOUGHT: u32 = u32::MAX - 1;

/// A packet that no record settles.
pub struct Opening {
    pub hash: u64,
    pub client: Address,
    pub vip: Address,
    pub snat: Address,
    /// Index of the flow's bucket.
    pub bucket: u32,
    /// The way of its own record, [`NONE`] or [`UNSOUGHT`].
    pub own: u32,
    pub now: u32,
    pub pool: u32,
    pub frontend: u32,
    pub affinity: bool,
    /// Ticks for which a client keeps its endpoint; 0: only as long as its hash says so.
    pub affinity_lasts: u32,
    /// Whether the frontend admits certain clients only.
    pub sources: bool,
    /// SYN, or UDP; else a TCP packet without a good record.
    pub opens: bool,
    pub v4: bool,
    pub proto: u8,
    pub client_port: u16,
    pub vip_port: u16,
    pub flags: u8,
    /// Hash of the reverse key that is tried.
    pub reply_hash: u64,
    /// What the last eviction on this CPU left behind: the place of an entry of `REPLY_INDEX` and one (0: nothing, as the map
    /// begins), and the flow that it leads to.
    pub left: u32,
    pub left_flow: u32,
    /// Out: where the packet goes.
    pub way: Way,
}

/// Fills in `way` and returns 0, or returns the action that ends the packet.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_open() -> u32 {
    let Some(o) = maps::opening() else { return verdict::drop(Verdict::DropInternal) };
    let Some(config) = maps::config() else { return verdict::drop(Verdict::DropInternal) };
    if o.sources && !maps::admits(o.frontend, o.client) {
        return verdict::drop(Verdict::DropSource);
    }
    let Some((id, backend)) = choose(o, config) else { return verdict::pass(Verdict::PassNoBackend) };
    o.way.dst = backend.addr;
    o.way.dport = backend.port;
    o.way.frontend = o.frontend;
    o.way.backend = id;
    o.way.forwarding = backend.forwarding;
    let local = backend.forwarding == forwarding::LOCAL;
    o.way.src = if local { o.client } else { o.snat };
    // Where many flows share a few endpoints, every other port or so is taken.
    o.way.sport = candidate(o, config, local, 1);
    maps::fetch_replies(reply_hash(o, config) as u32 & config.reply_mask);
    o.way.sport = candidate(o, config, local, 0);
    if !o.opens && o.flags & flag::RST != 0 {
        return 0;
    }
    o.reply_hash = reply_hash(o, config);
    let flow = o.bucket * WAYS as u32 + hash::first_way(o.hash);
    maps::fetch(o.bucket, flow);
    maps::fetch_replies(o.reply_hash as u32 & config.reply_mask);
    maps::fetch_replies(o.left.wrapping_sub(1) / WAYS as u32);
    let Some(bucket) = maps::bucket(o.bucket) else { return verdict::drop(Verdict::DropInternal) };
    if o.own == UNSOUGHT {
        o.own = own(bucket, o.bucket, o.hash, o.client, o.client_port, o.frontend).unwrap_or(NONE);
    }
    if o.opens
        && o.own != NONE
        && let Some(record) = maps::record(o.bucket * WAYS as u32 + o.own)
        && record.backend == id
        && good(backend, record.epoch)
    {
        let place = Place { bucket, way: o.own & (WAYS as u32 - 1) };
        let old = place.meta();
        let state = match meta::state(old) {
            _ if meta::proto(old) == xdp_ebpf::IPPROTO_UDP => flow_state::NEW,
            flow_state::CLOSING => flow_state::NEW,
            state => state,
        };
        place.touch(old, meta::new(o.now, state, o.proto));
        o.way.sport = record.port;
        o.way.src = record.source;
        return 0;
    }
    insert(o, config, bucket, backend.epoch, local)
}

/// The backend that the client has, or that the rings name.
#[inline(always)]
fn choose(o: &Opening, config: &Config) -> Option<(u32, &'static BackendView)> {
    if o.affinity && o.affinity_lasts != 0 {
        let id = sluicegate_sticky();
        return if id == 0 { None } else { Some((id, maps::backend(id)?)) };
    }
    let (current, previous) = maps::rings(o.pool)?;
    let hash = if o.affinity { tuple(o.v4, config.seed, o.client, o.vip, 0, o.vip_port, o.proto) } else { o.hash };
    if !o.opens {
        maps::count(Verdict::FlowMiss);
        if let Some(found) = slot(previous, hash) {
            maps::count(Verdict::PreviousTable);
            return Some(found);
        }
    }
    slot(current, hash)
}

/// Under a timeout (kube-proxy's ClientIP affinity): a client keeps its endpoint although the rings have changed, and is spread anew
/// when it was away for longer. What is not known goes by the client's hash, on which all nodes agree. Returns the endpoint's id, or 0.
/// Not inlined: key and value take of the stack, of which the programs' frames together have 512 bytes.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sluicegate_sticky() -> u32 {
    let Some(o) = maps::opening() else { return 0 };
    let Some(config) = maps::config() else { return 0 };
    let Some((current, previous)) = maps::rings(o.pool) else { return 0 };
    let key = AffinityView { frontend: o.frontend, client: o.client };
    let mut hash = tuple(o.v4, config.seed, o.client, o.vip, 0, o.vip_port, o.proto);
    if let Some(known) = maps::affinity(key)
        && known.pool == o.pool
        && let Some(backend) = maps::backend(known.backend)
        && backend.epoch == known.epoch
    {
        // Another CPU may have written it in the tick after this one's clock was read, as in [`meta::age`].
        let since = o.now.wrapping_sub(known.used);
        let lasts = since <= o.affinity_lasts || since >= 0xffff_ff00;
        if !o.opens && backend.state != backend_state::GONE {
            maps::count(Verdict::FlowMiss);
            return known.backend;
        }
        if o.opens && lasts && backend.state == backend_state::READY {
            known.used = o.now;
            return known.backend;
        }
        if !lasts {
            hash = o.hash;
        }
    }
    if !o.opens {
        maps::count(Verdict::FlowMiss);
        if let Some((id, _)) = slot(previous, hash) {
            maps::count(Verdict::PreviousTable);
            return id;
        }
        return slot(current, hash).map_or(0, |(id, _)| id);
    }
    let Some((id, backend)) = slot(current, hash) else { return 0 };
    maps::remember(key, Affinity { backend: id, epoch: backend.epoch, pool: o.pool, used: o.now });
    id
}

#[inline(always)]
fn slot(ring: u64, hash: u64) -> Option<(u32, &'static BackendView)> {
    let (offset, len) = ((ring >> 32) as u32, ring as u32);
    if len == 0 {
        return None;
    }
    let id = maps::ring_slot(offset + hash::slot(hash, len));
    if id == 0 {
        return None;
    }
    let backend = maps::backend(id)?;
    (backend.state != backend_state::GONE).then_some((id, backend))
}

#[inline(always)]
fn tuple(v4: bool, seed: u64, src: Address, dst: Address, sport: u16, dport: u16, proto: u8) -> u64 {
    if v4 { V4::hash(seed, src, dst, sport, dport, proto) } else { V6::hash(seed, src, dst, sport, dport, proto) }
}

/// Of the reverse key of `o.way`.
#[inline(always)]
fn reply_hash(o: &Opening, config: &Config) -> u64 {
    let seed = config.seed.wrapping_add(hash::REPLY_SEED);
    tuple(o.v4, seed, o.way.dst, o.way.src, o.way.dport, o.way.sport, o.proto)
}

/// Candidate `i` for the source port, as it lies in the packet.
#[inline(always)]
fn candidate(o: &Opening, config: &Config, local: bool, i: u32) -> u16 {
    if local && i == 0 {
        return o.client_port;
    }
    hash::port(o.hash, i, config.port_min, config.port_count).to_be()
}

#[inline(always)]
fn insert(o: &mut Opening, config: &Config, bucket: &'static Bucket, epoch: u32, local: bool) -> u32 {
    sluicegate_tidy();
    let way = match o.own {
        NONE => match free(bucket, o.hash) {
            Some(way) => way,
            None => sluicegate_victim(),
        },
        own => own,
    };
    if way == NONE {
        return verdict::drop(Verdict::DropContended);
    }
    let way = way & (WAYS as u32 - 1);
    let place = Place { bucket, way };
    let old = place.tag();
    let at = &bucket.tag[way as usize & (WAYS - 1)];
    if old == tag::BUSY || !at.swap_if(old, tag::BUSY) {
        return verdict::drop(Verdict::DropContended);
    }
    let flow = o.bucket * WAYS as u32 + way;
    let Some(record) = maps::record(flow) else {
        at.publish(tag::FREE);
        return verdict::drop(Verdict::DropInternal);
    };
    if old != tag::FREE {
        sluicegate_evict(flow);
    }
    let Some(reply) = reserve(flow, local) else {
        at.publish(tag::FREE);
        sluicegate_tidy();
        return verdict::drop(Verdict::DropNoPort);
    };
    *record = Record {
        client: o.client,
        frontend: o.frontend,
        client_port: o.client_port,
        port: o.way.sport,
        backend: o.way.backend,
        epoch,
        source: o.way.src,
        reply,
        opened: maps::jiffies() as u32,
        pad: 0,
    };
    let state = if o.flags & flag::FIN != 0 { flow_state::CLOSING } else { flow_state::NEW };
    bucket.meta[way as usize & (WAYS - 1)].store(meta::new(o.now, state, o.proto));
    at.publish(hash::tag(o.hash));
    maps::count(Verdict::FlowNew);
    maps::traffic(o.frontend, o.way.backend, |t| t.new_flows += 1);
    0
}

/// Finds a source port and its entry in `REPLY_INDEX`; returns the entry's index. Who owns a key is asked only where no candidate's
/// key is free: the answer lies in two other lines of memory.
#[inline(always)]
fn reserve(flow: u32, local: bool) -> Option<u32> {
    for round in 0..3 * PORT_PROBES {
        let from = round / PORT_PROBES;
        if round != 0 {
            sluicegate_candidate(round % PORT_PROBES, u32::from(local));
        }
        match sluicegate_probe(flow, u32::from(local), from) {
            TAKEN => {}
            reply => return Some(reply),
        }
        if from == FROM_NOBODY {
            maps::count(Verdict::PortProbe);
        }
    }
    None
}

/// Writes another candidate into `o.way`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sluicegate_candidate(i: u32, local: u32) -> u32 {
    let Some(o) = maps::opening() else { return 0 };
    let Some(config) = maps::config() else { return 0 };
    o.way.sport = candidate(o, config, local != 0, i);
    o.reply_hash = reply_hash(o, config);
    0
}

/// From whom [`sluicegate_probe`] may take a key.
const FROM_NOBODY: u32 = 0;
const FROM_DEAD: u32 = 1;
const FROM_CLOSING: u32 = 2;

/// Its answer besides an index.
const TAKEN: u32 = u32::MAX;

/// Tries to reserve the reverse key of `o.way`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sluicegate_probe(flow: u32, local: u32, from: u32) -> u32 {
    let Some(o) = maps::opening() else { return TAKEN };
    let Some(config) = maps::config() else { return TAKEN };
    // The backend's answers must not look like a client's packets to a frontend.
    if local == 0
        && maps::maybe_frontend(u16::from_be(o.way.sport))
        && maps::frontend(Key { addr: o.way.src, port: o.way.sport, proto: o.proto, pad: 0 }).is_some()
    {
        return TAKEN;
    }
    let (wanted, at) = (hash::tag(o.reply_hash), o.reply_hash as u32 & config.reply_mask);
    let Some(replies) = maps::replies(at) else { return TAKEN };
    let (mut same, mut empty) = (NONE, NONE);
    for way in 0..WAYS {
        let found = entry_tag(replies.entry[way].load());
        if found == wanted && same == NONE {
            same = way as u32;
        }
        if found == tag::FREE && empty == NONE {
            empty = way as u32;
        }
    }
    let way = if same == NONE { empty } else { same };
    if way == NONE {
        return TAKEN;
    }
    let slot = &replies.entry[way as usize & (WAYS - 1)];
    let old = slot.load();
    if same == NONE {
        if entry_tag(old) != tag::FREE {
            return TAKEN;
        }
    } else if from == FROM_NOBODY
        || !forget_owner(entry_flow(old), at * WAYS as u32 + way, o.now, config.udp_idle, from)
    {
        return TAKEN;
    }
    if slot.swap_if(old, entry(wanted, flow)) { at * WAYS as u32 + way } else { TAKEN }
}

/// Frees the flow that owns a reverse key, if it is dead or may give it up. Says whether the key is free then; one that was left
/// behind is so already.
#[inline(always)]
fn forget_owner(flow: u32, reply: u32, now: u32, udp_idle: u32, from: u32) -> bool {
    let Some(bucket) = maps::bucket(flow / WAYS as u32) else { return false };
    let place = Place { bucket, way: flow % WAYS as u32 };
    let (tag, word) = (place.tag(), place.meta());
    if tag == tag::BUSY {
        return false;
    }
    if tag == tag::FREE || maps::record(flow).is_some_and(|record| record.reply != reply) {
        return true;
    }
    let closing = meta::state(word) == flow_state::CLOSING && meta::age(word, now) >= CLOSING_REUSE;
    (dead(word, now, udp_idle) || from == FROM_CLOSING && closing)
        && bucket.tag[place.way as usize & (WAYS - 1)].swap_if(tag, tag::FREE)
}
