//! Numbers of frontends, pools and backends. Pure: time is an argument. A number that was given back rests before it is given
//! again, so that packets in flight never meet its next owner.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Far longer than any packet is inside a program.
pub(super) const REST: Duration = Duration::from_secs(2);

/// Numbers `1..limit`.
#[derive(Debug)]
pub(super) struct Ids {
    /// The lowest number that was never given.
    fresh: u32,
    limit: u32,
    rest: Duration,
    /// In the order in which they were given back.
    resting: VecDeque<(u32, Instant)>,
    /// So many of the first ones need no rest any more.
    awake: usize,
}

impl Ids {
    pub(super) fn new(limit: u32, rest: Duration) -> Self {
        Self { fresh: 1, limit, rest, resting: VecDeque::new(), awake: 0 }
    }

    /// Takes note of the numbers found in use (sorted, without repetition). The others below them begin their rest.
    pub(super) fn adopt(&mut self, taken: &[u32], now: Instant) {
        self.fresh = taken.last().map_or(1, |last| last + 1);
        let mut used = taken.iter().copied().peekable();
        self.awake = 0;
        self.resting = (1..self.fresh).filter(|id| used.next_if_eq(id).is_none()).map(|id| (id, now)).collect();
    }

    /// A rested number, else a fresh one.
    pub(super) fn take(&mut self, now: Instant) -> Option<u32> {
        let rested = |since: Instant| now.saturating_duration_since(since) >= self.rest;
        if self.awake > 0 || self.resting.front().is_some_and(|(_, since)| rested(*since)) {
            self.awake = self.awake.saturating_sub(1);
            return self.resting.pop_front().map(|(id, _)| id);
        }
        if self.fresh == self.limit {
            return None;
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }

    /// Ends every rest before its time. The caller has made sure that nothing meets the next owner of any of them.
    pub(super) fn wake(&mut self) {
        self.awake = self.resting.len();
    }

    pub(super) fn nobody_rests(&self) -> bool {
        self.resting.is_empty()
    }

    pub(super) fn give(&mut self, id: u32, now: Instant) {
        self.resting.push_back((id, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_back_numbers_rest_first() {
        let t = Instant::now();
        let mut ids = Ids::new(4, REST);
        assert_eq!([ids.take(t), ids.take(t)], [Some(1), Some(2)]);
        ids.give(1, t);
        assert_eq!(ids.take(t), Some(3), "1 still rests");
        assert_eq!(ids.take(t), None, "nothing else is left");
        ids.give(2, t);
        ids.wake();
        ids.give(3, t);
        assert_eq!([ids.take(t), ids.take(t)], [Some(1), Some(2)]);
        assert_eq!(ids.take(t), None, "3 came back after the others were woken");
        assert!(!ids.nobody_rests());
        assert_eq!(ids.take(t + REST), Some(3));
        assert!(ids.nobody_rests());
    }

    #[test]
    fn adopted_numbers_are_not_given_again() {
        let t = Instant::now();
        let mut ids = Ids::new(6, REST);
        ids.adopt(&[2, 4], t);
        let mut given: Vec<_> = std::iter::from_fn(|| ids.take(t + REST)).collect();
        given.sort_unstable();
        assert_eq!(given, [1, 3, 5]);
    }
}
