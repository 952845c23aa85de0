//! What the files of a directory say, as facts: knows which file said what, keeps the last good state of what has become
//! unreadable, and hands out an `Arc` again where nothing changed. No file is opened here and no clock is read.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use super::SourceOptions;
use super::document::{self, Contents, Identity, Object, file_fault, split};
use super::entries::{Entries, Entry};
use super::fold::{self, fold};
use super::parse::secret::date_warning;
use crate::model::facts::{Facts, Origin};
use crate::model::rejection::Rejection;

#[derive(Debug, Default)]
pub struct Store {
    options: SourceOptions,
    files: BTreeMap<String, File>,
    claims: BTreeMap<Identity, Claim>,
    /// Objects that more than one file names.
    disputed: BTreeSet<Identity>,
    facts: Facts,
    changed: bool,
}

/// Which files name an object. The first by name that has a good state of it is believed.
#[derive(Debug, Default)]
struct Claim {
    /// Sorted; nearly always one.
    files: Vec<String>,
    believed: Option<Object>,
}

#[derive(Debug, Default)]
struct File {
    documents: Vec<Parsed>,
    entries: Entries,
    rejections: Vec<Rejection>,
}

/// A document and what its text was, as a hash: a document that did not change is not parsed again.
#[derive(Debug)]
struct Parsed {
    hash: u64,
    contents: Arc<Contents>,
}

impl Store {
    pub fn new(options: SourceOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// The file now has this text, or cannot be read for this reason (and then keeps all that it said).
    pub fn put(&mut self, name: &str, text: Result<&str, String>) {
        let mut old = self.files.remove(name).unwrap_or_default();
        let mut file = File::default();
        match text {
            Ok(text) => {
                file.documents = self.parse(name, text, std::mem::take(&mut old.documents));
                file.collect(&mut old, name);
            }
            Err(reason) => {
                file.entries = std::mem::take(&mut old.entries);
                let kept = kept_note(file.entries.identities());
                file.rejections.push(file_fault(name, reason + &kept));
            }
        }
        let touched: BTreeSet<Identity> =
            old.entries.into_identities().chain(file.entries.identities().cloned()).collect();
        self.files.insert(name.to_owned(), file);
        for identity in touched {
            self.settle(name, &identity);
        }
    }

    /// The file is gone, and with it what it said.
    pub fn remove(&mut self, name: &str) {
        let Some(file) = self.files.remove(name) else {
            return;
        };
        for identity in file.entries.into_identities() {
            self.settle(name, &identity);
        }
    }

    /// The facts, if they are others than those handed out last. `faults` are about the directory itself.
    pub fn publish(&mut self, now: SystemTime, faults: &[Rejection]) -> Option<Arc<Facts>> {
        let mut rejections: Vec<Rejection> = faults.to_vec();
        rejections.extend(self.files.values().flat_map(|f| &f.rejections).cloned());
        rejections.extend(self.disputed.iter().flat_map(|identity| self.duplicates(identity)));
        rejections.extend(self.facts.certificates.iter().filter_map(|c| date_warning(c, now)));
        self.changed |= fold::tell(&mut self.facts, rejections);
        if !std::mem::take(&mut self.changed) && self.facts.revision > 0 {
            return None;
        }
        self.facts.revision += 1;
        Some(Arc::new(self.facts.clone()))
    }

    pub fn file_names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    fn parse(&self, name: &str, text: &str, old: Vec<Parsed>) -> Vec<Parsed> {
        let mut old = old.into_iter();
        let json = name.rsplit('.').next().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        let documents = if json { vec![document::Document { text, line: 1 }] } else { split(text) };
        let parse = |(i, document): (usize, document::Document<'_>)| {
            let mut hasher = DefaultHasher::new();
            // The line is in messages, so it counts.
            (document.line, document.text).hash(&mut hasher);
            let hash = hasher.finish();
            if let Some(before) = old.next().filter(|before| before.hash == hash) {
                return before;
            }
            let place = format!("{name}, document {}", i + 1);
            Parsed { hash, contents: Arc::new(document::parse(document, json, &place, &self.options)) }
        };
        documents.into_iter().enumerate().map(parse).collect()
    }

    /// An object changed in file `name`, appeared or went: decides again which file is believed.
    fn settle(&mut self, name: &str, identity: &Identity) {
        let claimed = self.files.get(name).is_some_and(|f| f.entries.get(identity).is_some());
        let claim = self.claims.entry(identity.clone()).or_default();
        match claim.files.binary_search_by(|file| file.as_str().cmp(name)) {
            Err(at) if claimed => {
                claim.files.reserve_exact(1);
                claim.files.insert(at, name.to_owned());
            }
            Ok(at) if !claimed => drop(claim.files.remove(at)),
            _ => {}
        }
        if claim.files.len() > 1 {
            self.disputed.insert(identity.clone());
        } else {
            self.disputed.remove(identity);
        }
        let good = claim.files.iter().find_map(|f| self.files.get(f)?.entries.get(identity)?.object.clone());
        self.changed |= fold(&mut self.facts, &identity.name, claim.believed.as_ref(), good.as_ref());
        claim.believed = good;
        if claim.files.is_empty() {
            self.claims.remove(identity);
        }
    }

    /// Every file but the first that names an object hears of it.
    fn duplicates(&self, identity: &Identity) -> Vec<Rejection> {
        let files = self.claims.get(identity).into_iter().flat_map(|c| &c.files);
        let mut entries = files.filter_map(|f| self.files.get(f)?.entries.get(identity));
        let Some(first) = entries.next() else {
            return Vec::new();
        };
        entries.map(|later| duplicate(identity, &later.place, &first.place)).collect()
    }
}

fn duplicate(identity: &Identity, place: &str, first: &str) -> Rejection {
    let origin = Origin { name: identity.name.clone(), place: place.to_owned(), ..Origin::default() };
    origin.reject(identity.kind, "metadata.name", format!("is in {first} already, and that one is used"))
}

impl File {
    /// Entries and rejections from the documents, with the last good state of what cannot be read now.
    fn collect(&mut self, old: &mut File, name: &str) {
        let mut unreadable = false;
        let mut unknown: BTreeMap<String, Rejection> = BTreeMap::new();
        let mut faults = Vec::new();
        for contents in self.documents.iter().map(|d| Arc::clone(&d.contents)).collect::<Vec<_>>() {
            unreadable |= contents.unreadable;
            faults.extend(contents.faults.iter().cloned());
            for rejection in &contents.unknown {
                unknown.entry(rejection.kind.clone()).or_insert_with(|| rejection.clone());
            }
            for read in &contents.objects {
                self.rejections.extend(read.notes.iter().cloned());
                self.take(read, old);
            }
        }
        if unreadable {
            // Nobody knows which object the broken text meant: whatever this file said before and does not say now may be
            // it, and an object is deleted by deleting it, not by a typing error.
            let kept = old.entries.take_if(|identity| self.entries.get(identity).is_none());
            let note = kept_note(kept.iter().map(|(identity, _)| identity));
            for (identity, entry) in kept {
                self.entries.insert(identity, entry);
            }
            if let Some(fault) = faults.iter_mut().find(|f| f.kind == "File") {
                fault.add(&note);
            } else if !note.is_empty() {
                faults.push(file_fault(name, format!("an object in it has no name{note}")));
            }
        }
        self.rejections.extend(faults);
        self.rejections.extend(unknown.into_values());
    }

    fn take(&mut self, read: &document::Read, old: &File) {
        let before = old.entries.get(&read.identity);
        let last_good = before.and_then(|entry| entry.object.clone());
        let (place, object) = match &read.object {
            // An equal result keeps the old `Arc`, which is how the plan sees that nothing changed.
            Ok(object) => {
                (object.place().to_owned(), Some(last_good.filter(|g| g == object).unwrap_or_else(|| object.clone())))
            }
            Err(rejection) => {
                let mut rejection = rejection.clone();
                if last_good.is_some() {
                    rejection.add("; its last good state keeps serving");
                }
                self.rejections.push(rejection.clone());
                (rejection.place.clone(), last_good)
            }
        };
        if let Some(first) = self.entries.get(&read.identity) {
            self.rejections.push(duplicate(&read.identity, &place, &first.place));
            return;
        }
        self.entries.insert(read.identity.clone(), Entry { object, place });
    }
}

/// `; Service shop/web and 3 more keep their last good state`.
fn kept_note<'a>(mut kept: impl Iterator<Item = &'a Identity>) -> String {
    let Some(first) = kept.next() else {
        return String::new();
    };
    match kept.count() {
        0 => format!("; {} {} keeps its last good state", first.kind, first.name),
        more => format!("; {} {} and {more} more keep their last good state", first.kind, first.name),
    }
}
