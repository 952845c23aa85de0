//! What clients used of limits that edges share: taken from the proxy and told ten times a second, where there is something to tell, and
//! what peers tell, given to the proxy. Nothing is repeated, and what peers told is not told on: every edge tells every other.

use std::time::{Duration, Instant};

use super::datagram::Draft;
use crate::model::sync::{LimitUse, SharedLimits};

/// Between two tellings: for so long an edge does not know what others let through.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Limits {
    due: Option<Instant>,
    news: Vec<LimitUse>,
    /// Requests.
    pub(super) told: u64,
    pub(super) heard: u64,
    pub(super) left_out: u64,
}

impl Limits {
    /// How long until something may be told.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// Has `send` send what is new; it leaves the draft empty. Without anybody who listens it is forgotten.
    pub(super) fn tell(
        &mut self,
        ends: &SharedLimits,
        listeners: usize,
        now: Instant,
        mut send: impl FnMut(&mut Draft),
    ) {
        if !self.wait(now).is_zero() {
            return;
        }
        self.due = Some(now + EVERY);
        let left_out = (ends.take)(&mut self.news);
        if listeners == 0 {
            return self.news.clear();
        }
        self.left_out += left_out;
        let mut draft = Draft::new();
        for used in self.news.drain(..) {
            self.told += u64::from(used.requests);
            if !draft.push_use(&used) {
                send(&mut draft);
                draft.push_use(&used);
            }
        }
        if !draft.is_empty() {
            send(&mut draft);
        }
    }

    /// Says how many entries are about limits that this node does not have.
    pub(super) fn hear(&mut self, ends: Option<&SharedLimits>, uses: &[LimitUse]) -> u64 {
        let mut unknown = 0;
        for used in uses {
            if ends.is_some_and(|ends| (ends.hear)(used)) {
                self.heard += u64::from(used.requests);
            } else {
                unknown += 1;
            }
        }
        unknown
    }
}

/// Why entries had no effect, for metrics.
pub(super) const UNKNOWN: &str = "unknown_limit";
