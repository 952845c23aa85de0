//! What is remembered of clients, for all workers together. The memory is bounded whatever their number: who was here the longest time ago gives
//! its place, and begins anew.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Places in which a client may stand.
const WAYS: usize = 8;

/// What stands in a place. The default is of nobody yet, and older than all others.
pub(super) trait Memory: Copy + Default {
    /// Of those where a client may stand, the lowest goes.
    fn age(&self) -> u64;
}

/// `SLOTS` places in each of `SHARDS` parts, each made when it is first needed. A multiple of [`WAYS`].
pub(super) struct Places<T, const SHARDS: usize, const SLOTS: usize>([OnceLock<Mutex<Vec<Slot<T>>>>; SHARDS]);

#[derive(Clone, Copy, Default)]
struct Slot<T> {
    key: u64,
    memory: T,
}

impl<T, const SHARDS: usize, const SLOTS: usize> Default for Places<T, SHARDS, SLOTS> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; SHARDS])
    }
}

impl<T: Memory, const SHARDS: usize, const SLOTS: usize> Places<T, SHARDS, SLOTS> {
    /// `key`: a hash, not 0.
    pub(super) fn change<R>(&self, key: u64, change: impl FnOnce(&mut T) -> R) -> R {
        let slots = self.0[key as usize % SHARDS].get_or_init(|| Mutex::new(vec![Slot::default(); SLOTS]));
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        let first = (key >> 8) as usize % (SLOTS / WAYS) * WAYS;
        let ways = &mut slots[first..first + WAYS];
        let at = ways.iter().position(|slot| slot.key == key).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|at| ways[*at].memory.age()).unwrap_or(0);
            ways[oldest] = Slot { key, memory: T::default() };
            oldest
        });
        change(&mut ways[at].memory)
    }

    /// Places that there are by now.
    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        self.0.iter().filter_map(OnceLock::get).map(|s| s.lock().expect("unpoisoned").capacity()).sum()
    }
}
