//! What the model is given (maps, next hops) and what it says of a frame. Values only.

use std::collections::{BTreeMap, BTreeSet};

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{Addr, Backend, Config, Frontend, FrontendInfo, FrontendKey};

/// What the maps hold, as values.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    pub config: Config,
    pub filter: BTreeSet<u32>,
    pub vips: BTreeMap<Addr, u32>,
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// By frontend id: the clients that are admitted where the frontend asks, as an address and how many of its bits count.
    pub sources: BTreeMap<u32, (Addr, u32)>,
    /// Clients in `DROPPED`, and whether their time is still to end.
    pub dropped: BTreeMap<Addr, bool>,
    /// By frontend id.
    pub infos: BTreeMap<u32, FrontendInfo>,
    /// By pool id: the current and the previous ring.
    pub rings: BTreeMap<u32, (Vec<u32>, Vec<u32>)>,
    /// By backend id.
    pub backends: BTreeMap<u32, Backend>,
    /// Who gives the VIPs to this node or takes them, while they are being handed over.
    pub other: Option<[u8; 6]>,
}

/// Where the kernel would send a packet for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Out by the interface it came in by.
    Back { src_mac: [u8; 6], dst_mac: [u8; 6] },
    /// Out by another one that is in `DEVICES`.
    Other { src_mac: [u8; 6], dst_mac: [u8; 6] },
    /// No neighbour, no route, or a device without XDP.
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Tx,
    Redirect,
    Drop,
}

/// What came of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub action: Action,
    pub verdict: Verdict,
    pub frame: Vec<u8>,
}
