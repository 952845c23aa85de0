//! How the addresses of this node are held, as plain values: `vip` fills them, `admin` shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// The interface that carries the VIPs, and each VIP that this node was told to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    pub interface: String,
    pub link: LinkState,
    pub addresses: BTreeMap<IpAddr, HeldAddress>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// No interface of that name; looked for again whenever one appears.
    #[default]
    Absent,
    /// Set down by an administrator.
    Down,
    /// Up without a carrier: addresses are added, announcements wait.
    NoCarrier,
    Up,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldAddress {
    /// The kernel has it on the interface.
    pub present: bool,
    /// Announcements sent (a request and a reply, or an advertisement, count as one).
    pub announced: u64,
    /// Why it is not present, or could not be announced.
    pub fault: Option<String>,
    /// Other machines that said lately that it is theirs.
    pub claims: Vec<Claim>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its link-layer address.
    pub mac: String,
    pub since: Instant,
}

impl LinkState {
    /// What follows on "interface eth0 …".
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Absent => "does not exist",
            Self::Down => "is down",
            Self::NoCarrier => "has no carrier",
            Self::Up => "is up",
        }
    }
}

impl HeldAddress {
    /// The machines that claim it, for people.
    pub fn claimed_by(&self) -> Option<String> {
        let macs: Vec<&str> = self.claims.iter().map(|c| c.mac.as_str()).collect();
        (!macs.is_empty()).then(|| macs.join(", "))
    }
}

impl Holding {
    /// Whether all that should be held is held and can be announced.
    pub fn is_complete(&self) -> bool {
        self.addresses.is_empty() || self.link == LinkState::Up && self.addresses.values().all(|a| a.present)
    }
}
