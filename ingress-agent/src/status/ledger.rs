//! Which objects' status has to be written, and when. Knows what is there (from its own watches, so that nothing is read
//! twice), what is owed, and what is under way. Pure: the clock is an argument.
//!
//! A withdrawal waits a moment: an address that moves from one node to another is announced again within it, and whoever
//! publishes addresses (external-dns) need not take it out and put it back. A status that somebody else keeps changing
//! is set right ever more seldom: two who both insist would otherwise keep the API server busy for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decide::{Entry, Form, IP_MODE, Seen, Write, decide, withdraws};
use super::{PublishedAddress, pool};
use crate::model::snapshot::{ObjectName, Served, ServedObject};

/// Before something is taken out of a status.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Before numbers of a pool are written, so that those of a rollout are one write.
const COUNTS: Duration = Duration::from_secs(1);
/// First wait after a failed write, and after one that somebody undid.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);
/// After so long without a quarrel it is forgotten.
pub(super) const FORGET: Duration = Duration::from_mins(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    Ingress,
    Pool,
}

pub(super) type Key = (Kind, ObjectName);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    seen: BTreeMap<Key, Seen>,
    served: Served,
    announced: BTreeSet<IpAddr>,
    /// Said of Ingresses, instead of their addresses. Empty: those are said.
    published: Vec<Entry>,
    /// Not before this time.
    due: BTreeMap<Key, Instant>,
    /// Being written.
    sent: BTreeSet<Key>,
    /// Writes that failed or were undone: how often, and when last.
    trouble: BTreeMap<Key, (u32, Instant)>,
    /// Withdrawals wait no longer.
    stopping: bool,
    /// In lists that have begun and are not complete.
    unlisted: BTreeSet<Key>,
}

/// One write.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) key: Key,
    pub(super) write: Write,
    /// What was there.
    pub(super) seen: Seen,
}

impl Ledger {
    pub(super) fn new(published: &[PublishedAddress]) -> Self {
        let entry = |published: &PublishedAddress| match published {
            PublishedAddress::Address(address) => Entry::address(*address, ""),
            PublishedAddress::Name(name) => Entry { hostname: name.clone(), ..Entry::default() },
        };
        Self { published: published.iter().map(entry).collect(), ..Self::default() }
    }

    /// What is served and announced from now on.
    pub(super) fn owe(&mut self, served: &Served, announced: BTreeSet<IpAddr>, stopping: bool, now: Instant) {
        let same = Arc::ptr_eq(&served.services, &self.served.services)
            && Arc::ptr_eq(&served.ingresses, &self.served.ingresses)
            && Arc::ptr_eq(&served.pools, &self.served.pools)
            && announced == self.announced
            && stopping == self.stopping;
        if same {
            return;
        }
        (self.served, self.announced, self.stopping) = (served.clone(), announced, stopping);
        let all = std::mem::take(&mut self.seen);
        for (key, seen) in &all {
            self.settle(key, seen, now);
        }
        self.seen = all;
    }

    /// The object is this now. Returns who undoes what we write, if somebody does so again and again: once it may be that the
    /// object is no longer ours and the plan does not know yet.
    pub(super) fn see(&mut self, key: Key, new: Seen, now: Instant) -> Option<String> {
        self.unlisted.remove(&key);
        let before = self.seen.get(&key);
        if before.is_some_and(|b| b.uid == new.uid && b.version > new.version) {
            // From before our own write, whose answer came sooner.
            return None;
        }
        let was_right = before.is_some_and(|b| b.uid == new.uid && self.decide(&key, b).is_none());
        let undone = was_right && self.decide(&key, &new).is_some() && before.is_some_and(|b| b.ours);
        let other = new.other.clone();
        if before.is_some_and(|b| b.uid != new.uid) {
            self.trouble.remove(&key);
        }
        let times = if undone { self.count(&key, now) } else { 0 };
        self.settle(&key, &new, now);
        self.seen.insert(key, new);
        other.filter(|_| times > 1)
    }

    pub(super) fn gone(&mut self, key: &Key) {
        self.unlisted.remove(key);
        self.seen.remove(key);
        self.due.remove(key);
        self.trouble.remove(key);
    }

    /// A list of a kind begins, in one namespace or (empty) in all.
    pub(super) fn begin_list(&mut self, kind: Kind, namespace: &str) {
        let of_list = |key: &&Key| key.0 == kind && (namespace.is_empty() || key.1.namespace == namespace);
        self.unlisted.extend(self.seen.keys().filter(of_list).cloned());
    }

    /// What was not in the list is gone.
    pub(super) fn complete_list(&mut self, kind: Kind, namespace: &str) {
        let of_list = |key: &Key| key.0 == kind && (namespace.is_empty() || key.1.namespace == namespace);
        for key in self.unlisted.extract_if(.., of_list).collect::<Vec<_>>() {
            self.gone(&key);
        }
    }

    /// The next write whose time has come. It counts as under way until [`Ledger::done`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Order> {
        loop {
            let (key, _) = self.due.iter().find(|(_, at)| **at <= now)?;
            let key = key.clone();
            self.due.remove(&key);
            let Some(seen) = self.seen.get(&key) else { continue };
            if let Some(write) = self.decide(&key, seen) {
                let seen = seen.clone();
                self.sent.insert(key.clone());
                return Some(Order { key, write, seen });
            }
        }
    }

    /// The write has ended. `now_is`: what the object is after it; `None`: it failed.
    pub(super) fn done(&mut self, key: &Key, now_is: Option<Seen>, now: Instant) {
        self.sent.remove(key);
        match now_is {
            Some(seen) => {
                if self.seen.get(key).is_some_and(|b| b.version <= seen.version) {
                    self.seen.insert(key.clone(), seen);
                }
            }
            None => drop(self.count(key, now)),
        }
        if let Some(seen) = self.seen.get(key).cloned() {
            self.settle(key, &seen, now);
        }
    }

    /// When [`Ledger::take`] has something again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Whether all is written.
    pub(super) fn is_settled(&self) -> bool {
        self.due.is_empty() && self.sent.is_empty()
    }

    pub(super) fn find(&self, key: &Key) -> Option<&Seen> {
        self.seen.get(key)
    }

    fn count(&mut self, key: &Key, now: Instant) -> u32 {
        let (times, last) = self.trouble.get(key).copied().unwrap_or((0, now));
        let times = if now >= last + FORGET { 0 } else { times };
        let times = times.saturating_add(1);
        self.trouble.insert(key.clone(), (times, now));
        times
    }

    fn decide(&self, key: &Key, seen: &Seen) -> Option<Write> {
        let (list, form) = match key.0 {
            Kind::Service => (&self.served.services, Form { mode: IP_MODE, record: true, instead: &[] }),
            // Its addresses are its class's, and an Ingress has no mode: kube-proxy knows nothing of Ingresses.
            Kind::Ingress => (&self.served.ingresses, Form { mode: "", record: false, instead: &self.published }),
            Kind::Pool => {
                let pools = &self.served.pools;
                let found = pools.binary_search_by(|p| p.name.cmp(&key.1)).ok().and_then(|i| pools.get(i));
                return pool::decide(found, seen);
            }
        };
        let served = find(list, &key.1).map(|o| &*o.addresses);
        decide(form, served, |a| self.announced.contains(a), seen)
    }

    /// Puts the object on the list of what is due, or takes it off.
    fn settle(&mut self, key: &Key, seen: &Seen, now: Instant) {
        if self.sent.contains(key) {
            return;
        }
        let Some(write) = self.decide(key, seen) else {
            self.due.remove(key);
            return;
        };
        let grace = match &write {
            _ if self.stopping => Duration::ZERO,
            Write::Pool(status) if pool::only_counts(status, seen) => COUNTS,
            write if withdraws(write, seen) => GRACE,
            _ => Duration::ZERO,
        };
        let after =
            self.trouble.get(key).filter(|(_, last)| now < *last + FORGET).map_or(Duration::ZERO, |(times, last)| {
                let wait = FIRST.saturating_mul(1 << (times - 1).min(16)).min(LONGEST);
                (*last + wait).saturating_duration_since(now)
            });
        let at = now + grace.max(after);
        // What waits already does not begin to wait anew.
        let waits = self.due.get(key).copied().filter(|before| *before < at && after.is_zero());
        self.due.insert(key.clone(), waits.unwrap_or(at));
    }
}

fn find<'a>(list: &'a [Arc<ServedObject>], name: &ObjectName) -> Option<&'a Arc<ServedObject>> {
    list.binary_search_by(|o| o.name.cmp(name)).ok().and_then(|i| list.get(i))
}

#[cfg(test)]
mod tests;
