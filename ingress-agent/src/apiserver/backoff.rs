//! How long to wait before the API server is asked again. Pure but for the caller's chance.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
/// An API server that comes back is found within this time. A hundred nodes with ten watches each then ask it about 130
/// times a second while it is away, all of which end at its closed port.
const LONGEST: Duration = Duration::from_secs(15);

/// Exponential, with the whole of each step left to chance ("full jitter"): nodes that lost the same server at the same
/// moment come back spread over the step, the first one included.
#[derive(Debug)]
pub struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: FIRST }
    }
}

impl Backoff {
    /// It answered.
    pub fn reset(&mut self) {
        self.step = FIRST;
    }

    /// `chance` is from 0 to 1.
    pub fn next(&mut self, chance: f64) -> Duration {
        let wait = self.step.mul_f64(chance.clamp(0.0, 1.0));
        self.step = (self.step * 2).min(LONGEST);
        wait
    }
}

/// From 0 to 1. The standard library seeds each `RandomState` anew; nothing secret hangs on it.
pub fn chance() -> f64 {
    RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..6).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
        assert_eq!(backoff.next(0.5), LONGEST / 2);
        backoff.reset();
        assert_eq!(backoff.next(0.25), FIRST / 4);
    }

    #[test]
    fn nodes_come_back_at_different_times() {
        let waits: Vec<_> = (0..1000).map(|_| Backoff::default().next(chance()).as_millis()).collect();
        for tenth in 0..10 {
            let in_it = waits.iter().filter(|w| (tenth * 100..(tenth + 1) * 100).contains(*w)).count();
            assert!((50..=160).contains(&in_it), "{in_it} of 1000 in tenth {tenth}");
        }
    }
}
