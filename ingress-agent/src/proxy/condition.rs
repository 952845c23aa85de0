//! What a worker knows of a pool's endpoints beside the snapshot: which fail their health check, and which are new or back
//! and get their share by and by. Kept also where no request has needed the pool yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::model::snapshot::Pool;

/// The least part of its share that an endpoint in slow start gets (Envoy's `min_weight_percent`).
const FLOOR: f64 = 0.1;

#[derive(Default)]
pub(super) struct Condition {
    pub(super) slow_start: Option<Duration>,
    ill: BTreeSet<SocketAddr>,
    /// When their slow start began.
    since: BTreeMap<SocketAddr, Instant>,
}

impl Condition {
    /// The pool's endpoints have changed: those that take requests now and did not before are new.
    pub(super) fn changed(&mut self, old: &Pool, new: &Pool, now: Instant) {
        let Some(window) = self.slow_start else { return };
        let takers = |pool: &Pool| -> BTreeSet<SocketAddr> {
            let ready = pool.backends.iter().filter(|b| b.takes_new());
            ready.map(|b| b.address).collect()
        };
        let (before, after) = (takers(old), takers(new));
        self.since.retain(|endpoint, since| {
            after.contains(endpoint) && before.contains(endpoint) && now.saturating_duration_since(*since) < window
        });
        for endpoint in after.difference(&before) {
            self.since.insert(*endpoint, now);
        }
    }

    /// What a health check found.
    pub(super) fn found(&mut self, endpoint: SocketAddr, well: bool, now: Instant) {
        if !well {
            self.ill.insert(endpoint);
        } else if self.ill.remove(&endpoint) && self.slow_start.is_some() {
            self.since.insert(endpoint, now);
        }
    }

    pub(super) fn is_ill(&self, endpoint: &SocketAddr) -> bool {
        self.ill.contains(endpoint)
    }

    pub(super) fn since(&self, endpoint: &SocketAddr) -> Option<Instant> {
        self.since.get(endpoint).copied()
    }
}

/// From [`FLOOR`] to 1: in a straight line, as Envoy's with an aggression of 1.
pub(super) fn share(since: Instant, window: Duration, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(since).as_secs_f64();
    (passed / window.as_secs_f64()).clamp(FLOOR, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_in_a_straight_line_from_a_floor() {
        let (now, window) = (Instant::now(), Duration::from_secs(30));
        for (seconds, expected) in [(0, 0.1), (1, 0.1), (3, 0.1), (6, 0.2), (15, 0.5), (30, 1.0), (300, 1.0)] {
            let found = share(now, window, now + Duration::from_secs(seconds));
            assert!((found - expected).abs() < 1e-9, "{seconds} s: {found}");
        }
        // One that is ejected begins when it is back.
        assert!((share(now + window, window, now) - 0.1).abs() < 1e-9);
    }
}
