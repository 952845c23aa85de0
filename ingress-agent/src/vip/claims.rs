//! Other machines that say that an address of ours is theirs: who, since when, and when the log hears of it. Pure: the clock is an
//! argument. Whoever sends claims by the thousand, each in another name, is bounded here.

use std::time::{Duration, Instant};

use super::frame::Mac;

/// Machines remembered for one address at once: enough for a pair that is replaced while it serves.
const MOST: usize = 4;
/// A machine that is silent for so long has it no more.
const LASTS: Duration = Duration::from_mins(5);
/// Between two warnings about the same machine.
pub(super) const WARN_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Claim>);

#[derive(Debug)]
struct Claim {
    by: Mac,
    since: Instant,
    last: Instant,
    warned: Instant,
}

impl Claims {
    /// Returns whether the operator is to be told (again).
    pub(super) fn heard(&mut self, by: Mac, now: Instant) -> bool {
        if let Some(claim) = self.0.iter_mut().find(|c| c.by == by) {
            claim.last = now;
            let again = now >= claim.warned + WARN_AGAIN;
            if again {
                claim.warned = now;
            }
            return again;
        }
        let room = self.0.len() < MOST;
        if room {
            self.0.push(Claim { by, since: now, last: now, warned: now });
        }
        room
    }

    /// Nobody has it: whoever was asked did not answer.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn forget(&mut self, now: Instant) {
        self.0.retain(|c| now < c.last + LASTS);
    }

    /// When the next is to be forgotten.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|c| c.last + LASTS).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Mac, Instant)> {
        self.0.iter().map(|c| (c.by, c.since))
    }
}
