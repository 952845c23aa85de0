//! Going through the flow table a part at a time: counts the records, and frees those of frontends that were removed, after which
//! the frontend's id may be given again. Follows the ABI's protocol for writers: take the way by compare-and-swap, then free it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use xdp_ebpf::{Flow, FlowBucket, FrontendInfo, ReplyBucket, WAYS, tag};

use super::Image;
use crate::dataplane::region::Region;
use crate::dataplane::tables::wait_for_packets;

/// Buckets a step: 0.5 MB of index and 4 MB of records are mapped at a time.
const STEP: u32 = 8192;

pub(in crate::dataplane) struct Sweep {
    buckets: u32,
    next: u32,
    /// Removed before this pass began, sorted.
    dying: Vec<u32>,
    /// Removed since.
    waiting: Vec<u32>,
    counting: u64,
    /// Records at the end of the last pass.
    pub live: u64,
}

/// `Flow::frontend` in units of 4 bytes.
const FRONTEND: usize = std::mem::offset_of!(Flow, frontend) / 4;

impl Sweep {
    pub(super) fn new(buckets: u32) -> Self {
        Self { buckets, next: 0, dying: Vec::new(), waiting: Vec::new(), counting: 0, live: 0 }
    }

    /// The frontend is in no map any more; free its flows, then its id.
    pub(super) fn retire(&mut self, frontend: u32) {
        self.waiting.push(frontend);
    }
}

impl Image {
    pub(super) fn sweep_some(&mut self, now: Instant) -> Result<()> {
        // Faster while an id waits for it.
        let steps = if self.sweep.dying.is_empty() { 1 } else { 4 };
        for _ in 0..steps {
            self.sweep_step()?;
            if self.sweep.next >= self.sweep.buckets {
                self.end_pass(now);
                break;
            }
        }
        Ok(())
    }

    /// A whole pass at once, for when ids are short. Everything retired before the call is free after it.
    pub(super) fn sweep_all(&mut self, now: Instant) -> Result<()> {
        self.sweep.dying.append(&mut self.sweep.waiting);
        self.sweep.dying.sort_unstable();
        (self.sweep.next, self.sweep.counting) = (0, 0);
        // A packet that read FRONTENDS before the removal may still make a record.
        wait_for_packets();
        while self.sweep.next < self.sweep.buckets {
            self.sweep_step()?;
        }
        self.end_pass(now);
        Ok(())
    }

    fn sweep_step(&mut self) -> Result<()> {
        let first = self.sweep.next as usize;
        let count = STEP.min(self.sweep.buckets - self.sweep.next) as usize;
        let index = self.maps.flow_buckets_in(first, count)?;
        let records = match self.sweep.dying.is_empty() {
            true => None,
            false => Some(self.maps.flows_in(first * WAYS, count * WAYS)?),
        };
        let mut replies = None;
        for bucket in first..first + count {
            for way in 0..WAYS {
                if index.half(bucket, way).load(Ordering::Acquire) < tag::FIRST {
                    continue;
                }
                self.sweep.counting += 1;
                let Some(records) = &records else { continue };
                let frontend = records.half(bucket * WAYS + way, FRONTEND).load(Ordering::Relaxed);
                if self.sweep.dying.binary_search(&frontend).is_ok() {
                    let replies = match &replies {
                        Some(replies) => replies,
                        None => replies.insert(self.maps.replies()?),
                    };
                    let dying = |flow: &Flow| self.sweep.dying.binary_search(&flow.frontend).is_ok();
                    if free(&index, records, replies, bucket, way, dying) {
                        self.sweep.counting -= 1;
                    }
                }
            }
        }
        self.sweep.next += count as u32;
        Ok(())
    }

    fn end_pass(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.sweep.dying) {
            self.maps.frontend_info.store(id as usize, &FrontendInfo::default());
            self.frontend_ids.give(id, now);
        }
        self.sweep.live = self.sweep.counting;
        (self.sweep.next, self.sweep.counting) = (0, 0);
        self.sweep.dying = std::mem::take(&mut self.sweep.waiting);
        self.sweep.dying.sort_unstable();
    }
}

/// Frees one record and its reply entry, if it still is one that `dead` means. Returns whether it did.
fn free(
    index: &Region<FlowBucket>,
    records: &Region<Flow>,
    replies: &Region<ReplyBucket>,
    bucket: usize,
    way: usize,
    dead: impl Fn(&Flow) -> bool,
) -> bool {
    let place = index.half(bucket, way);
    let found = place.load(Ordering::Acquire);
    if found < tag::FIRST || place.compare_exchange(found, tag::BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    // The way is ours: no program writes the record now.
    let number = bucket * WAYS + way;
    let flow = records.load(number);
    if !dead(&flow) {
        place.store(found, Ordering::Release);
        return false;
    }
    let reply = flow.reply as usize;
    if reply / WAYS < replies.end() {
        let word = replies.word(reply / WAYS, reply % WAYS);
        let entry = word.load(Ordering::Acquire);
        let [.., a, b, c, d] = entry.to_ne_bytes();
        // Only if the entry still leads here; its place may have been given to another flow.
        if u32::from_ne_bytes([a, b, c, d]) as usize == number {
            let _ = word.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    place.store(tag::FREE, Ordering::Release);
    true
}
