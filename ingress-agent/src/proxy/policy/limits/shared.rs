//! Limits that all edges have together: what this one let through, for the others to hear, and what they let through, which counts here. So
//! all edges drain one bucket for each client, and each has the part of it that its traffic takes. A limit that is not shared has nothing to
//! do with this.
//!
//! What edges let through before they hear of each other may be too much. It is owed, up to once more what a client can use at
//! once ([`furthest`]), and paid back by waiting; so what others say, however often and late, keeps nobody out for longer than that.
//!
//! Edges name a limit by a digest, since names can be longer than all the rest, and the client by its address. That is not this process's
//! key of a slot: its hash is seeded, so that nobody can choose addresses that share one, and no other process has the seed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest;

use super::{Limiter, Slot, furthest};
use crate::model::policy::{Limits, Rate};
use crate::model::snapshot::ObjectName;
use crate::model::sync::{LimitId, LimitUse};

/// Workers seldom meet at one.
const LISTS: usize = 64;
/// Clients that others can be told of at once, about 100 bytes each.
const MOST: usize = 4096;

pub(super) struct Shared {
    /// By [`Limiter::key`].
    news: [Mutex<HashMap<u64, News>>; LISTS],
    /// Clients in `news`.
    waiting: AtomicUsize,
    /// Requests that are in none of them for lack of room.
    left_out: AtomicU64,
    known: Mutex<Known>,
}

/// What others were not told yet of one client.
struct News {
    limits: Arc<Limits>,
    which: usize,
    client: IpAddr,
    requests: u32,
}

/// The limits of the generation in force, by their names among edges.
#[derive(Default)]
struct Known {
    source: Arc<Vec<Arc<Limits>>>,
    by_id: HashMap<LimitId, (Arc<Limits>, usize)>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            news: std::array::from_fn(|_| Mutex::default()),
            waiting: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }
}

impl Shared {
    /// A request was let through.
    pub(super) fn note(&self, key: u64, limits: &Arc<Limits>, which: usize, client: IpAddr) {
        let mut news = self.news[key as usize % LISTS].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = news.get_mut(&key) {
            known.requests = known.requests.saturating_add(1);
        } else if self.waiting.load(Ordering::Relaxed) < MOST {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            news.insert(key, News { limits: Arc::clone(limits), which, client, requests: 1 });
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Limiter {
    /// From now on these are the limits that edges share.
    pub(in crate::proxy) fn know(&self, limits: &Arc<Vec<Arc<Limits>>>) {
        let lock = || self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&lock().source, limits) {
            return;
        }
        let each = limits.iter().flat_map(|limits| (0..limits.rates.len()).map(move |which| (limits, which)));
        let by_id = each.map(|(limits, which)| (id(&limits.owner, which), (Arc::clone(limits), which))).collect();
        let new = Known { source: Arc::clone(limits), by_id };
        // The old one is freed without the lock.
        let old = std::mem::replace(&mut *lock(), new);
        drop(old);
    }

    /// See [`SharedLimits::take`](crate::model::sync::SharedLimits::take).
    pub(in crate::proxy) fn take_uses(&self, uses: &mut Vec<LimitUse>) -> u64 {
        let shared = &self.shared;
        let lists = if shared.waiting.load(Ordering::Relaxed) == 0 { &[][..] } else { &shared.news[..] };
        for list in lists {
            // Requests wait only while the list is exchanged for an empty one.
            let news = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
            shared.waiting.fetch_sub(news.len(), Ordering::Relaxed);
            uses.extend(news.into_values().map(|news| {
                let News { limits, which, client, requests } = news;
                LimitUse { limit: id(&limits.owner, which), client, requests }
            }));
        }
        shared.left_out.swap(0, Ordering::Relaxed)
    }

    /// See [`SharedLimits::hear`](crate::model::sync::SharedLimits::hear). Periods are this node's own: another generation there changes
    /// nothing but what a request weighs here.
    pub(in crate::proxy) fn hear_use(&self, used: &LimitUse, now: Instant) -> bool {
        let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((limits, which)) = known.by_id.get(&used.limit).cloned() else { return false };
        drop(known);
        let Some(rate) = limits.rates.get(which) else { return false };
        let now = self.nanoseconds(now);
        self.rates.change(self.key(&limits, used.client, which), |slot| slot.count(rate, used.requests, now));
        true
    }
}

impl Slot {
    /// So many requests passed elsewhere.
    fn count(&mut self, rate: &Rate, requests: u32, now: u64) {
        let taken = (rate.every.as_nanos() as u64).saturating_mul(u64::from(requests));
        self.arrival = self.arrival.max(now).saturating_add(taken).min(furthest(rate, now));
    }
}

/// Half of a SHA-256: who may write Ingresses must not find one that is taken for another's. No name of Kubernetes has a slash.
fn id(owner: &ObjectName, which: usize) -> LimitId {
    let digest = digest::digest(&digest::SHA256, format!("{}/{}/{which}", owner.namespace, owner.name).as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    LimitId(id)
}

#[cfg(test)]
mod tests;
