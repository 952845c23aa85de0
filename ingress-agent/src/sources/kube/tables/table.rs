//! What one watch has seen.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::model::snapshot::ObjectName;
use crate::sources::document::{Identity, Object};
use crate::sources::kube::follow::Trouble;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) kind: &'static str,
    /// `services`, `secret shop/tls`.
    pub(super) words: String,
    /// Empty: every namespace.
    pub(super) namespace: String,
    /// Empty: every object.
    pub(super) object: String,
    pub(super) listed: bool,
    /// Counts the lists. An entry of an older one is gone when the list is complete.
    pub(super) round: u64,
    pub(super) entries: HashMap<ObjectName, Entry>,
    pub(super) trouble: Option<Trouble>,
    pub(super) failing_since: Option<SystemTime>,
    /// Nobody waits for it any more, although it was never listed.
    pub(super) given_up: bool,
    /// It is about one object that others refer to.
    pub(super) referred: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The last good state; `None`: there never was one.
    pub(super) object: Option<Object>,
    pub(super) round: u64,
}

impl Table {
    /// What is in the way of it, in words.
    pub(super) fn told(&self) -> Option<String> {
        let text = self.trouble.as_ref()?.text.clone();
        let without = self.given_up && !self.listed;
        Some(if without { format!("{text}; until then the agent does without {}", self.words) } else { text })
    }

    pub(super) fn is_settled(&self) -> bool {
        self.listed || self.given_up || (self.referred && self.trouble.as_ref().is_some_and(|t| t.stays))
    }

    pub(super) fn holds(&self, identity: &Identity) -> bool {
        self.kind == identity.kind
            && (self.namespace.is_empty() || self.namespace == identity.name.namespace)
            && (self.object.is_empty() || self.object == identity.name.name)
    }
}
