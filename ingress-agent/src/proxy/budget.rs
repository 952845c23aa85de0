//! How many requests may be sent a second time: a part of the requests, and a few a second so that a quiet pool has some as
//! well. Without it, backends that are too slow for their load would get two and three times of it. Of one pool in one
//! worker; a request adds to it with a plain addition.

use std::cell::Cell;
use std::time::Instant;

use crate::model::policy::RetryBudget;

/// A retry, in the unit of account: what a request adds is its percentage.
const ONE: u32 = 100;
/// Retries that are saved up at most, and there at the beginning.
const MOST: u32 = 50 * ONE;
/// Added each second.
const SECOND: f64 = 5.0 * ONE as f64;

#[derive(Clone)]
pub(super) struct Budget {
    saved: Cell<u32>,
    filled: Cell<Option<Instant>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: Cell::new(MOST), filled: Cell::new(None) }
    }
}

impl Budget {
    /// A request has come.
    pub(super) fn add(&self, budget: RetryBudget) {
        if let RetryBudget::Percent(percent) = budget {
            self.saved.set((self.saved.get() + u32::from(percent)).min(MOST));
        }
    }

    /// Whether there is one more.
    pub(super) fn take(&self, budget: RetryBudget, now: Instant) -> bool {
        if budget == RetryBudget::Unlimited {
            return true;
        }
        let passed =
            self.filled.replace(Some(now)).map_or(0.0, |then| now.saturating_duration_since(then).as_secs_f64());
        let saved = (f64::from(self.saved.get()) + passed * SECOND).min(f64::from(MOST)) as u32;
        self.saved.set(saved.checked_sub(ONE).unwrap_or(saved));
        saved >= ONE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_part_of_the_requests_and_some_a_second() {
        let (budget, mut now) = (Budget::default(), Instant::now());
        let fifth = RetryBudget::default();
        let taken = |budget: &Budget, now| (0..1000).filter(|_| budget.take(fifth, now)).count();
        assert_eq!(taken(&budget, now), 50, "what is saved");
        for _ in 0..100 {
            budget.add(fifth);
        }
        assert_eq!(taken(&budget, now), 20);
        now += Duration::from_secs(2);
        assert_eq!(taken(&budget, now), 10);
        now += Duration::from_hours(1);
        assert_eq!(taken(&budget, now), 50);
        assert!(budget.take(RetryBudget::Unlimited, now));
    }
}
