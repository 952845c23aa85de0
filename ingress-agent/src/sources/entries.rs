//! The objects of one file. Most files have one, of which a map's node would take more room than all else that is known of it.

use super::document::{Identity, Object};

#[derive(Debug)]
pub(super) struct Entry {
    /// The last good state; `None`: there never was one.
    pub(super) object: Option<Object>,
    pub(super) place: String,
}

/// Sorted by identity.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<(Identity, Entry)>);

impl Entries {
    pub(super) fn get(&self, identity: &Identity) -> Option<&Entry> {
        self.0.get(self.place(identity).ok()?).map(|(_, entry)| entry)
    }

    /// An entry that is there already stays.
    pub(super) fn insert(&mut self, identity: Identity, entry: Entry) {
        if let Err(at) = self.place(&identity) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, (identity, entry));
        }
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter().map(|(identity, _)| identity)
    }

    pub(super) fn into_identities(self) -> impl Iterator<Item = Identity> {
        self.0.into_iter().map(|(identity, _)| identity)
    }

    pub(super) fn take_if(&mut self, wanted: impl Fn(&Identity) -> bool) -> Vec<(Identity, Entry)> {
        self.0.extract_if(.., |(identity, _)| wanted(identity)).collect()
    }

    fn place(&self, identity: &Identity) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(identity))
    }
}
