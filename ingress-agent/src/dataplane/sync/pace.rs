//! How many flows may be told a second: a bucket of tokens that a datagram may overdraw. Pure.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Pace {
    /// Tokens a second.
    rate: f64,
    level: f64,
    at: Instant,
}

/// What an idle sender may catch up on, as time.
const BURST: f64 = 0.1;

impl Pace {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate), level: f64::from(rate) * BURST, at: now }
    }

    pub(super) fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.rate).min(self.rate * BURST);
    }

    pub(super) fn is_open(&self) -> bool {
        self.level > 0.0
    }

    pub(super) fn spend(&mut self, tokens: usize) {
        self.level -= tokens as f64;
    }

    /// How long until it is open.
    pub(super) fn wait(&self) -> Duration {
        if self.is_open() { Duration::ZERO } else { Duration::from_secs_f64((1.0 - self.level) / self.rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_time_and_a_burst_is_bounded() {
        let mut now = Instant::now();
        let mut pace = Pace::new(1000, now);
        let mut spent = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            pace.refill(now);
            while pace.is_open() {
                pace.spend(35);
                spent += 35;
            }
        }
        assert!((9900..=10_200).contains(&spent), "{spent} in 10 s");
        pace.refill(now + Duration::from_hours(1));
        let mut burst = 0;
        while pace.is_open() {
            pace.spend(1);
            burst += 1;
        }
        assert_eq!(burst, 100);
        pace.spend(50);
        assert!((0.04..0.06).contains(&pace.wait().as_secs_f64()));
    }
}
