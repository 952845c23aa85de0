//! The flow sync in the status, and its lines for people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::sync::{PeerReading, SyncReading};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    pub peers: Vec<PeerStatus>,
    /// Whether this node may take an address from another.
    pub settled: bool,
    pub told: u64,
    pub late_seconds: f64,
    /// Entries and datagrams without effect, by reason; reasons that did not occur are left out.
    pub rejected: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: String,
    /// `in step`, `fetching`, `never heard` or `silent`.
    pub state: String,
    pub silent_seconds: Option<f64>,
    pub taken: u64,
    pub skew_ms: i64,
}

impl SyncStatus {
    pub(super) fn of(r: &SyncReading) -> Self {
        Self {
            peers: r.peers.iter().map(peer).collect(),
            settled: r.settled,
            told: r.told,
            late_seconds: r.late.as_secs_f64(),
            rejected: r.rejected.iter().filter(|r| r.1 > 0).map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        }
    }

    /// Rows with their heading.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let heading = ["EDGE", "STATE", "FLOWS TAKEN", "CLOCK"];
        let row = |p: &PeerStatus| {
            let state = match p.silent_seconds.filter(|_| p.state == "silent") {
                Some(seconds) => format!("silent for {seconds:.0} s"),
                None => p.state.clone(),
            };
            vec![p.address.clone(), state, p.taken.to_string(), format!("{:+} ms", p.skew_ms)]
        };
        std::iter::once(heading.map(str::to_owned).to_vec()).chain(self.peers.iter().map(row)).collect()
    }

    /// What else there is to say, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("{} flows of this node are shared", self.told)];
        if !self.settled {
            notes.push("the first sync is not complete: this node takes no address from another".into());
        }
        if !self.rejected.is_empty() {
            let list: Vec<_> = self.rejected.iter().map(|(why, n)| format!("{why} {n}")).collect();
            notes.push(format!("without effect: {}", list.join(", ")));
        }
        notes
    }
}

fn peer(p: &PeerReading) -> PeerStatus {
    let state = match (p.heard, p.silent_for, p.fetching) {
        (true, _, true) => "fetching",
        (true, _, false) => "in step",
        (false, None, _) => "never heard",
        (false, Some(_), _) => "silent",
    };
    PeerStatus {
        address: p.address.to_string(),
        state: state.into(),
        silent_seconds: p.silent_for.as_ref().map(Duration::as_secs_f64),
        taken: p.taken,
        skew_ms: p.skew_ms,
    }
}
