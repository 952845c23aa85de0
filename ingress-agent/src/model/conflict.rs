//! What others on the LAN use although it is ours, as one node sees it: `vip` hears it, the agent sums it up, `status` tells the cluster.

use std::net::IpAddr;

/// Each with the link-layer address of the other, as `02:00:00:00:00:66`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conflict {
    /// Another machine says that an address is its own, and this node has it, too.
    Claimed { address: IpAddr, mac: String },
    /// Another machine has the address, and so this node did not add it.
    InUse { address: IpAddr, mac: String },
    /// A VRRP router has a VRID of ours for addresses that are none of ours.
    Vrid { vrid: u8, router: IpAddr, mac: String },
}
