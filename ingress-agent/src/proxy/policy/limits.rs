//! Rate limits and limits of requests at one time, for all workers together. The memory is bounded whatever the number of clients: a client
//! that has not asked for longest gives its place, and begins anew when it comes back.

mod shared;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::StatusCode;

use super::places::{Memory, Places};
use crate::model::policy::{Limits, Rate};
use shared::Shared;

const SHARDS: usize = 256;
/// Clients a shard remembers: 64 KiB, made when the shard is first needed.
const SLOTS: usize = 4096;

pub(in crate::proxy) struct Limiter {
    epoch: Instant,
    hasher: RandomState,
    rates: Places<Slot, SHARDS, SLOTS>,
    open: [Mutex<HashMap<u64, u32>>; SHARDS],
    shared: Shared,
}

/// GCRA: the theoretical arrival time of the next request, in nanoseconds since the epoch.
#[derive(Clone, Copy, Default)]
struct Slot {
    arrival: u64,
}

impl Memory for Slot {
    fn age(&self) -> u64 {
        self.arrival
    }
}

impl Slot {
    /// Whether another request may pass. Then it counts.
    fn admits(&mut self, rate: &Rate, now: u64) -> bool {
        let every = rate.every.as_nanos() as u64;
        // Of a limit that was tighter before it may be far away.
        self.arrival = self.arrival.clamp(now, furthest(rate, now));
        if self.arrival - now > every.saturating_mul(u64::from(rate.burst)) {
            return false;
        }
        self.arrival = self.arrival.saturating_add(every);
        true
    }
}

/// How far in the future an arrival may be: twice what a client can use at once. So nobody is refused for longer than it takes to have all
/// of that again, and one period.
fn furthest(rate: &Rate, now: u64) -> u64 {
    let at_once = u64::from(rate.burst) + 1;
    now.saturating_add((rate.every.as_nanos() as u64).saturating_mul(2 * at_once))
}

/// A request under way that is counted.
pub(in crate::proxy) struct Open {
    limiter: Arc<Limiter>,
    key: u64,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            hasher: RandomState::new(),
            rates: Places::default(),
            open: std::array::from_fn(|_| Mutex::default()),
            shared: Shared::default(),
        }
    }
}

impl Limiter {
    /// `Err` is the status of the refusal.
    pub(in crate::proxy) fn admit(
        self: &Arc<Self>,
        limits: &Arc<Limits>,
        client: IpAddr,
        now: Instant,
    ) -> Result<Option<Open>, StatusCode> {
        if limits.exempt.iter().any(|range| range.contains(&client)) {
            return Ok(None);
        }
        let open = match limits.connections {
            Some(most) => Some(self.open(self.key(limits, client, usize::MAX), most).ok_or(limits.connection_status)?),
            None => None,
        };
        for (i, rate) in limits.rates.iter().enumerate() {
            let key = self.key(limits, client, i);
            if !self.rate(key, rate, now) {
                return Err(limits.rate_status);
            }
            if limits.shared {
                self.shared.note(key, limits, i, client);
            }
        }
        Ok(open)
    }

    fn key(&self, limits: &Limits, client: IpAddr, which: usize) -> u64 {
        self.hasher.hash_one((&limits.owner, client, which)).max(1)
    }

    fn rate(&self, key: u64, rate: &Rate, now: Instant) -> bool {
        let now = self.nanoseconds(now);
        self.rates.change(key, |slot| slot.admits(rate, now))
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64 + 1
    }

    fn open(self: &Arc<Self>, key: u64, most: u32) -> Option<Open> {
        let mut open = self.open[key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Open { limiter: Arc::clone(self), key })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.limiter.open[self.key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::snapshot::ObjectName;

    fn limits(every: Duration, burst: u32, connections: Option<u32>) -> Arc<Limits> {
        Arc::new(Limits {
            owner: ObjectName::new("t", "i"),
            shared: false,
            rates: vec![Rate { every, burst }],
            connections,
            exempt: vec!["192.0.2.0/24".parse().expect("a range")],
            rate_status: StatusCode::SERVICE_UNAVAILABLE,
            connection_status: StatusCode::TOO_MANY_REQUESTS,
            drop: None,
        })
    }

    #[test]
    fn a_burst_passes_then_one_each_period() {
        let limiter = Arc::new(Limiter::default());
        let limits = limits(Duration::from_secs(1), 5, None);
        let client = "198.51.100.1".parse().expect("an address");
        let mut now = Instant::now();
        let passed = (0..10).filter(|_| limiter.admit(&limits, client, now).is_ok()).count();
        assert_eq!(passed, 6);
        now += Duration::from_millis(2500);
        assert_eq!((0..10).filter(|_| limiter.admit(&limits, client, now).is_ok()).count(), 2);
        let exempt = "192.0.2.7".parse().expect("an address");
        assert!((0..100).all(|_| limiter.admit(&limits, exempt, now).is_ok()));
    }

    #[test]
    fn a_limit_that_was_widened_does_not_hold_clients_to_the_old_one() {
        let limiter = Arc::new(Limiter::default());
        let (narrow, wide) = (limits(Duration::from_mins(1), 50, None), limits(Duration::from_millis(100), 5, None));
        let client = "198.51.100.1".parse().expect("an address");
        let mut now = Instant::now();
        assert_eq!((0..100).filter(|_| limiter.admit(&narrow, client, now).is_ok()).count(), 51);
        assert!(limiter.admit(&wide, client, now).is_err());
        now += Duration::from_millis(700);
        assert!(limiter.admit(&wide, client, now).is_ok());
    }

    #[test]
    fn millions_of_clients_take_no_more_memory() {
        let limiter = Arc::new(Limiter::default());
        let limits = limits(Duration::from_secs(1), 1, None);
        let now = Instant::now();
        for i in 0..3_000_000_u32 {
            let _ = limiter.admit(&limits, IpAddr::V4(i.into()), now);
        }
        assert_eq!(limiter.rates.made(), SHARDS * SLOTS);
    }

    #[test]
    fn requests_at_one_time_are_counted_until_they_end() {
        let limiter = Arc::new(Limiter::default());
        let limits = limits(Duration::from_nanos(1), 1_000_000, Some(2));
        let client = "198.51.100.1".parse().expect("an address");
        let now = Instant::now();
        let first = limiter.admit(&limits, client, now).expect("one");
        let _second = limiter.admit(&limits, client, now).expect("two");
        assert_eq!(limiter.admit(&limits, client, now).err(), Some(StatusCode::TOO_MANY_REQUESTS));
        drop(first);
        assert!(limiter.admit(&limits, client, now).is_ok());
    }
}
