//! Addresses that move together from node to node, and how their election stands: `plan` makes the groups, `vip` elects,
//! `admin` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses with one owner at a time among the nodes. Every node makes the same groups of the same facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipGroup {
    /// Number of the virtual router that is elected for them. Never 0. Within one family no two groups have the same.
    pub vrid: u8,
    /// Of both families, never empty. Adverts are sent over IPv4 if there is any IPv4 address, else over IPv6.
    pub addresses: BTreeSet<IpAddr>,
    /// Nodes that may hold them, the preferred one first. Empty: nobody said which nodes there are.
    pub order: Vec<String>,
    /// Of this node, as long as nothing is wrong with it. 0: it may not hold them.
    pub priority: u8,
}

impl VipGroup {
    pub fn key(&self) -> RouterKey {
        RouterKey { vrid: self.vrid, v6: !self.is_v4() }
    }

    pub fn is_v4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }
}

/// A virtual router. The two families have VRIDs of their own (RFC 9568 §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterKey {
    pub vrid: u8,
    /// Whether its adverts go over IPv6. It may have addresses of both families all the same.
    pub v6: bool,
}

/// Whose a virtual router's addresses are, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Here,
    Elsewhere,
    /// Not known yet: what an earlier agent left is to stay as it is.
    Open,
}

/// Of every router that this node stands for election for.
pub type Standings = BTreeMap<RouterKey, Standing>;

/// What this node knows of its own fitness to hold addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Why somebody else should rather hold them. It goes on taking part, as the last resort.
    pub faults: Vec<String>,
    /// Why nobody may find them here.
    pub bans: Vec<String>,
    /// What tracked checks add to the priority, or take away.
    pub weight: i32,
}

/// What an operator orders about one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// This node takes it, whoever has it.
    Here,
    /// This node gives it to whoever comes next.
    Away,
}

/// How the elections stand on this node.
#[derive(Clone, Debug, Default)]
pub struct ElectionReport {
    pub routers: Vec<VirtualRouter>,
    /// Packets without effect, by reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// Adverts that the kernel refused to send.
    pub unsent: u64,
    /// Routers that use a VRID of ours for addresses that are none of ours.
    pub foreign: Vec<ForeignRouter>,
    /// Link-layer addresses of those that have been heard lately as routers of our addresses.
    pub peers: BTreeSet<String>,
    /// Addresses of this node that adverts come from, and where peers send theirs.
    pub speaks: Vec<IpAddr>,
    /// What is not as it should be, such as a missing right to run in real time.
    pub notes: Vec<String>,
    pub draining: bool,
}

/// One virtual router, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    pub vrid: u8,
    pub addresses: BTreeSet<IpAddr>,
    pub order: Vec<String>,
    /// `idle`, `backup`, `active`, `leaving`.
    pub state: &'static str,
    pub since: Instant,
    /// As advertised.
    pub priority: u8,
    /// The last other router that was heard.
    pub other: Option<OtherRouter>,
    pub became_active: u64,
    pub stepped_down: u64,
    pub fenced: u64,
    pub adverts_sent: u64,
    pub adverts_heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherRouter {
    pub address: IpAddr,
    pub priority: u8,
    pub interval: Duration,
    pub heard: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRouter {
    pub vrid: u8,
    pub address: IpAddr,
    pub mac: String,
    pub addresses: Vec<IpAddr>,
    pub heard: Instant,
}
