//! What the data plane is asked to be, and the map sizes that follow from it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use xdp_ebpf::{RING_PAGE_SLOTS, WAYS};

use super::sync::SyncOptions;

/// Settings of [`Dataplane::open`](super::Dataplane::open).
#[derive(Clone, Debug)]
pub struct DataplaneOptions {
    /// Interfaces through which clients and backends are reached.
    pub interfaces: Vec<String>,
    /// Directory on a bpffs, for this agent alone.
    pub pin_path: PathBuf,
    /// Where kernel settings are written: `/proc/sys`, or where a container has the host's.
    pub proc_sys: PathBuf,
    pub xdp_mode: XdpMode,
    pub max_flows: u32,
    pub max_frontends: u32,
    /// Endpoints of all L4 pools; one behind two Services counts twice.
    pub max_backends: u32,
    /// Maglev slots of all L4 pools together, the previous tables in their grace time included: 4 bytes of kernel memory
    /// each. The default holds 1,000 pools of 100 endpoints twice.
    pub ring_slots: u32,
    /// Clients of Services with `sessionAffinity: ClientIP` that are remembered at once, about 130 bytes of kernel memory each; beyond
    /// them those that were away for longest are forgotten, and go by their hash.
    pub max_affinity_clients: u32,
    /// The same on every edge node of a cluster. `None`: that of the adopted maps, else a random one.
    pub hash_seed: Option<u64>,
    /// Source ports towards `nat` backends.
    pub snat_ports: RangeInclusive<u16>,
    /// An idle UDP flow is chosen anew after this.
    pub udp_idle: Duration,
    /// How long packets without a flow record go by the table before a change.
    pub previous_table: Duration,
    /// How long connections to a TCP endpoint that left its pool may go on. Then a client that sends something is reset.
    pub leave: Duration,
    /// With whom flows are shared. `None`: with nobody.
    pub sync: Option<SyncOptions>,
    /// Clients are dropped where somebody says so. Off: those that an earlier agent dropped are let go.
    pub limit_drop: bool,
}

impl Default for DataplaneOptions {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            pin_path: "/sys/fs/bpf/sluicegate".into(),
            proc_sys: "/proc/sys".into(),
            xdp_mode: XdpMode::Auto,
            max_flows: 1_000_000,
            max_frontends: 10_000,
            max_backends: 100_000,
            ring_slots: 33_554_432,
            max_affinity_clients: 65_536,
            hash_seed: None,
            snat_ports: 1024..=65535,
            udp_idle: Duration::from_secs(30),
            previous_table: Duration::from_mins(1),
            leave: Duration::from_secs(10),
            sync: None,
            limit_drop: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// Native, or refuse to start.
    Native,
    Generic,
}

/// Entries of each map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub flow_buckets: u32,
    pub reply_buckets: u32,
    /// Hash entries: what the operator asked for.
    pub frontends: u32,
    /// Array entries: ids rest before they are given again, so that there are some more, and id 0 is nobody's.
    pub frontend_ids: u32,
    pub backend_ids: u32,
    pub ring_pages: u32,
    pub affinity: u32,
}

impl DataplaneOptions {
    pub(super) fn sizes(&self) -> Sizes {
        let ways = WAYS as u32;
        let flow_buckets = self.max_flows.clamp(64, 1 << 30).div_ceil(ways).next_power_of_two();
        Sizes {
            flow_buckets,
            // Two buckets for each of the flow table's: a reply's place can't be evicted, so it has to be there.
            reply_buckets: flow_buckets * 2,
            frontends: self.max_frontends.max(1),
            frontend_ids: ids(self.max_frontends),
            backend_ids: ids(self.max_backends),
            ring_pages: self.ring_slots.div_ceil(RING_PAGE_SLOTS).max(1),
            affinity: self.max_affinity_clients.max(1),
        }
    }
}

/// One in sixteen on top, and at least 64: what a rolling update replaces at once.
fn ids(max: u32) -> u32 {
    max.max(1).saturating_add(max / 16 + 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_defaults_hold_what_they_promise() {
        let sizes = DataplaneOptions::default().sizes();
        assert_eq!(sizes.flow_buckets, 131_072);
        assert_eq!(sizes.reply_buckets, 262_144);
        assert_eq!(sizes.ring_pages, 32_768);
        assert!(sizes.frontend_ids > 10_000 && sizes.backend_ids > 100_000);
    }
}
