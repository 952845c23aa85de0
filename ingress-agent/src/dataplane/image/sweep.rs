//! Going through the flow table a part at a time: frees the records of frontends that were removed, after which the frontend's id
//! may be given again, and those that have been silent for too long, before their 16-bit age wraps; counts what lives. Follows
//! the ABI's protocol for writers: take the way by compare-and-swap, then free it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use xdp_ebpf::rules::dead;
use xdp_ebpf::{Flow, FlowBucket, FrontendInfo, ReplyBucket, WAYS, tag};

use super::Image;
use crate::dataplane::region::Region;
use crate::dataplane::tables::wait_for_packets;

/// Buckets a step: 0.5 MB of index and, where records have to be read, 4 MB of them are mapped at a time. The largest default
/// table is gone through in 16 steps.
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

/// In units of 4 bytes.
const FRONTEND: usize = std::mem::offset_of!(Flow, frontend) / 4;
const META: usize = std::mem::offset_of!(FlowBucket, meta) / 4;

impl Sweep {
    pub(super) fn new(buckets: u32) -> Self {
        Self { buckets, next: 0, dying: Vec::new(), waiting: Vec::new(), counting: 0, live: 0 }
    }

    /// The frontend is in no map any more; free its flows, then its id.
    pub(super) fn retire(&mut self, frontend: u32) {
        self.waiting.push(frontend);
    }

    fn is_dying(&self, frontend: u32) -> bool {
        self.dying.binary_search(&frontend).is_ok()
    }
}

impl Image {
    /// `tick` is the programs' time.
    pub(super) fn sweep_some(&mut self, now: Instant, tick: u32) -> Result<()> {
        // Faster while an id waits for it.
        let steps = if self.sweep.dying.is_empty() { 1 } else { 4 };
        for _ in 0..steps {
            self.sweep_step(Some(tick))?;
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
            self.sweep_step(None)?;
        }
        self.end_pass(now);
        Ok(())
    }

    fn sweep_step(&mut self, tick: Option<u32>) -> Result<()> {
        let first = self.sweep.next as usize;
        let count = STEP.min(self.sweep.buckets - self.sweep.next) as usize;
        let mut part = Part { image: self, first, count, records: None, replies: None };
        let udp_idle = self.maps.config.load(0).udp_idle;
        let index = self.maps.flow_buckets_in(first, count)?;
        let mut live = 0;
        for place in first * WAYS..(first + count) * WAYS {
            let (bucket, way) = (place / WAYS, place % WAYS);
            if index.half(bucket, way).load(Ordering::Acquire) < tag::FIRST {
                continue;
            }
            live += 1;
            // Read again when the way is taken: a packet may come in between.
            let silent =
                || tick.is_some_and(|t| dead(index.half(bucket, META + way).load(Ordering::Acquire), t, udp_idle));
            let forget = if silent() {
                part.free(&index, place, |_| silent())?
            } else if !self.sweep.dying.is_empty() && self.sweep.is_dying(part.frontend(place)?) {
                part.free(&index, place, |flow| self.sweep.is_dying(flow.frontend))?
            } else {
                false
            };
            live -= u64::from(forget);
        }
        self.sweep.counting += live;
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

/// The windows that a step needs; records and replies only once something is to be freed.
struct Part<'a> {
    image: &'a Image,
    first: usize,
    count: usize,
    records: Option<Region<Flow>>,
    replies: Option<Region<ReplyBucket>>,
}

impl Part<'_> {
    fn records(&mut self) -> Result<&Region<Flow>> {
        let region = match self.records.take() {
            Some(region) => region,
            None => self.image.maps.flows_in(self.first * WAYS, self.count * WAYS)?,
        };
        Ok(self.records.insert(region))
    }

    fn replies(&mut self) -> Result<&Region<ReplyBucket>> {
        let region = match self.replies.take() {
            Some(region) => region,
            None => self.image.maps.replies_in(0, self.image.maps.reply_buckets() as usize)?,
        };
        Ok(self.replies.insert(region))
    }

    fn frontend(&mut self, place: usize) -> Result<u32> {
        Ok(self.records()?.half(place, FRONTEND).load(Ordering::Relaxed))
    }

    /// Frees one record and its reply entry, if `unwanted` still holds once the way is taken. Returns whether it did.
    fn free(&mut self, index: &Region<FlowBucket>, place: usize, unwanted: impl Fn(&Flow) -> bool) -> Result<bool> {
        let at = index.half(place / WAYS, place % WAYS);
        let found = at.load(Ordering::Acquire);
        // What may fail comes first: a way that stays BUSY would be lost.
        self.records()?;
        self.replies()?;
        if found < tag::FIRST || at.compare_exchange(found, tag::BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Ok(false);
        }
        let flow = self.records()?.load(place);
        if !unwanted(&flow) {
            at.store(found, Ordering::Release);
            return Ok(false);
        }
        let (bucket, way) = (flow.reply as usize / WAYS, flow.reply as usize % WAYS);
        let replies = self.replies()?;
        if bucket < replies.end() {
            let word = replies.word(bucket, way);
            let entry = word.load(Ordering::Acquire);
            let [.., a, b, c, d] = entry.to_ne_bytes();
            // Only if the entry still leads here: its place may belong to another flow by now.
            if u32::from_ne_bytes([a, b, c, d]) as usize == place {
                let _ = word.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        at.store(tag::FREE, Ordering::Release);
        Ok(true)
    }
}
