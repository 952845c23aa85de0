//! How the flow sync goes, as plain values: `dataplane` fills them, `admin` shows them. And what the proxy has edges tell each other by it.

use std::fmt;
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
    /// Requests under shared limits that this node let through: those that peers were told of, each once whatever their number, and those
    /// that there was no room for.
    pub limits_told: u64,
    pub limits_left_out: u64,
    /// Those that peers let through, and that count here.
    pub limits_heard: u64,
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

/// A rate limit, by the same name on every edge: a digest of whose it is, and of which of his rates. Long enough that nobody finds two
/// objects with one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId(pub [u8; 16]);

/// Requests of one client that an edge let through under a shared limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUse {
    pub limit: LimitId,
    /// Never an IPv4-mapped one.
    pub client: IpAddr,
    /// Never 0.
    pub requests: u32,
}

/// See [`SharedLimits::take`].
pub type Take = Box<dyn Fn(&mut Vec<LimitUse>) -> u64 + Send + Sync>;

/// The proxy's ends of shared limits, for the thread that speaks with the other edges. Neither waits for anything.
pub struct SharedLimits {
    /// Appends what this node let through since the last call. The answer: how many requests are missing, for lack of room.
    pub take: Take,
    /// Another edge let these through. False: this node has no such limit.
    pub hear: Box<dyn Fn(&LimitUse) -> bool + Send + Sync>,
}

impl fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedLimits")
    }
}
