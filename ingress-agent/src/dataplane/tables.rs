//! Where each pool's Maglev tables lie in `RINGS`, and when a range may be filled again. A table that packets may read is never
//! written; a new one is filled in free space and published by one 8-byte store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xdp_ebpf::{Pool, Ring};

use super::arena::Arena;
use super::ids::REST;
use super::maps::Maps;

#[derive(Debug)]
pub(super) struct Tables {
    arena: Arena,
    pools: HashMap<u32, Rings>,
    /// Named by no pool any more; packets in flight may still read them.
    retired: VecDeque<(Ring, Instant)>,
    /// Pools with a previous table, in the order in which their grace ends.
    grace: VecDeque<(Instant, u32)>,
    /// How long a previous table serves.
    keep: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rings {
    current: Ring,
    previous: Ring,
}

/// Words of a [`Pool`].
const CURRENT: usize = 0;
const PREVIOUS: usize = 1;

impl Tables {
    pub(super) fn new(slots: u32, keep: Duration) -> Self {
        Self { arena: Arena::new(slots), pools: HashMap::new(), retired: VecDeque::new(), grace: VecDeque::new(), keep }
    }

    /// Takes note of a pool found in adopted maps.
    pub(super) fn adopt(&mut self, id: u32, pool: Pool, now: Instant) -> Result<()> {
        for ring in [pool.current, pool.previous] {
            // Both are the same range for an instant of a swap; a kill may have left it so.
            let repeated = ring == pool.previous && pool.previous == pool.current && self.pools.contains_key(&id);
            ensure!(
                ring.is_empty() || repeated || self.arena.take_at(ring),
                "pool {id} names slots {}..{} of RINGS, which are not there or belong to another pool",
                ring.offset(),
                u64::from(ring.offset()) + u64::from(ring.len())
            );
            self.pools.entry(id).or_insert(Rings { current: pool.current, previous: Ring::default() });
        }
        if !pool.previous.is_empty() && pool.previous != pool.current {
            self.pools.insert(id, Rings { current: pool.current, previous: pool.previous });
            self.grace.push_back((now + self.keep, id));
        }
        Ok(())
    }

    pub(super) fn current(&self, id: u32) -> Ring {
        self.pools.get(&id).map_or_else(Ring::default, |r| r.current)
    }

    pub(super) fn previous(&self, id: u32) -> Ring {
        self.pools.get(&id).map_or_else(Ring::default, |r| r.previous)
    }

    /// Finds room for a table. Where there is none, previous tables give way before their time, the oldest first.
    pub(super) fn place(&mut self, maps: &Maps, len: u32) -> Option<Ring> {
        if let Some(ring) = self.arena.take(len) {
            return Some(ring);
        }
        while !self.retired.is_empty() || !self.grace.is_empty() {
            // Many at once: each round waits for packets in flight, which takes milliseconds.
            for _ in 0..256 {
                let Some((_, id)) = self.grace.pop_front() else { break };
                self.end_grace(maps, id, Instant::now());
            }
            wait_for_packets();
            for (ring, _) in self.retired.drain(..) {
                self.arena.give(ring);
            }
            if let Some(ring) = self.arena.take(len) {
                return Some(ring);
            }
        }
        None
    }

    /// Makes `new` the current table of pool `id`. The one before becomes the previous, unless an older one is still in its
    /// grace time: flows without a record began long ago, so the oldest serves them best.
    pub(super) fn publish(&mut self, maps: &Maps, id: u32, new: Ring, now: Instant) {
        let rings = self.pools.entry(id).or_default();
        let old = std::mem::replace(&mut rings.current, new);
        if rings.previous.is_empty() && !old.is_empty() {
            rings.previous = old;
            maps.pools.word(id as usize, PREVIOUS).store(old.0, Ordering::Release);
            self.grace.push_back((now + self.keep, id));
            maps.pools.word(id as usize, CURRENT).store(new.0, Ordering::Release);
        } else {
            maps.pools.word(id as usize, CURRENT).store(new.0, Ordering::Release);
            self.retire(old, now);
        }
    }

    /// Forgets a pool that no frontend names any more.
    pub(super) fn remove(&mut self, maps: &Maps, id: u32, now: Instant) {
        maps.pools.store(id as usize, &Pool::default());
        if let Some(rings) = self.pools.remove(&id) {
            self.retire(rings.current, now);
            self.retire(rings.previous, now);
        }
        self.grace.retain(|(_, pool)| *pool != id);
    }

    /// Ends grace times that are over and frees ranges that have rested.
    pub(super) fn tick(&mut self, maps: &Maps, now: Instant) {
        while self.grace.front().is_some_and(|(end, _)| *end <= now)
            && let Some((_, id)) = self.grace.pop_front()
        {
            self.end_grace(maps, id, now);
        }
        while self.retired.front().is_some_and(|(_, since)| now.saturating_duration_since(*since) >= REST)
            && let Some((ring, _)) = self.retired.pop_front()
        {
            self.arena.give(ring);
        }
    }

    /// Ends every grace time before its time, and returns when no packet reads a previous table.
    pub(super) fn end_all_graces(&mut self, maps: &Maps) {
        while let Some((_, id)) = self.grace.pop_front() {
            self.end_grace(maps, id, Instant::now());
        }
        wait_for_packets();
    }

    fn end_grace(&mut self, maps: &Maps, id: u32, now: Instant) {
        if let Some(rings) = self.pools.get_mut(&id) {
            let ring = std::mem::take(&mut rings.previous);
            maps.pools.word(id as usize, PREVIOUS).store(0, Ordering::Release);
            self.retire(ring, now);
        }
    }

    fn retire(&mut self, ring: Ring, now: Instant) {
        if !ring.is_empty() {
            self.retired.push_back((ring, now));
        }
    }
}

/// Returns when every packet that was inside a program at the call has left it.
pub(super) fn wait_for_packets() {
    /// `MEMBARRIER_CMD_GLOBAL` (membarrier(2)) waits for an RCU grace period; XDP and TC programs run inside one.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        // Kernels with isolated CPUs (nohz_full) refuse it. A packet is in a program for microseconds.
        std::thread::sleep(Duration::from_millis(20));
    }
}
