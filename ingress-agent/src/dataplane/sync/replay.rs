//! Whether a datagram was here before: by the sender's epoch, its sequence number and its clock. Pure.

/// Datagrams that may overtake each other.
const WIDTH: u64 = 1024;
/// How far the sender's clock may be from ours, in milliseconds. Beyond it an old recording could pass for new after we restarted and
/// forgot the sender's epoch; what is younger repeats what peers were told half a minute ago at most.
pub(super) const SKEW_MS: u64 = 30_000;

/// What of one sender was accepted.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    epoch: u64,
    highest: u64,
    /// Bit `n % WIDTH`: number n was seen; of the numbers above `highest - WIDTH`.
    seen: [u64; (WIDTH / 64) as usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// The sender has started anew since.
    Epoch,
    /// Accepted before, or too old to tell.
    Repeated,
    /// Its clock and ours are too far apart.
    Clock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh {
    /// The first of its epoch.
    pub started_anew: bool,
}

impl Window {
    /// Accepts a datagram once. `time` and `now` are milliseconds since 1970.
    pub(super) fn accept(&mut self, epoch: u64, sequence: u64, time: u64, now: u64) -> Result<Fresh, Stale> {
        if time.abs_diff(now) > SKEW_MS {
            return Err(Stale::Clock);
        }
        if epoch < self.epoch || epoch == 0 {
            return Err(Stale::Epoch);
        }
        let started_anew = epoch > self.epoch;
        if started_anew {
            *self = Self { epoch, ..Self::default() };
        }
        if sequence == 0 || self.highest >= WIDTH && sequence <= self.highest - WIDTH {
            return Err(Stale::Repeated);
        }
        if sequence > self.highest {
            // The places between now stand for numbers that nobody has seen.
            for skipped in self.highest + 1..=sequence.min(self.highest.saturating_add(WIDTH)) {
                self.seen[Self::word(skipped)] &= !(1 << (skipped % 64));
            }
            if sequence - self.highest >= WIDTH {
                self.seen = Default::default();
            }
            self.highest = sequence;
        }
        let (word, bit) = (Self::word(sequence), 1 << (sequence % 64));
        if self.seen[word] & bit != 0 {
            return Err(Stale::Repeated);
        }
        self.seen[word] |= bit;
        Ok(Fresh { started_anew })
    }

    fn word(sequence: u64) -> usize {
        (sequence % WIDTH / 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn every_number_passes_once_in_any_order_within_the_window() {
        // A seeded walk against a plain set.
        let (mut window, mut seen, mut random) = (Window::default(), std::collections::BTreeSet::new(), 3u64);
        let mut top = 0u64;
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let step = (random >> 40) % 3000;
            let number = (top + 5).saturating_sub(step).max(1) + if step == 0 { (random >> 20) % 5000 } else { 0 };
            let expected = number + WIDTH > top && seen.insert(number);
            top = top.max(number);
            assert_eq!(window.accept(1, number, NOW, NOW).is_ok(), expected, "{number} below {top}");
        }
    }

    #[test]
    fn a_new_epoch_begins_anew_and_the_old_one_is_over() {
        let mut window = Window::default();
        assert_eq!(window.accept(5, 100, NOW, NOW), Ok(Fresh { started_anew: true }));
        assert_eq!(window.accept(5, 101, NOW, NOW), Ok(Fresh { started_anew: false }));
        assert_eq!(window.accept(6, 1, NOW, NOW), Ok(Fresh { started_anew: true }));
        assert_eq!(window.accept(5, 102, NOW, NOW), Err(Stale::Epoch));
        assert_eq!(window.accept(6, 1, NOW, NOW), Err(Stale::Repeated));
        assert_eq!(window.accept(6, 0, NOW, NOW), Err(Stale::Repeated));
        assert_eq!(window.accept(0, 1, NOW, NOW), Err(Stale::Epoch));
        assert_eq!(window.accept(6, u64::MAX, NOW, NOW), Ok(Fresh { started_anew: false }));
        assert_eq!(window.accept(6, 2, NOW, NOW), Err(Stale::Repeated));
    }

    #[test]
    fn a_clock_that_is_far_away_is_refused_and_changes_nothing() {
        let mut window = Window::default();
        for time in [NOW - SKEW_MS - 1, NOW + SKEW_MS + 1, 0, u64::MAX] {
            assert_eq!(window.accept(9, 1, time, NOW), Err(Stale::Clock));
        }
        assert_eq!(window.accept(1, 1, NOW - SKEW_MS, NOW), Ok(Fresh { started_anew: true }));
    }
}
