//! Which names are looked up, when, and what is known of each. Time and chance are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::model::facts::Family;
use crate::sources::parse::slice::unfit;

/// Names that are looked up: bounds what one who may write Services can have us ask.
pub(super) const MOST_NAMES: usize = 1000;
/// Questions that are out at once.
pub(super) const AT_ONCE: usize = 16;
/// Addresses that are taken of one answer.
const MOST_ADDRESSES: usize = 64;
/// However short the answer is said to hold: a name with a TTL of 0 must not be asked for without pause.
const SHORTEST: Duration = Duration::from_secs(5);
/// However long: a mistake in a zone file would stay as long.
const LONGEST: Duration = Duration::from_hours(1);
/// The same for an answer that there is no such name or no address (RFC 2308 §5).
const LONGEST_NONE: Duration = Duration::from_mins(5);
/// After failures: doubled for each, from [`SHORTEST`].
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// An answer for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// None: it has none, and that is certain.
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds.
    pub(super) ttl: Duration,
}

/// Answers for IPv4 and IPv6, or why there is none: a server failed or was silent.
pub(super) type Answers = [Result<Found, String>; 2];

#[derive(Debug, Default)]
pub(super) struct Table {
    names: BTreeMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    due: Instant,
    asked: bool,
    failures: u32,
    known: Known,
}

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The last good answers, by family.
    addresses: [BTreeSet<IpAddr>; 2],
    /// A word of warning.
    pub(super) trouble: Option<String>,
    /// Somebody has answered.
    pub(super) answered: bool,
}

impl Known {
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().flatten().copied()
    }
}

impl Table {
    /// These names and no others, at most [`MOST_NAMES`].
    pub(super) fn want(&mut self, names: &BTreeSet<&str>, now: Instant) {
        self.names.retain(|name, _| names.contains(name.as_str()));
        for name in names {
            if !self.names.contains_key(*name) {
                let new = Name { due: now, asked: false, failures: 0, known: Known::default() };
                self.names.insert((*name).to_owned(), new);
            }
        }
    }

    pub(super) fn known(&self, name: &str) -> Option<&Known> {
        self.names.get(name).map(|name| &name.known)
    }

    /// Names to ask for now. They count as asked until [`Table::answered`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let room = AT_ONCE.saturating_sub(self.names.values().filter(|name| name.asked).count());
        let waiting = self.names.iter_mut().filter(|(_, name)| !name.asked && name.due <= now);
        let mut due: Vec<_> = waiting.collect();
        due.sort_by_key(|(_, name)| name.due);
        due.into_iter()
            .take(room)
            .map(|(text, name)| {
                name.asked = true;
                text.clone()
            })
            .collect()
    }

    /// When something is due next, if nothing is answered before.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.names.values().filter(|name| !name.asked);
        waiting.map(|name| name.due).min()
    }

    /// `dice` is from 0 to 1: names that were asked for together are not asked for together for ever. Returns whether something is
    /// known that was not.
    pub(super) fn answered(&mut self, text: &str, answers: &Answers, now: Instant, dice: f64) -> bool {
        // It may have been given up meanwhile.
        let Some(name) = self.names.get_mut(text) else { return false };
        name.asked = false;
        let before = name.known.clone();
        let known = &mut name.known;
        known.trouble = None;
        let (mut holds, mut refused) = (LONGEST, BTreeSet::<&IpAddr>::new());
        let mut failure = None;
        for ((answer, addresses), family) in answers.iter().zip(&mut known.addresses).zip(Family::BOTH) {
            match answer {
                Ok(found) => {
                    known.answered = true;
                    let (fit, bad): (Vec<_>, Vec<_>) = found.addresses.iter().partition(|a| !unfit(**a));
                    refused.extend(bad);
                    *addresses = fit.into_iter().take(MOST_ADDRESSES).copied().collect();
                    let longest = if found.addresses.is_empty() { LONGEST_NONE } else { LONGEST };
                    holds = holds.min(found.ttl.clamp(SHORTEST, longest));
                }
                Err(reason) => failure = Some(format!("{reason} ({})", family.name())),
            }
        }
        name.failures = if failure.is_some() { name.failures.saturating_add(1) } else { 0 };
        if let Some(reason) = failure {
            let kept = if known.addresses().next().is_some() { "; what is known of it stays in use" } else { "" };
            known.trouble = Some(format!("`{text}` cannot be resolved: {reason}{kept}"));
            holds = holds.min((SHORTEST * 2_u32.pow((name.failures - 1).min(8))).min(LONGEST_PAUSE));
        } else if let Some(address) = refused.first() {
            known.trouble = Some(format!(
                "`{text}` is {address}, which is no address of a backend (unspecified, loopback, link-local or multicast)"
            ));
        } else if known.addresses().next().is_none() {
            known.trouble = Some(format!("`{text}` has no address"));
        }
        // Never later than the answer holds.
        name.due = now + SHORTEST.max(holds.mul_f64(1.0 - dice / 10.0));
        *known != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str], ttl: u64) -> Found {
        let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        Found { addresses, ttl: Duration::from_secs(ttl) }
    }

    fn failed() -> Result<Found, String> {
        Err("SERVFAIL".to_owned())
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// What is known of `a` after one answer, whether it is new, and in how many seconds it is asked for again.
    #[track_caller]
    fn check(table: &mut Table, now: Instant, answers: &Answers, wanted: &[&str], new: bool, again: u64) -> Instant {
        assert_eq!(table.due(now), ["a"]);
        assert!(table.due(now).is_empty(), "asked once");
        assert_eq!(table.answered("a", answers, now, 0.0), new);
        let known: Vec<String> =
            table.known("a").into_iter().flat_map(Known::addresses).map(|a| a.to_string()).collect();
        assert_eq!(known, wanted);
        assert_eq!(table.next(), Some(now + seconds(again)));
        now + seconds(again)
    }

    #[test]
    fn answers_hold_for_their_time_and_failures_keep_them() {
        let mut table = Table::default();
        let now = Instant::now();
        table.want(&BTreeSet::from(["a"]), now);
        let now = check(&mut table, now, &[failed(), failed()], &[], true, 5);
        let now = check(&mut table, now, &[failed(), failed()], &[], false, 10);
        let now = check(&mut table, now, &[Ok(found(&["10.0.0.1"], 30)), Ok(found(&[], 7))], &["10.0.0.1"], true, 7);
        let now = check(&mut table, now, &[Ok(found(&["10.0.0.1"], 30)), Ok(found(&[], 30))], &["10.0.0.1"], false, 30);
        let now = check(&mut table, now, &[failed(), failed()], &["10.0.0.1"], true, 5);
        // One family fails: its addresses stay, and the other's are followed.
        let both = [Ok(found(&["10.0.0.2"], 0)), Ok(found(&["fd00::1"], 86_400))];
        let now = check(&mut table, now, &both, &["10.0.0.2", "fd00::1"], true, 5);
        let one = [Ok(found(&["10.0.0.3"], 60)), failed()];
        let now = check(&mut table, now, &one, &["10.0.0.3", "fd00::1"], true, 5);
        // It is certain that there is none.
        let now = check(&mut table, now, &[Ok(found(&[], 86_400)), Ok(found(&[], 86_400))], &[], true, 300);
        let loopback = [Ok(found(&["127.0.0.1", "169.254.169.254", "10.0.0.4"], 86_400)), Ok(found(&["::1"], 86_400))];
        check(&mut table, now, &loopback, &["10.0.0.4"], true, 3600);
        assert!(table.known("a").and_then(|k| k.trouble.clone()).is_some_and(|t| t.contains("127.0.0.1")));
    }

    #[test]
    fn names_come_and_go_and_only_some_are_asked_for_at_once() {
        let mut table = Table::default();
        let now = Instant::now();
        let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
        table.want(&names.iter().map(String::as_str).collect(), now);
        let first = table.due(now);
        assert_eq!(first.len(), AT_ONCE);
        table.want(&BTreeSet::from(["n1"]), now);
        assert!(!table.answered("n39", &[failed(), failed()], now, 0.5), "given up");
        assert!(table.known("n39").is_none() && table.known("n1").is_some());
    }
}
