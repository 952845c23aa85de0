//! What the watches said, as facts: one table a watch, folded object by object. No clock is read and nothing is asked for
//! here.
//!
//! An object that cannot be read keeps its last good state until it is deleted. A list that begins again deletes nothing
//! before it is complete. Until every watch's first list is complete there are no facts: half a list would take down what
//! stands in the other half.

mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::follow::{News, WatchId};
use super::references::{References, Referred};
use crate::model::class_rule::ClassRule;
use crate::model::facts::{ConfigMapFacts, Facts, IngressFacts, NamespaceFacts};
use crate::model::objects::Objects;
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;
use crate::sources::document::{Identity, Object, Read};
use crate::sources::fold::{self, fold};
use crate::sources::parse::secret::date_warning;
use table::{Entry, Table};

/// A kind that the agent can do without holds up the first facts for so long where the API server refuses it. Not at once: one
/// that is just starting knows nobody's rights.
const REFUSED: Duration = Duration::from_secs(5);
/// Of ten thousand Secrets that may not be read, people are shown so many.
const SHOWN: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Tables {
    watches: BTreeMap<WatchId, Table>,
    /// Watches whose first list is not complete.
    unsettled: BTreeSet<WatchId>,
    /// Watches that fail.
    failing: BTreeSet<WatchId>,
    facts: Facts,
    changed: bool,
    /// By object: few have any.
    notes: BTreeMap<Identity, Vec<Rejection>>,
    rejections_changed: bool,
    references: References,
    seed: Seed,
    /// The ConfigMap that options name for settings.
    settings: Option<ObjectName>,
}

/// Whether saved facts stand in for what was not listed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seed {
    /// Not looked for.
    #[default]
    Unknown,
    None,
    /// Saved at this time.
    Of(SystemTime),
    /// Everything was listed once.
    Over,
}

impl Tables {
    /// `rule`: whose Secrets and ConfigMaps are of use; `settings`: the ConfigMap that may name more.
    pub(super) fn new(rule: ClassRule, settings: Option<ObjectName>) -> Self {
        Self { references: References::new(rule), settings, ..Self::default() }
    }

    /// `words` name it for people. `object` and `namespace` are empty where it is about all of them.
    pub(super) fn add(&mut self, id: WatchId, kind: &'static str, words: String, namespace: &str, object: &str) {
        let table = Table {
            kind,
            words,
            namespace: namespace.to_owned(),
            object: object.to_owned(),
            listed: false,
            round: 0,
            entries: HashMap::new(),
            trouble: None,
            failing_since: None,
            given_up: false,
            referred: false,
        };
        self.watches.insert(id, table);
        self.mark(id);
    }

    /// The watch is about an object that others refer to: one that may not be read is its owner's trouble, and holds nobody up.
    pub(super) fn referred(&mut self, id: WatchId) {
        if let Some(table) = self.watches.get_mut(&id) {
            table.referred = true;
        }
        self.mark(id);
    }

    /// Whether the API server answers at all is asked like a watch of nothing, whose list is complete.
    pub(super) fn add_question(&mut self, id: WatchId) {
        self.add(id, "", String::new(), "", "");
        self.complete(id);
        self.mark(id);
    }

    /// The watch has ended because nobody wants its objects any more.
    pub(super) fn drop_watch(&mut self, id: WatchId) {
        let Some(table) = self.watches.remove(&id) else { return };
        self.mark(id);
        for (name, entry) in table.entries {
            self.forget(&Identity { kind: table.kind, name }, entry.object.as_ref());
        }
    }

    /// Takes what a watch says at the time `now`. A watch that was dropped is not listened to any more.
    pub(super) fn take(&mut self, id: WatchId, news: News, now: SystemTime) {
        let Some(table) = self.watches.get_mut(&id) else { return };
        match news {
            News::Answers => {
                table.trouble = None;
                table.failing_since = None;
            }
            News::Begun => table.round += 1,
            News::Complete => self.complete(id),
            News::Listed(read) | News::Changed(read) => self.put(id, *read),
            News::Gone(name) => self.remove(id, name),
            News::Fails(trouble) => {
                let since = *table.failing_since.get_or_insert(now);
                let lasts = now.duration_since(since).is_ok_and(|lasts| lasts >= REFUSED);
                table.given_up |= table.kind == "VirtualIPPool" && trouble.stays && lasts;
                table.trouble = Some(trouble);
                if table.referred {
                    self.unreadable(id);
                }
            }
        }
        self.mark(id);
    }

    /// The facts, if there are any yet and they are others than those handed out last.
    pub(super) fn publish(&mut self, now: SystemTime) -> Option<Arc<Facts>> {
        if self.is_complete() {
            self.seed = Seed::Over;
        }
        if self.facts.revision == 0 && !self.is_complete() && self.saved_at().is_none() {
            return None;
        }
        if std::mem::take(&mut self.rejections_changed) {
            let mut rejections: Vec<Rejection> = self.notes.values().flatten().cloned().collect();
            rejections.extend(self.facts.certificates.iter().filter_map(|c| date_warning(c, now)));
            self.changed |= fold::tell(&mut self.facts, rejections);
        }
        if !std::mem::take(&mut self.changed) && self.facts.revision > 0 {
            return None;
        }
        self.facts.revision += 1;
        Some(Arc::new(self.facts.clone()))
    }

    /// Certificates expire without an event.
    pub(super) fn time_passed(&mut self) {
        self.rejections_changed = true;
    }

    /// Whether every watch has its first list. A Secret that may not be read holds nobody up but its owner.
    pub(super) fn is_complete(&self) -> bool {
        !self.watches.is_empty() && self.unsettled.is_empty()
    }

    /// Whether the facts are the cluster's own in every part.
    pub(super) fn is_current(&self) -> bool {
        self.seed == Seed::Over
    }

    pub(super) fn is_failing(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Whether saved facts would be of use.
    pub(super) fn wants_seed(&self) -> bool {
        self.seed == Seed::Unknown
    }

    /// There are none.
    pub(super) fn without_seed(&mut self) {
        self.seed = Seed::None;
    }

    pub(super) fn saved_at(&self) -> Option<SystemTime> {
        match self.seed {
            Seed::Of(at) => Some(at),
            _ => None,
        }
    }

    /// What the first facts wait for, in words. Of very many only some.
    pub(super) fn waits_for(&self) -> Vec<String> {
        let tables = self.unsettled.iter().filter_map(|id| self.watches.get(id));
        let mut words: Vec<_> = tables.take(SHOWN).map(|t| t.words.clone()).collect();
        if let Some(more) = self.unsettled.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            words.push(format!("{more} more"));
        }
        words
    }

    /// What is in the way, in words, and since when. Of very many only some.
    pub(super) fn troubles(&self) -> (Vec<String>, Option<SystemTime>) {
        let failing = || self.failing.iter().filter_map(|id| self.watches.get(id));
        let mut texts: Vec<_> = failing().filter_map(Table::told).take(SHOWN).collect();
        texts.sort();
        texts.dedup();
        (texts, failing().filter_map(|t| t.failing_since).min())
    }

    /// Those that a label selector chose, as far as they are known.
    pub(super) fn namespaces(&self) -> &Objects<NamespaceFacts> {
        &self.facts.namespaces
    }

    /// A Secret that options name is in use whatever the Ingresses say.
    pub(super) fn refer(&mut self, secret: &ObjectName) {
        self.references.refer((Referred::Secret, secret));
    }

    /// Objects whose use began or ended since the last call, and whether they are in use now.
    pub(super) fn touched(&mut self, kind: Referred) -> Vec<(ObjectName, bool)> {
        self.references.touched(kind)
    }

    /// Objects that were known earlier, for the watches that have not listed theirs. Each list then deletes what is gone.
    pub(super) fn seed(&mut self, objects: Vec<(Identity, Object)>, at: SystemTime) {
        self.seed = Seed::Of(at);
        for (identity, object) in objects {
            let table = self.watches.iter().find(|(_, t)| !t.listed && t.holds(&identity)).map(|(id, _)| *id);
            let Some(id) = table else { continue };
            let known = self.watches.get(&id).is_some_and(|t| t.entries.contains_key(&identity.name));
            if !known {
                let name = identity.name.clone();
                self.put(id, Read { identity, object: Ok(object), notes: Vec::new() });
                if let Some(entry) = self.watches.get_mut(&id).and_then(|t| t.entries.get_mut(&name)) {
                    // As of no list: the next one to be complete confirms it or deletes it.
                    entry.round = 0;
                }
            }
        }
    }

    fn mark(&mut self, id: WatchId) {
        let in_set = |set: &mut BTreeSet<WatchId>, yes: bool| if yes { set.insert(id) } else { set.remove(&id) };
        let table = self.watches.get(&id);
        in_set(&mut self.unsettled, table.is_some_and(|t| !t.is_settled()));
        in_set(&mut self.failing, table.is_some_and(|t| t.trouble.is_some()));
    }

    fn put(&mut self, id: WatchId, read: Read) {
        let Some(table) = self.watches.get_mut(&id) else { return };
        let before = table.entries.remove(&read.identity.name).and_then(|e| e.object);
        let mut notes = read.notes;
        let after = match read.object {
            // An equal result keeps the old `Arc`, which is how the plan sees that nothing changed.
            Ok(object) => Some(before.clone().filter(|b| *b == object).unwrap_or(object)),
            Err(mut rejection) => {
                if before.is_some() {
                    rejection.add("; its last good state keeps serving");
                }
                notes.push(rejection);
                before.clone()
            }
        };
        table.entries.insert(read.identity.name.clone(), Entry { object: after.clone(), round: table.round });
        self.settle(&read.identity, before.as_ref(), after.as_ref());
        self.note(&read.identity, notes);
    }

    fn remove(&mut self, id: WatchId, name: ObjectName) {
        let Some(table) = self.watches.get_mut(&id) else { return };
        if let Some(entry) = table.entries.remove(&name) {
            let identity = Identity { kind: table.kind, name };
            self.forget(&identity, entry.object.as_ref());
        }
    }

    fn complete(&mut self, id: WatchId) {
        let Some(table) = self.watches.get_mut(&id) else { return };
        table.listed = true;
        let (kind, round, referred) = (table.kind, table.round, table.referred);
        let gone: Vec<_> = table.entries.extract_if(|_, entry| entry.round != round).collect();
        if referred {
            // It was not there while it could not be read, either.
            let name = ObjectName::new(table.namespace.clone(), table.object.clone());
            if !table.entries.contains_key(&name) {
                self.note(&Identity { kind, name }, Vec::new());
            }
        }
        for (name, entry) in gone {
            self.forget(&Identity { kind, name }, entry.object.as_ref());
        }
    }

    /// Its owner is told where it was never read. One that was serves on, and the trouble is told as that of any watch.
    fn unreadable(&mut self, id: WatchId) {
        let Some(table) = self.watches.get(&id) else { return };
        let Some(trouble) = table.trouble.as_ref().filter(|t| t.stays && table.entries.is_empty()) else { return };
        let name = ObjectName::new(table.namespace.clone(), table.object.clone());
        let origin = crate::model::facts::Origin { name: name.clone(), ..Default::default() };
        let (kind, rejection) = (table.kind, origin.reject(table.kind, "", trouble.text.clone()));
        self.note(&Identity { kind, name }, vec![rejection]);
    }

    fn forget(&mut self, identity: &Identity, before: Option<&Object>) {
        self.settle(identity, before, None);
        self.note(identity, Vec::new());
    }

    fn settle(&mut self, identity: &Identity, before: Option<&Object>, after: Option<&Object>) {
        let changed = fold(&mut self.facts, &identity.name, before, after);
        self.changed |= changed;
        if changed && identity.kind == "Secret" {
            self.rejections_changed = true;
        }
        match identity.kind {
            "Ingress" if changed => {
                self.references.ingress_changed(ingress(before), ingress(after), &self.facts.classes);
            }
            "ConfigMap" if changed && self.settings.as_ref() == Some(&identity.name) => {
                self.references.settings_changed(config_map(before), config_map(after));
            }
            "IngressClass" if changed => self.references.classes_changed(&self.facts),
            _ => {}
        }
    }

    fn note(&mut self, identity: &Identity, notes: Vec<Rejection>) {
        if self.notes.get(identity).map_or(notes.is_empty(), |before| *before == notes) {
            return;
        }
        self.rejections_changed = true;
        if notes.is_empty() {
            self.notes.remove(identity);
        } else {
            self.notes.insert(identity.clone(), notes);
        }
    }
}

fn ingress(object: Option<&Object>) -> Option<&IngressFacts> {
    match object {
        Some(Object::Ingress(ingress)) => Some(ingress),
        _ => None,
    }
}

fn config_map(object: Option<&Object>) -> Option<&ConfigMapFacts> {
    match object {
        Some(Object::ConfigMap(map)) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
