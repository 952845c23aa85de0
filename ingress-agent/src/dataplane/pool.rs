//! One pool of one address family as the maps hold it, and the pure part of changing it: which endpoints stay, come and go, and
//! what its Maglev table is made of.

use std::net::SocketAddr;
use std::sync::Arc;

use xdp_ebpf::{Addr, Port, backend_state, forwarding, hash, maglev};

use crate::model::snapshot::{self, Forwarding, PoolName};

/// A pool of the snapshot has two of the data plane when frontends of both families use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolKey {
    pub name: PoolName,
    pub v6: bool,
}

#[derive(Debug)]
pub(super) struct PoolState {
    pub id: u32,
    /// What was applied last. `None`: adopted from the maps, or something of it could not be applied; look again.
    pub source: Option<Arc<snapshot::Pool>>,
    /// Frontends that point here.
    pub frontends: u32,
    /// Sorted by address.
    pub slots: Vec<Slot>,
    /// Fingerprint of what the current table was filled from, ids included. 0 is unknown.
    pub filled_from: u64,
    /// What all nodes must agree on, for the metric.
    pub digest: u64,
}

/// An endpoint with its place in `BACKENDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub address: SocketAddr,
    pub id: u32,
    pub epoch: u32,
    pub forwarding: u8,
    /// [`backend_state`].
    pub state: u8,
    pub weight: u32,
}

impl PoolState {
    pub(super) fn new(id: u32) -> Self {
        Self { id, source: None, frontends: 0, slots: Vec::new(), filled_from: 0, digest: 0 }
    }
}

/// What becomes of the endpoints of a pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Stay with their id; state or weight may differ.
    pub kept: Vec<Slot>,
    /// Of these, the ones whose entry must be written.
    pub restated: Vec<u32>,
    /// Id and epoch are not known yet.
    pub added: Vec<Slot>,
    pub gone: Vec<Slot>,
}

/// Compares what is there (sorted by address) with what should be. An endpoint that changes its way of forwarding is
/// another endpoint: its flows were built for the old way.
pub(super) fn compare(old: &[Slot], pool: &snapshot::Pool, v6: bool) -> Change {
    let mut change = Change::default();
    let mut old = old.iter().peekable();
    for backend in pool.backends.iter().filter(|b| b.address.is_ipv6() == v6) {
        let new = wanted(backend);
        while let Some(gone) = old.next_if(|o| o.address < new.address) {
            change.gone.push(*gone);
        }
        match old.next_if(|o| o.address == new.address) {
            Some(o) if o.forwarding == new.forwarding => {
                if o.state != new.state {
                    change.restated.push(o.id);
                }
                change.kept.push(Slot { id: o.id, epoch: o.epoch, ..new });
            }
            found => {
                change.gone.extend(found);
                change.added.push(new);
            }
        }
    }
    change.gone.extend(old);
    change
}

fn wanted(backend: &snapshot::Backend) -> Slot {
    Slot {
        address: backend.address,
        id: 0,
        epoch: 0,
        forwarding: match backend.forwarding {
            Forwarding::Nat => forwarding::NAT,
            Forwarding::Local => forwarding::LOCAL,
        },
        // Weight 0 takes no new flow either, not even of a client that had one there.
        state: if backend.takes_new() { backend_state::READY } else { backend_state::DRAINING },
        weight: backend.weight,
    }
}

/// The endpoints that take new flows, as Maglev wants them: in the order of their addresses, which all nodes share.
pub(super) fn entries(slots: &[Slot], seed: u64, proto: u8) -> Vec<maglev::Entry> {
    let taking = slots.iter().filter(|s| s.state == backend_state::READY && s.weight > 0);
    taking
        .map(|s| {
            let (addr, port) = wire(s.address);
            maglev::Entry::new(maglev::identity(seed, &addr, port, proto), s.weight, s.id)
        })
        .collect()
}

/// Fingerprint of a table's ingredients: `with_ids` for this node, without for comparing nodes.
pub(super) fn fingerprint(entries: &[maglev::Entry], size: u32, seed: u64, with_ids: bool) -> u64 {
    let mut h = hash::bytes(seed, &size.to_be_bytes());
    for e in entries {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&e.identity.to_be_bytes());
        bytes[8..12].copy_from_slice(&e.weight.to_be_bytes());
        bytes[12..].copy_from_slice(&if with_ids { e.value } else { 0 }.to_be_bytes());
        h = hash::bytes(h, &bytes);
    }
    // 0 means "unknown" in `filled_from`.
    h.max(1)
}

/// Address and port as the ABI has them.
pub(super) fn wire(address: SocketAddr) -> (Addr, Port) {
    (addr(address.ip()), address.port().to_be_bytes())
}

pub(super) fn addr(ip: std::net::IpAddr) -> Addr {
    match ip {
        std::net::IpAddr::V4(v4) => xdp_ebpf::mapped_v4(v4.octets()),
        std::net::IpAddr::V6(v6) => v6.octets(),
    }
}

/// The reverse of [`addr`].
pub(super) fn ip(addr: &Addr) -> std::net::IpAddr {
    std::net::Ipv6Addr::from(*addr).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::{AppProtocol, Backend, BackendState, ObjectName, Pool, PoolScope, Protocol};

    fn pool(backends: &[(&str, BackendState, Forwarding, u32)]) -> Pool {
        Pool {
            name: PoolName {
                service: ObjectName::new("shop", "web"),
                port: 80,
                protocol: Protocol::Tcp,
                scope: PoolScope::All,
            },
            backends: backends
                .iter()
                .map(|(a, state, forwarding, weight)| Backend {
                    address: a.parse().unwrap(),
                    weight: *weight,
                    state: *state,
                    forwarding: *forwarding,
                    node: None,
                })
                .collect(),
            table_size: 251,
            app_protocol: AppProtocol::Http1,
        }
    }

    fn slot(address: &str, id: u32) -> Slot {
        Slot {
            address: address.parse().unwrap(),
            id,
            epoch: id * 10,
            forwarding: forwarding::NAT,
            state: backend_state::READY,
            weight: 1,
        }
    }

    use BackendState::{Draining, Ready};
    use Forwarding::{Local, Nat};

    #[test]
    fn endpoints_keep_their_ids_while_they_live() {
        let old = [slot("10.0.0.1:80", 1), slot("10.0.0.2:80", 2), slot("10.0.0.4:80", 4)];
        let new = pool(&[
            ("10.0.0.1:80", Ready, Nat, 1),
            ("10.0.0.3:80", Ready, Nat, 1),
            ("10.0.0.4:80", Draining, Nat, 1),
            ("[fd00::1]:80", Ready, Nat, 1),
        ]);
        let change = compare(&old, &new, false);
        assert_eq!(change.kept.iter().map(|s| (s.id, s.epoch)).collect::<Vec<_>>(), [(1, 10), (4, 40)]);
        assert_eq!(change.restated, [4]);
        assert_eq!(change.added.iter().map(|s| s.address.to_string()).collect::<Vec<_>>(), ["10.0.0.3:80"]);
        assert_eq!(change.gone, [old[1]]);
        assert_eq!(compare(&[], &new, true).added.len(), 1, "the other family has its own");
    }

    #[test]
    fn another_way_of_forwarding_is_another_endpoint() {
        let old = [slot("10.0.0.1:80", 1)];
        let change = compare(&old, &pool(&[("10.0.0.1:80", Ready, Local, 1)]), false);
        assert_eq!((change.gone.len(), change.added.len(), change.kept.len()), (1, 1, 0));
    }

    #[test]
    fn draining_and_weightless_endpoints_are_in_no_table() {
        let draining = Slot { state: backend_state::DRAINING, ..slot("10.0.0.1:80", 1) };
        let idle = Slot { weight: 0, ..slot("10.0.0.2:80", 2) };
        let entries = entries(&[draining, idle, slot("10.0.0.3:80", 3)], 7, 6);
        assert_eq!(entries.iter().map(|e| e.value).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn the_digest_ignores_ids_and_the_fingerprint_does_not() {
        let table = |id| entries(&[slot("10.0.0.1:80", id)], 7, 6);
        let digest = |id, size| fingerprint(&table(id), size, 7, false);
        assert_eq!(digest(1, 251), digest(2, 251));
        assert_ne!(digest(1, 251), digest(1, 509));
        assert_ne!(fingerprint(&table(1), 251, 7, true), fingerprint(&table(2), 251, 7, true));
    }
}
