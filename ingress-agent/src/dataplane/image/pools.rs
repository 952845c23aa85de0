//! Pools: endpoints into `BACKENDS`, then a Maglev table into `RINGS`, then the swap in `POOLS`, and only then do the endpoints
//! leave that are not named any more (`leaving.rs`). No packet ever picks an entry that is not written yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use xdp_ebpf::{Backend, Ring, backend_state, forwarding, maglev};

use super::Image;
use super::frontends::zeroes;
use crate::dataplane::filter::Bit;
use crate::dataplane::pool::{self, PoolKey, PoolState, Slot, addr, compare, entries, fingerprint};
use crate::dataplane::tables::wait_for_packets;
use crate::model::snapshot::Pool;

impl Image {
    /// Makes pool `key` what the snapshot says, creating it if need be. What could not be done is in `problems`, and is tried
    /// again with the next snapshot.
    pub(super) fn put_pool(
        &mut self,
        key: &PoolKey,
        pool: &Arc<Pool>,
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let mut state = if let Some(state) = self.pools.remove(key) {
            state
        } else if let Some(id) = self.new_pool_id(now) {
            self.maps.pools.store(id as usize, &xdp_ebpf::Pool::default());
            PoolState::new(id)
        } else {
            problems.push(format!("{}: no room for another pool; raise --max-frontends", key.name));
            return Ok(());
        };
        let done = self.fill_pool(key, pool, &mut state, now, problems);
        self.pools.insert(key.clone(), state);
        done
    }

    fn fill_pool(
        &mut self,
        key: &PoolKey,
        pool: &Arc<Pool>,
        state: &mut PoolState,
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let before = problems.len();
        let change = compare(&state.slots, pool, key.v6);
        for id in &change.restated {
            let index = *id as usize;
            let mut entry = self.maps.backends.load(index);
            if let Some(slot) = change.kept.iter().find(|s| s.id == *id) {
                entry.state = slot.state;
            }
            self.maps.backends.store(index, &entry);
        }
        let mut slots = change.kept;
        let mut surplus = 0;
        for slot in change.added {
            match self.add_backend(key, state.id, slot, now)? {
                Some(slot) => slots.push(slot),
                None => surplus += 1,
            }
        }
        slots.sort_unstable_by_key(|s| s.address);
        if surplus > 0 {
            problems.push(format!(
                "{}: {surplus} of {} endpoints get no traffic, the limit of {} is reached; raise --max-backends",
                key.name,
                pool.backends.len(),
                self.max_backends
            ));
        }
        state.slots = slots;
        if let Some(directory) = &self.directory {
            directory.lock().put_pool(state.id, &state.slots);
        }
        self.retable(key, pool, state, now, problems)?;
        for slot in change.gone {
            self.leave(key, state.id, slot, now);
        }
        state.source = (problems.len() == before).then(|| Arc::clone(pool));
        Ok(())
    }

    /// Gives an endpoint an entry. `None` when the limit is reached.
    fn add_backend(&mut self, key: &PoolKey, pool: u32, mut slot: Slot, now: Instant) -> Result<Option<Slot>> {
        if let Some((id, epoch)) = self.claim_orphan(&slot) {
            // Adopted while it was draining, so no table named it.
            (slot.id, slot.epoch) = (id, epoch);
        } else if self.backends >= self.max_backends {
            return Ok(None);
        } else if let Some((id, epoch)) = self.leaving.claim(key, pool, &slot) {
            // It came back before its flows ended.
            (slot.id, slot.epoch) = (id, epoch);
            self.backends += 1;
        } else {
            let Some(id) = self.new_backend_id(now) else { return Ok(None) };
            let before = self.maps.backends.load(id as usize).epoch;
            if before != 0 {
                self.maps.backend_traffic.set(id, zeroes()?, 0).context("reset BACKEND_TRAFFIC")?;
            }
            (slot.id, slot.epoch) = (id, before.wrapping_add(1).max(1));
            self.backends += 1;
            if slot.forwarding == forwarding::LOCAL {
                self.watch(Bit::of_address(&addr(slot.address.ip())));
            }
        }
        // The last word holds port, forwarding, state and epoch, and is stored last: until then the entry reads as gone.
        self.maps.backends.store(slot.id as usize, &backend(&slot));
        Ok(Some(slot))
    }

    fn new_backend_id(&mut self, now: Instant) -> Option<u32> {
        self.backend_ids.take(now).or_else(|| {
            if self.backend_ids.nobody_rests() {
                self.end_leave_early(now);
            }
            // That waits for packets, which takes milliseconds; so it is for many.
            self.tables.end_all_graces(&self.maps);
            self.backend_ids.wake();
            self.backend_ids.take(now)
        })
    }

    fn new_pool_id(&mut self, now: Instant) -> Option<u32> {
        self.pool_ids.take(now).or_else(|| {
            wait_for_packets();
            self.pool_ids.wake();
            self.pool_ids.take(now)
        })
    }

    /// No table names it any more.
    pub(super) fn remove_backend(&mut self, slot: &Slot, now: Instant) {
        self.backends -= 1;
        self.end_backend(slot, now);
    }

    /// One 8-byte store makes every flow to it a miss.
    pub(super) fn end_backend(&mut self, slot: &Slot, now: Instant) {
        let gone = Slot { state: backend_state::GONE, epoch: slot.epoch.wrapping_add(1).max(1), ..*slot };
        self.maps.backends.store(slot.id as usize, &backend(&gone));
        if slot.forwarding == forwarding::LOCAL {
            self.unwatch(Bit::of_address(&addr(slot.address.ip())));
        }
        self.backend_ids.give(slot.id, now);
    }

    /// Fills and publishes a new table if its ingredients changed.
    fn retable(
        &mut self,
        key: &PoolKey,
        pool: &Pool,
        state: &mut PoolState,
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let mut entries = entries(&state.slots, self.seed, key.name.protocol.number());
        let wanted = wanted_size(pool.table_size, entries.len());
        state.digest = fingerprint(&entries, wanted, self.seed, false);
        let from = fingerprint(&entries, wanted, self.seed, true);
        if from == state.filled_from {
            return Ok(());
        }
        let current = self.tables.current(state.id);
        if entries.is_empty() {
            if !current.is_empty() {
                self.tables.publish(&self.maps, state.id, Ring::default(), now);
            }
            state.filled_from = from;
            return Ok(());
        }
        self.scratch.resize(wanted as usize, 0);
        maglev::fill(&mut self.scratch, &mut entries, self.seed);
        if current.len() == wanted && self.holds(current)? {
            // Adopted, and the same already.
            state.filled_from = from;
            return Ok(());
        }
        if let Some(ring) = self.tables.place(&self.maps, wanted) {
            self.write(ring)?;
            self.tables.publish(&self.maps, state.id, ring, now);
            state.filled_from = from;
            return Ok(());
        }
        self.retable_in_need(key, state, &mut entries, (wanted, from), now, problems)
    }

    /// The arena is full. A pool that has a table gets its slots rewritten one by one: each packet still picks a living endpoint,
    /// only the swap is not atomic. A new pool gets the largest table that fits.
    fn retable_in_need(
        &mut self,
        key: &PoolKey,
        state: &mut PoolState,
        entries: &mut [maglev::Entry],
        (wanted, from): (u32, u64),
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let slots = self.maps.ring_slots();
        let current = self.tables.current(state.id);
        let ring = if current.is_empty() {
            maglev::SIZES.into_iter().rev().find_map(|size| self.tables.place(&self.maps, size))
        } else {
            Some(current)
        };
        let Some(ring) = ring else {
            problems.push(format!(
                "{}: no room for its Maglev table, it gets no traffic: all {slots} slots are taken; raise --ring-slots",
                key.name
            ));
            return Ok(());
        };
        self.scratch.resize(ring.len() as usize, 0);
        maglev::fill(&mut self.scratch, entries, self.seed);
        if ring != current {
            self.write(ring)?;
            self.tables.publish(&self.maps, state.id, ring, now);
        } else if !self.holds(ring)? {
            self.write(ring)?;
        }
        if ring.len() == wanted {
            tracing::warn!(pool = %key.name, "RINGS is full: a table was rewritten in place; raise --ring-slots");
            state.filled_from = from;
            return Ok(());
        }
        state.filled_from = 0;
        problems.push(format!(
            "{}: its Maglev table has {} slots instead of the {wanted} that other nodes give it: all {slots} slots are taken; \
             raise --ring-slots",
            key.name,
            ring.len()
        ));
        Ok(())
    }

    fn write(&self, ring: Ring) -> Result<()> {
        let window = self.maps.ring(ring)?;
        let first = ring.offset() as usize;
        for (i, id) in self.scratch.iter().enumerate() {
            window.half(first + i, 0).store(*id, Ordering::Relaxed);
        }
        Ok(())
    }

    fn holds(&self, ring: Ring) -> Result<bool> {
        let window = self.maps.ring(ring)?;
        let first = ring.offset() as usize;
        Ok(self.scratch.iter().enumerate().all(|(i, id)| window.half(first + i, 0).load(Ordering::Relaxed) == *id))
    }

    /// Removes a pool that no frontend names.
    pub(super) fn remove_pool(&mut self, key: &PoolKey, now: Instant) {
        let Some(state) = self.pools.remove(key) else { return };
        if let Some(directory) = &self.directory {
            directory.lock().remove_pool(state.id);
        }
        self.tables.remove(&self.maps, state.id, now);
        for slot in state.slots {
            self.leave(key, state.id, slot, now);
        }
        self.pool_ids.give(state.id, now);
    }
}

/// Only primes of the list are tables; anything else would never fill up.
fn wanted_size(asked: u32, backends: usize) -> u32 {
    if maglev::SIZES.contains(&asked) { asked } else { maglev::size_for(backends) }
}

pub(super) fn backend(slot: &Slot) -> Backend {
    let (addr, port) = pool::wire(slot.address);
    Backend { addr, port, forwarding: slot.forwarding, state: slot.state, epoch: slot.epoch }
}
