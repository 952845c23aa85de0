//! How far each room has come: what is applied, what is wrong, when to try again, and whether that is good enough to be
//! called ready. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Until a new generation counts as late. A large change takes a moment; that is no reason to be taken out of service.
const LATE: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// One room that applies snapshots.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) name: &'static str,
    /// Generation in force. 0: none yet.
    pub(super) applied: u64,
    /// Since when.
    pub(super) since: Option<Instant>,
    pub(super) problems: Vec<String>,
    /// Since when a newer generation waits.
    waiting: Option<Instant>,
    retry: Option<(Instant, Duration)>,
}

/// What changed in what a room complains about, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) appeared: Vec<String>,
    pub(super) gone: Vec<String>,
}

impl News {
    /// Into the log.
    pub(super) fn tell(&self, room: &str) {
        for problem in &self.appeared {
            warn!("{room}: {problem}");
        }
        for problem in &self.gone {
            info!("{room}: no longer: {problem}");
        }
    }
}

impl Progress {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, applied: 0, since: None, problems: Vec::new(), waiting: None, retry: None }
    }

    /// A new generation was planned.
    pub(super) fn planned(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
        // What was in the way of the old one may not be in the way of this one.
        self.retry = None;
    }

    /// The room has `generation` in force, with these exceptions.
    pub(super) fn done(&mut self, generation: u64, problems: Vec<String>, now: Instant) -> News {
        if self.applied != generation {
            self.since = Some(now);
        }
        self.applied = generation;
        self.waiting = None;
        self.settle(problems, now)
    }

    /// The room has kept what it had.
    pub(super) fn failed(&mut self, why: String, now: Instant) -> News {
        self.waiting.get_or_insert(now);
        self.settle(vec![why], now)
    }

    fn settle(&mut self, problems: Vec<String>, now: Instant) -> News {
        let news = News {
            appeared: problems.iter().filter(|p| !self.problems.contains(p)).cloned().collect(),
            gone: self.problems.iter().filter(|p| !problems.contains(p)).cloned().collect(),
        };
        self.retry = (!problems.is_empty()).then(|| {
            let pause = self.retry.map_or(RETRY_FIRST, |(_, before)| (before * 2).min(RETRY_LONGEST));
            (now + pause, pause)
        });
        self.problems = problems;
        news
    }

    /// Whether to try again now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry.is_some_and(|(at, _)| now >= at)
    }

    pub(super) fn not_ready(&self, now: Instant) -> Vec<String> {
        let mut reasons: Vec<_> = self.problems.iter().map(|p| format!("{}: {p}", self.name)).collect();
        if reasons.is_empty() && self.applied == 0 {
            reasons.push(format!("{}: nothing applied yet", self.name));
        }
        if reasons.is_empty() && self.waiting.is_some_and(|since| now >= since + LATE) {
            reasons.push(format!("{}: the newest generation is not applied after {} s", self.name, LATE.as_secs()));
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_applied_is_not_ready() {
        let now = Instant::now();
        let mut p = Progress::new("proxy");
        assert_eq!(p.not_ready(now), ["proxy: nothing applied yet"]);
        p.planned(now);
        p.done(1, vec![], now);
        assert_eq!(p.not_ready(now), [""; 0]);
    }

    #[test]
    fn change_under_way_stays_ready_until_it_is_late() {
        let now = Instant::now();
        let mut p = Progress::new("proxy");
        p.done(1, vec![], now);
        p.planned(now);
        assert!(p.not_ready(now + LATE / 2).is_empty());
        assert!(!p.not_ready(now + LATE).is_empty());
        // A second change does not restart the clock.
        p.planned(now + LATE / 2);
        assert!(!p.not_ready(now + LATE).is_empty());
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly() {
        let start = Instant::now();
        let mut p = Progress::new("dataplane");
        p.planned(start);
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..7 {
            p.failed("full".into(), now);
            let pause = (1..100).map(Duration::from_secs).find(|s| p.is_due(now + *s)).expect("some time");
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        // A new generation is tried at once, and starts over.
        p.planned(now);
        p.failed("full".into(), now);
        assert!(p.is_due(now + RETRY_FIRST));
    }

    #[test]
    fn news_is_told_once() {
        let now = Instant::now();
        let mut p = Progress::new("proxy");
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(p.done(1, own(&["a", "b"]), now), News { appeared: own(&["a", "b"]), gone: vec![] });
        assert_eq!(p.done(2, own(&["b", "c"]), now), News { appeared: own(&["c"]), gone: own(&["a"]) });
        assert_eq!(p.done(3, own(&["b", "c"]), now), News::default());
        assert_eq!(p.done(4, vec![], now).gone.len(), 2);
        assert!(!p.is_due(now + RETRY_LONGEST));
    }
}
