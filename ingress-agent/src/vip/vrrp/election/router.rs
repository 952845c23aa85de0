//! One virtual router of this node, as the election knows it.

use std::net::IpAddr;
use std::time::Instant;

use crate::model::election::VipGroup;
use crate::vip::vrrp::machine::{MISSED, Machine};

#[derive(Debug)]
pub(super) struct Router {
    pub(super) group: VipGroup,
    pub(super) advertised: Vec<IpAddr>,
    pub(super) machine: Machine,
    /// Another router was heard that has these addresses.
    pub(super) heard: bool,
    /// The link-layer address of the last one.
    pub(super) from: [u8; 6],
    /// Whose the addresses are has been settled once since the start.
    pub(super) settled: bool,
}

impl Router {
    /// Who else had the addresses until just now or has them from now on, by its adverts: whoever has been silent for as long as the dead
    /// are is not asked for its connections. Nor is one that speaks by the virtual router's own address (RFC 9568 §7.3), which moves with it.
    pub(super) fn counterpart(&self, now: Instant) -> Option<[u8; 6]> {
        let other = self.machine.other()?;
        let lives = now < other.at + other.interval * MISSED;
        (lives && !self.from.starts_with(&[0, 0, 0x5e, 0])).then_some(self.from)
    }
}
