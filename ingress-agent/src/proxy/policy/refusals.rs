//! Clients that limits refuse again and again: counted here, and told to whoever has them dropped before they reach the proxy. Only refusals
//! come here, of Ingresses that ask for it. The memory is bounded whatever the number of clients: the one whose first refusal is the
//! oldest gives its place.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::View;
use super::places::{Memory, Places};
use crate::model::offence::Offence;
use crate::model::policy::{LimitDrop, Limits};
use crate::proxy::worker::Worker;

const SHARDS: usize = 64;
/// Clients a shard remembers: 24 KiB, made when the shard is first needed.
const SLOTS: usize = 1024;

pub(in crate::proxy) struct Refusals {
    epoch: Instant,
    hasher: RandomState,
    clients: Places<Slot, SHARDS, SLOTS>,
    tell: mpsc::Sender<Offence>,
}

/// How often a client was refused since its first refusal (nanoseconds since the epoch).
#[derive(Clone, Copy, Default)]
struct Slot {
    since: u64,
    count: u32,
}

impl Memory for Slot {
    fn age(&self) -> u64 {
        self.since
    }
}

/// A limit of this Ingress has just refused a request.
pub(super) fn refused(worker: &Worker, limits: &Limits, view: &View<'_>, now: Instant) {
    let (Some(drop), Some(refusals)) = (&limits.drop, &worker.refusals) else { return };
    // Where somebody else's word says who the client is, the packets are that one's, and others' with them.
    if view.origin.told || view.client.told {
        return;
    }
    refusals.count(limits, drop, view.origin.address, now);
}

impl Refusals {
    pub(in crate::proxy) fn new(tell: mpsc::Sender<Offence>) -> Self {
        Self { epoch: Instant::now(), hasher: RandomState::new(), clients: Places::default(), tell }
    }

    fn count(&self, limits: &Limits, drop: &LimitDrop, client: IpAddr, now: Instant) {
        if self.is_one_too_many(self.hasher.hash_one((&limits.owner, client)).max(1), drop, now) {
            let offence = Offence { client, owner: Arc::new(limits.owner.clone()), lasts: drop.lasts };
            // Where there are more than can be heard, those that go on are told again.
            let _ = self.tell.try_send(offence);
        }
    }

    fn is_one_too_many(&self, key: u64, drop: &LimitDrop, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        self.clients.change(key, |slot| {
            if slot.count == 0 || now.saturating_sub(slot.since) > drop.within.as_nanos() as u64 {
                *slot = Slot { since: now, count: 0 };
            }
            slot.count += 1;
            let reached = slot.count >= drop.refusals;
            if reached {
                // Whoever is heard after this is counted anew.
                *slot = Slot::default();
            }
            reached
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DROP: LimitDrop = LimitDrop { refusals: 3, within: Duration::from_secs(10), lasts: Duration::from_mins(1) };

    fn refusals() -> Refusals {
        Refusals::new(mpsc::channel(1).0)
    }

    #[test]
    fn so_many_within_the_time_and_then_anew() {
        let refusals = refusals();
        let (begun, mut told) = (Instant::now(), Vec::new());
        for seconds in [0, 1, 2, 3, 4, 5, 6, 20, 27, 31, 38, 40] {
            if refusals.is_one_too_many(7, &DROP, begun + Duration::from_secs(seconds)) {
                told.push(seconds);
            }
        }
        // 20 and 27 are too few within their ten seconds; the next begin at 31.
        assert_eq!(told, [2, 5, 40]);
    }

    #[test]
    fn every_client_is_counted_by_itself() {
        let refusals = refusals();
        let now = Instant::now();
        let told: Vec<bool> = [1, 2, 1, 2, 2, 1].map(|key| refusals.is_one_too_many(key, &DROP, now)).into();
        assert_eq!(told, [false, false, false, false, true, true]);
    }

    #[test]
    fn once_is_enough_where_that_is_wanted() {
        let refusals = refusals();
        assert!(refusals.is_one_too_many(1, &LimitDrop { refusals: 1, ..DROP }, Instant::now()));
    }

    #[test]
    fn millions_of_clients_take_no_more_memory() {
        let refusals = refusals();
        let now = Instant::now();
        for client in 0..1_000_000u32 {
            let key = refusals.hasher.hash_one(client).max(1);
            assert!(!refusals.is_one_too_many(key, &DROP, now + Duration::from_micros(u64::from(client))));
        }
        assert_eq!(refusals.clients.made(), SHARDS * SLOTS);
    }
}
