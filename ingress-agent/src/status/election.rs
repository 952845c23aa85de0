//! Who may write: the rules of a Lease, as client-go's `leaderelection` has them. Pure: the clock is an argument.
//!
//! Clocks of two machines are never compared. Whoever does not hold the lease watches whether its record changes, and takes
//! it when it has stayed the same for its whole duration by his own clock. The holder stops by his own clock as well, and
//! earlier: [`DEADLINE`] after the last renewal that he knows to have arrived, counted from before it was sent. What he has
//! under way then must end within the rest.
//!
//! Not a crate: kube-leader-election compares clocks, and kube-lease-manager bounds their difference by an option.

use std::time::{Duration, Instant};

/// How long the lease lasts without a renewal (client-go's default, as the two below).
pub(super) const LASTS: Duration = Duration::from_secs(15);
/// The holder writes for so long after a renewal.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The longest that a request of the holder may take: it has ended when the next one may begin to write.
pub(super) const REQUEST: Duration = Duration::from_secs(5);
/// Between two renewals, and between attempts after one that failed.
pub(super) const RENEW: Duration = Duration::from_secs(4);
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// Between two looks of the others. A hundred nodes then ask twenty times a second.
pub(super) const LOOK: Duration = Duration::from_secs(5);

const _: () = assert!(DEADLINE.as_secs() + REQUEST.as_secs() <= LASTS.as_secs());

/// What the Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty: nobody's, it was given back.
    pub(super) holder: String,
    pub(super) lasts: Duration,
    /// Changes with each renewal; nothing else is read from it.
    pub(super) renewed: String,
    pub(super) transitions: i32,
}

#[derive(Debug)]
pub(super) struct Election {
    me: String,
    /// The record, and since when it is the same.
    seen: Option<(Record, Instant)>,
    /// When the last renewal was sent that arrived.
    renewed: Option<Instant>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The lease is mine: write it anew.
    Renew,
    /// It is free: write my name into it.
    Take,
    /// It is somebody's.
    Wait,
}

impl Election {
    /// `me` must be no other process's name, nor one of an earlier process.
    pub(super) fn new(me: String) -> Self {
        Self { me, seen: None, renewed: None }
    }

    /// The Lease is this; `None`: there is none.
    pub(super) fn look(&mut self, record: Option<Record>, now: Instant) {
        if record.as_ref().is_none_or(|r| r.holder != self.me) {
            self.renewed = None;
        }
        self.seen = match (record, self.seen.take()) {
            (Some(new), Some((old, since))) if new == old => Some((old, since)),
            (new, _) => new.map(|new| (new, now)),
        };
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        match &self.seen {
            None => Turn::Take,
            Some((record, _)) if record.holder == self.me => Turn::Renew,
            Some((record, since)) if record.holder.is_empty() || now >= *since + record.lasts => Turn::Take,
            Some(_) => Turn::Wait,
        }
    }

    /// What to write for [`Turn::Renew`] and [`Turn::Take`], but for the time.
    pub(super) fn record(&self) -> Record {
        let transitions = match &self.seen {
            Some((record, _)) if record.holder == self.me => record.transitions,
            Some((record, _)) => record.transitions.saturating_add(1),
            None => 0,
        };
        Record { holder: self.me.clone(), lasts: LASTS, renewed: String::new(), transitions }
    }

    /// The record was written; `sent` is from before it went out.
    pub(super) fn wrote(&mut self, record: Record, sent: Instant) {
        self.seen = Some((record, sent));
        self.renewed = Some(sent);
    }

    /// It is no longer this process's, whether or not the Lease says so yet.
    pub(super) fn resign(&mut self) {
        self.renewed = None;
    }

    /// Until when this process may write. `None`: not at all.
    pub(super) fn until(&self) -> Option<Instant> {
        Some(self.renewed? + DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, renewed: &str) -> Record {
        Record { holder: holder.into(), lasts: LASTS, renewed: renewed.into(), transitions: 3 }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_free_lease_is_taken_and_a_held_one_is_waited_for() {
        let now = Instant::now();
        let mut e = Election::new("me".into());
        assert_eq!(e.turn(now), Turn::Take, "there is none");
        for (holder, after, turn) in [
            ("other", 0, Turn::Wait),
            ("other", LASTS.as_secs() - 1, Turn::Wait),
            ("other", LASTS.as_secs(), Turn::Take),
            ("", 0, Turn::Take),
            ("me", 0, Turn::Renew),
        ] {
            e.look(None, now);
            e.look(Some(record(holder, "1")), now);
            assert_eq!(e.turn(now + seconds(after)), turn, "{holder:?} after {after} s");
            assert_eq!(e.until(), None, "seeing one's own name is not having written it");
        }
    }

    #[test]
    fn a_renewal_is_noticed_by_its_change_and_not_by_its_time() {
        let now = Instant::now();
        let mut e = Election::new("me".into());
        // The other's clock may run years ahead or behind.
        e.look(Some(record("other", "1970")), now);
        e.look(Some(record("other", "2100")), now + seconds(14));
        assert_eq!(e.turn(now + seconds(28)), Turn::Wait);
        // The same again says nothing new.
        e.look(Some(record("other", "2100")), now + seconds(28));
        assert_eq!(e.turn(now + seconds(29)), Turn::Take);
    }

    #[test]
    fn the_holder_stops_before_another_may_begin() {
        let now = Instant::now();
        let (mut mine, mut theirs) = (Election::new("me".into()), Election::new("other".into()));
        let written = mine.record();
        mine.wrote(written.clone(), now);
        // The other can see it no earlier than it was sent.
        theirs.look(Some(written), now);
        let stops = mine.until().expect("it holds the lease") + REQUEST;
        let begins = (0..60).map(seconds).find(|s| theirs.turn(now + *s) == Turn::Take).expect("some time");
        assert!(stops <= now + begins);
        // Renewals put it off; losing the lease ends it at once.
        mine.wrote(Record { renewed: "2".into(), ..mine.record() }, now + seconds(4));
        assert_eq!(mine.until(), Some(now + seconds(4) + DEADLINE));
        mine.look(Some(record("other", "3")), now + seconds(5));
        assert_eq!(mine.until(), None);
        theirs.wrote(theirs.record(), now);
        theirs.resign();
        assert_eq!(theirs.until(), None);
    }

    #[test]
    fn transitions_count_the_holders() {
        let now = Instant::now();
        let mut e = Election::new("me".into());
        assert_eq!(e.record().transitions, 0);
        e.look(Some(record("other", "1")), now);
        let mine = e.record();
        assert_eq!(mine.transitions, 4);
        e.wrote(mine, now);
        assert_eq!(e.record().transitions, 4);
    }
}
