//! The way that a new record takes, and what becomes of the record that has it.

use xdp_ebpf::rules::{IDLE_UNIT, dead, flow_rank};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{WAYS, flow_state, hash, meta, tag};

use crate::flow::{Place, entry_flow, entry_tag};
use crate::insert::NONE;
use crate::maps::{self, Bucket};

/// The first free way, from the one that was fetched on.
#[inline(always)]
pub fn free(bucket: &Bucket, hash: u64) -> Option<u32> {
    for i in 0..WAYS {
        let way = nth(hash, i);
        if bucket.tag[way].load() == tag::FREE {
            return Some(maps::forget::<7>(way as u32, bucket.meta[0].load()));
        }
    }
    None
}

/// The ways of a bucket in the order in which a record prefers them.
#[inline(always)]
fn nth(hash: u64, i: usize) -> usize {
    (hash::first_way(hash) as usize + i) & (WAYS - 1)
}

/// The way that a new record takes where none is free: dead, or the one that will be missed least; among equals the fetched one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_victim() -> u32 {
    let Some(o) = maps::opening() else { return NONE };
    let Some(config) = maps::config() else { return NONE };
    let Some(bucket) = maps::bucket(o.bucket) else { return NONE };
    let (mut best, mut lowest) = (NONE, u32::MAX);
    for i in 0..WAYS {
        let way = nth(o.hash, i);
        let word = bucket.meta[way].load();
        let score = if dead(word, o.now, config.udp_idle) {
            1
        } else {
            (flow_rank(word) + 1) << 16 | (0xffff - meta::age(word, o.now) / IDLE_UNIT)
        };
        if score < lowest && bucket.tag[way].load() != tag::BUSY {
            (best, lowest) = (way as u32, score);
        }
    }
    best
}

/// Gives up the record that a flow's place still has.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_evict(flow: u32) -> u32 {
    let Some(o) = maps::opening() else { return 0 };
    let Some(config) = maps::config() else { return 0 };
    let Some(bucket) = maps::bucket(flow / WAYS as u32) else { return 0 };
    let Some(record) = maps::record(flow) else { return 0 };
    let word = (Place { bucket, way: flow % WAYS as u32 }).meta();
    if o.own == NONE && !dead(word, o.now, config.udp_idle) {
        maps::count(Verdict::FlowEvicted);
        if meta::state(word) == flow_state::ESTABLISHED {
            maps::count(Verdict::FlowEvictedEstablished);
        }
    }
    // A flow that is made anew wants its port back.
    if o.own == NONE && o.left == 0 {
        (o.left, o.left_flow) = (record.reply + 1, flow);
    } else {
        release(record.reply, flow);
    }
    0
}

/// Frees the entry of `REPLY_INDEX` that the last eviction on this CPU left behind. It is done this late because only the evicted
/// record tells where the entry is, and waiting for one memory access after the other would take longer than all the rest; by
/// now the entry's line has been fetched beside those of the new flow. Until then the entry is [`stale`], and nobody minds it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_tidy() -> u32 {
    if let Some(o) = maps::opening()
        && let Some(reply) = o.left.checked_sub(1)
        && stale(reply, o.left_flow)
    {
        release(reply, o.left_flow);
        o.left = 0;
    }
    0
}

/// Whether an entry leads to a flow whose record has its entry elsewhere, or to none. A record that is being written may yet turn
/// out to be the entry's: no.
#[inline(always)]
fn stale(reply: u32, flow: u32) -> bool {
    let Some(bucket) = maps::bucket(flow / WAYS as u32) else { return false };
    match (Place { bucket, way: flow % WAYS as u32 }).tag() {
        tag::FREE => true,
        tag::BUSY => false,
        _ => maps::record(flow).is_some_and(|record| record.reply != reply),
    }
}

/// Frees an entry of `REPLY_INDEX` if it still leads to this flow.
#[inline(always)]
fn release(reply: u32, flow: u32) {
    if let Some(replies) = maps::replies(reply / WAYS as u32) {
        let slot = &replies.entry[reply as usize & (WAYS - 1)];
        let old = slot.load();
        if entry_tag(old) != tag::FREE && entry_flow(old) == flow {
            // Where it is lost, somebody else has taken the entry over.
            slot.swap_if(old, 0);
        }
    }
}
