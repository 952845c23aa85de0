//! What peers were told of each place of the flow table, and what they told us. Pure memory beside the table: 9 bytes a place, and
//! some 90 for each flow that peers have from us, since a record that is gone can no longer say whose it was.

use std::collections::HashMap;

use xdp_ebpf::{WAYS, tag};

use super::datagram::FlowKey;
use super::table::Glance;

/// What is known of a place, as long as its tag is the one that was noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Note {
    /// Nothing yet.
    #[default]
    None,
    /// Peers have the flow from us.
    Told,
    /// A peer has told us, and no packet came here since the word that was noted.
    Theirs,
    /// Peers know that it is closing.
    Closing,
    /// Nothing for peers: its endpoint is on this node, or gone.
    Ours,
}

#[derive(Debug)]
pub(super) struct Ledger {
    tags: Vec<u32>,
    words: Vec<u32>,
    notes: Vec<Note>,
    keys: HashMap<u32, FlowKey>,
}

impl Ledger {
    pub(super) fn new(places: usize) -> Self {
        Self { tags: vec![0; places], words: vec![0; places], notes: vec![Note::None; places], keys: HashMap::new() }
    }

    /// The note of a place, if it is about the flow that is seen there.
    pub(super) fn note(&self, place: usize, seen: Glance) -> Note {
        if self.tags[place] == seen.tag { self.notes[place] } else { Note::None }
    }

    /// Whether nothing is noted of a bucket.
    pub(super) fn is_empty(&self, bucket: usize) -> bool {
        self.tags[bucket * WAYS..(bucket + 1) * WAYS].iter().all(|tag| *tag == tag::FREE)
    }

    /// Whether the flow is a peer's, untouched here.
    pub(super) fn is_theirs(&self, place: usize, seen: Glance) -> bool {
        self.note(place, seen) == Note::Theirs && self.words[place] == seen.word
    }

    /// A flow that peers have from us, if it was at this place and is not what is seen there now.
    pub(super) fn gone(&mut self, place: usize, seen: Glance) -> Option<FlowKey> {
        if self.tags[place] == seen.tag {
            return None;
        }
        let told = self.notes[place] == Note::Told;
        (self.tags[place], self.notes[place]) = (seen.tag, Note::None);
        if told { self.keys.remove(&(place as u32)) } else { None }
    }

    /// Notes something else. A key is kept for [`Note::Told`] only.
    pub(super) fn set(&mut self, place: usize, seen: Glance, note: Note, key: Option<FlowKey>) {
        (self.tags[place], self.words[place], self.notes[place]) = (seen.tag, seen.word, note);
        match key.filter(|_| note == Note::Told) {
            Some(key) => drop(self.keys.insert(place as u32, key)),
            None => drop(self.keys.remove(&(place as u32))),
        }
    }

    /// Forgets a place; returns the flow if peers have it from us.
    pub(super) fn forget(&mut self, place: usize) -> Option<FlowKey> {
        let told = std::mem::take(&mut self.notes[place]) == Note::Told;
        if told { self.keys.remove(&(place as u32)) } else { None }
    }

    /// Flows that peers have from us.
    pub(super) fn told(&self) -> usize {
        self.keys.len()
    }
}
