//! How the flow sync goes, as plain values: `dataplane` fills them, `admin` shows them.

use std::net::IpAddr;
use std::time::Duration;

/// A reading of the flow sync. Totals since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReading {
    pub peers: Vec<PeerReading>,
    /// Each peer has told all its flows once, or did not answer. Before that this node must not take an address from another,
    /// since it would not know its connections.
    pub settled: bool,
    /// Flows that peers have from this node now.
    pub told: u64,
    /// Entries sent, counted once for each peer.
    pub sent: u64,
    /// Entries of peers that made or refreshed a record here.
    pub taken: u64,
    /// Entries of peers about which this node knew as much or more.
    pub kept: u64,
    /// Records that were freed since a peer said that the flow is over.
    pub deleted: u64,
    /// Datagrams that the kernel did not take.
    pub unsent: u64,
    /// In the last pass: how long after its first second the latest flow was told.
    pub late: Duration,
    /// Datagrams and entries without effect, by reason.
    pub rejected: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReading {
    pub address: IpAddr,
    /// Within the last three seconds.
    pub heard: bool,
    /// `None`: never heard.
    pub silent_for: Option<Duration>,
    /// All its flows are being fetched.
    pub fetching: bool,
    /// They were, once.
    pub complete: bool,
    /// Its entries that had an effect.
    pub taken: u64,
    /// Its clock less ours, in milliseconds.
    pub skew_ms: i64,
}
