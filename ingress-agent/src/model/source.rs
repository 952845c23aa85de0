//! What a source says of itself: how far it has come and what is in its way. For people and metrics; nothing is planned
//! from it.

use std::time::SystemTime;

/// The state of the source that the agent takes its facts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// `the directory /etc/sluicegate/manifests`, `the API server https://10.0.0.1:6443/`.
    pub name: String,
    /// What has to be read before the first facts are complete. Empty: they are.
    pub waits_for: Vec<String>,
    /// What is in the way, for the one who can remove it. Sorted.
    pub troubles: Vec<String>,
    /// Since when changes may have been missed. `None`: everything is followed.
    pub behind_since: Option<SystemTime>,
    /// The facts in force are those that were saved at this time, at least in part.
    pub saved_at: Option<SystemTime>,
}
