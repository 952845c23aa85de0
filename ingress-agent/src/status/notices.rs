//! What the owners of objects are told as Events: which, when first, and when again. Pure: the clock is an argument.
//!
//! An Event's name is made from what it says, so that it is the same Event whoever writes it: a new writer that says again
//! what the one before had said finds it there already. What is still so is said again (as a series) before the API server forgets it,
//! an hour after; what goes and comes back soon is not news. kube's `Recorder` is not used: it tells Events apart without their
//! text, and of two things that are wrong with an Ingress its owner would read one.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::model::rejection::{Rejection, Severity};
use crate::model::snapshot::ObjectName;

/// Things told of at once. What is above it waits until others are no longer so; `sluicegate status` shows all.
const MOST: usize = 5000;
/// The API server keeps an Event for an hour (`--event-ttl`).
const AGAIN: Duration = Duration::from_mins(30);
/// What comes back within this time was told already.
const REMEMBER: Duration = Duration::from_mins(10);
/// First wait after a failure.
const FIRST: Duration = Duration::from_secs(2);

/// The longest text of an Event, in bytes.
const LONGEST_NOTE: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Notice {
    /// `Ingress`.
    pub(super) kind: String,
    pub(super) name: ObjectName,
    pub(super) uid: String,
    pub(super) warning: bool,
    /// One word, in `CamelCase`.
    pub(super) reason: &'static str,
    pub(super) note: String,
}

impl Notice {
    pub(super) fn of_rejection(r: &Rejection) -> Self {
        let note = if r.field.is_empty() { r.reason.clone() } else { format!("{}: {}", r.field, r.reason) };
        let reason = match r.severity {
            Severity::Rejected => "Rejected",
            Severity::Warning => "Attention",
        };
        Self {
            kind: r.kind.clone(),
            name: r.name.clone(),
            uid: r.uid.clone(),
            warning: true,
            reason,
            note: plain(&note),
        }
    }

    /// The name of its Event. The same text about the same object has the same name, in each process.
    pub(super) fn event_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        // Names end at 253 bytes, and the part before the last dot may end in neither.
        let name: String = self.name.name.chars().take(230).collect();
        format!("{}.{:016x}", name.trim_end_matches(['.', '-']), hasher.finish())
    }
}

/// One line of at most [`LONGEST_NOTE`] bytes: an object's fields may hold anything.
pub(super) fn plain(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > LONGEST_NOTE {
        let cut = line.floor_char_boundary(LONGEST_NOTE - 4);
        line.truncate(cut);
        line.push_str(" ...");
    }
    line
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    entries: HashMap<Notice, Entry>,
    due: BTreeSet<(Instant, u64)>,
    by_id: BTreeMap<u64, Notice>,
    next_id: u64,
    /// What did not fit.
    pub(super) untold: usize,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// `None`: it is not to be told (again).
    at: Option<Instant>,
    /// How often it was told.
    told: i32,
    failed: u32,
    /// It stays true until it is not; otherwise it happened once.
    lasting: bool,
    /// Since when it is no longer so, or has been told that happened once.
    over: Option<Instant>,
}

impl Notices {
    /// These, and no others, are wrong now. Rejections without a uid are of no object in the cluster.
    pub(super) fn wrong(&mut self, rejections: &[Rejection], more: &[Notice], now: Instant) {
        let of_objects = rejections.iter().filter(|r| !r.uid.is_empty());
        let current: HashSet<Notice> = of_objects.map(Notice::of_rejection).chain(more.iter().cloned()).collect();
        let gone: Vec<Notice> = self
            .entries
            .iter()
            .filter(|(notice, entry)| entry.lasting && entry.over.is_none() && !current.contains(*notice))
            .map(|(notice, _)| notice.clone())
            .collect();
        for notice in gone {
            self.end(&notice, now);
        }
        self.forget(now);
        self.untold = 0;
        for notice in current {
            self.add(&notice, true, now);
        }
    }

    /// The object is gone: what happened to it is nobody's news any more.
    pub(super) fn object_gone(&mut self, kind: &str, name: &ObjectName, now: Instant) {
        let untold = self.by_id.values().filter(|n| n.kind == kind && n.name == *name);
        let untold = untold.filter(|n| self.entries.get(*n).is_some_and(|e| !e.lasting && e.over.is_none()));
        for notice in untold.cloned().collect::<Vec<_>>() {
            self.end(&notice, now);
        }
    }

    /// This has happened.
    pub(super) fn happened(&mut self, notice: &Notice, now: Instant) {
        self.forget(now);
        self.add(notice, false, now);
    }

    /// The next that is to be told, and how often it was told before.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Notice, i32)> {
        let (at, id) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, id));
        let notice = self.by_id.get(&id)?.clone();
        let entry = self.entries.get_mut(&notice)?;
        entry.at = None;
        Some((notice, entry.told))
    }

    /// It was told.
    pub(super) fn told(&mut self, notice: &Notice, now: Instant) {
        let Some(entry) = self.entries.get_mut(notice) else { return };
        (entry.told, entry.failed) = (entry.told.saturating_add(1), 0);
        let again = entry.lasting && entry.over.is_none();
        if !entry.lasting {
            entry.over = Some(now);
        }
        self.plan(notice, again.then_some(now + AGAIN));
    }

    /// It could not be told: tried again later, a few times.
    pub(super) fn failed(&mut self, notice: &Notice, now: Instant) {
        let Some(entry) = self.entries.get_mut(notice) else { return };
        entry.failed += 1;
        let wait = FIRST.saturating_mul(1 << entry.failed.min(9));
        let give_up = !entry.lasting && entry.failed > 5;
        if give_up {
            entry.over = Some(now);
        }
        self.plan(notice, (!give_up).then_some(now + wait));
    }

    /// Whether any is still to be told after it could not be.
    pub(super) fn any_failed(&self) -> bool {
        self.entries.values().any(|entry| entry.failed > 0 && entry.over.is_none())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn add(&mut self, notice: &Notice, lasting: bool, now: Instant) {
        if let Some(entry) = self.entries.get_mut(notice) {
            let came_back = entry.over.take().is_some();
            let untold = entry.told == 0 && entry.at.is_none();
            let again = if lasting && entry.told > 0 { now + AGAIN } else { now };
            if came_back || (untold && !lasting) {
                self.plan(notice, Some(again));
            }
            return;
        }
        if self.entries.len() >= MOST {
            self.untold += 1;
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_id.insert(id, notice.clone());
        self.entries.insert(notice.clone(), Entry { id, at: None, told: 0, failed: 0, lasting, over: None });
        self.plan(notice, Some(now));
    }

    fn end(&mut self, notice: &Notice, now: Instant) {
        let Some(entry) = self.entries.get_mut(notice) else { return };
        (entry.over, entry.failed) = (Some(now), 0);
        self.plan(notice, None);
    }

    fn plan(&mut self, notice: &Notice, at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(notice) else { return };
        if let Some(before) = entry.at.take() {
            self.due.remove(&(before, entry.id));
        }
        entry.at = at;
        self.due.extend(at.map(|at| (at, entry.id)));
    }

    fn forget(&mut self, now: Instant) {
        let full = self.entries.len() >= MOST;
        let old = |e: &Entry| e.at.is_none() && e.over.is_some_and(|over| full || now >= over + REMEMBER);
        let by_id = &mut self.by_id;
        self.entries.retain(|_, entry| {
            let keep = !old(entry);
            if !keep {
                by_id.remove(&entry.id);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests;
