//! `load-balance: ewma`: how long a backend takes to answer, as an average that forgets. ingress-nginx's figures: what is ten seconds old weighs
//! 1/e. Each worker has its own.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Seconds.
const DECAY: f64 = 10.0;

#[derive(Default)]
pub(super) struct Average {
    seconds: Cell<f64>,
    since: Cell<Option<Instant>>,
}

impl Average {
    /// An answer's head came after `took`, now.
    pub(super) fn observe(&self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let Some(since) = self.since.replace(Some(now)) else { return self.seconds.set(took) };
        let kept = (-now.saturating_duration_since(since).as_secs_f64() / DECAY).exp();
        self.seconds.set(self.seconds.get() * kept + took * (1.0 - kept));
    }

    /// Smaller is better. `None`: nobody has asked it.
    pub(super) fn score(&self, now: Instant) -> Option<f64> {
        let since = self.since.get()?;
        Some(self.seconds.get() * (-now.saturating_duration_since(since).as_secs_f64() / DECAY).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_forgets() {
        let (average, begin) = (Average::default(), Instant::now());
        assert_eq!(average.score(begin), None);
        average.observe(Duration::from_secs(1), begin);
        let at = |seconds: u64| average.score(begin + Duration::from_secs(seconds)).expect("known");
        assert!((at(0) - 1.0).abs() < 0.001 && (at(10) - 0.368).abs() < 0.001);
        // After ten seconds a new figure weighs 63 %.
        average.observe(Duration::ZERO, begin + Duration::from_secs(10));
        assert!((at(10) - 0.368).abs() < 0.001, "{}", at(10));
    }
}
