//! What the data plane counted and how it is attached, as plain values: `dataplane` fills them, `admin` shows them.

use std::net::{IpAddr, SocketAddr};

use super::snapshot::{Forwarding, FrontendKey, PoolName};

/// A reading of all L4 counters. Totals since the maps were made (they outlive the agent).
#[derive(Clone, Debug, Default)]
pub struct L4Traffic {
    /// (label, meaning, packets) for every verdict, in the order of the ABI.
    pub verdicts: Vec<(&'static str, &'static str, u64)>,
    pub frontends: Vec<(FrontendKey, Counts)>,
    pub backends: Vec<(PoolName, SocketAddr, Counts)>,
    /// Live flow records at the last sweep.
    pub flows: u64,
    pub flow_capacity: u64,
}

/// Packets and bytes (layer 3 upwards) from clients (`rx`) and back (`tx`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub new_flows: u64,
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub interface: String,
    pub index: u32,
    pub mode: AttachMode,
    /// Why it is not native, where it is not.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// After the kernel has built an skb: most of the gain is lost, the behaviour is the same.
    Generic,
}

/// What happens to one L4 tuple, and why: each sentence is a step that the program takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Explanation {
    pub steps: Vec<String>,
    pub frontend: Option<FrontendKey>,
    pub backend: Option<(SocketAddr, Forwarding)>,
    /// Source that the backend sees.
    pub source: Option<(IpAddr, u16)>,
    /// Whether a flow record decided, rather than the table.
    pub from_flow: bool,
}
