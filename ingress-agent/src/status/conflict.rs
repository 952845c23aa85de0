//! What strangers on a LAN use of ours: how a node's Lease says it, who is to know, and in which words. Pure.
//!
//! Whoever looks after the address is told: on the VirtualIPPool that it comes from, and on the Services that have it, as one looks at
//! a Service that is not reached. A VRID is the network's matter, and told on the pool alone. Without a pool it is said on Services, else on
//! Ingresses, else on the Node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::ledger::{Key, Kind};
use super::notices::{Notice, plain};
use super::takeover;
use crate::model::conflict::Conflict;
use crate::model::election::VipGroup;
use crate::model::snapshot::{ObjectName, Served, ServedObject};

/// So many of a Lease are read: anybody may have written it.
const MOST: usize = 64;

/// By the nodes that see it.
pub(super) type Conflicts = BTreeMap<Conflict, BTreeSet<String>>;

/// `claimed 203.0.113.10 02:00:00:00:00:66,vrid 51 203.0.113.2 02:00:00:00:00:77`, in order.
pub(super) fn text(conflicts: &BTreeSet<Conflict>) -> String {
    let one = |conflict: &Conflict| match conflict {
        Conflict::Claimed { address, mac } => format!("claimed {address} {mac}"),
        Conflict::InUse { address, mac } => format!("in-use {address} {mac}"),
        Conflict::Vrid { vrid, router, mac } => format!("vrid {vrid} {router} {mac}"),
    };
    conflicts.iter().map(one).collect::<Vec<_>>().join(",")
}

/// What makes no sense is passed over: a newer version may say more.
pub(super) fn read(text: &str) -> BTreeSet<Conflict> {
    text.split(',').take(MOST).filter_map(read_one).collect()
}

fn read_one(text: &str) -> Option<Conflict> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mac, words) = words.split_last()?;
    let is_mac = mac.len() == 17 && mac.split(':').all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok());
    let mac = is_mac.then(|| (*mac).to_owned())?;
    match words {
        ["claimed", address] => Some(Conflict::Claimed { address: address.parse().ok()?, mac }),
        ["in-use", address] => Some(Conflict::InUse { address: address.parse().ok()?, mac }),
        ["vrid", vrid, router] => Some(Conflict::Vrid { vrid: vrid.parse().ok()?, router: router.parse().ok()?, mac }),
        _ => None,
    }
}

/// An object that is told: kind, name, uid.
type Owner = (&'static str, ObjectName, String);

/// Where owners are found.
pub(super) struct Owners<'a> {
    pub(super) served: &'a Served,
    pub(super) groups: &'a [VipGroup],
    /// Of an object that the API server has.
    pub(super) uid: &'a dyn Fn(&Key) -> Option<String>,
}

impl Owners<'_> {
    pub(super) fn notices(&self, conflicts: &Conflicts) -> Vec<Notice> {
        conflicts.iter().flat_map(|(conflict, nodes)| self.notices_of(conflict, nodes)).collect()
    }

    fn notices_of(&self, conflict: &Conflict, nodes: &BTreeSet<String>) -> Vec<Notice> {
        let on = || nodes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (addresses, reason, note) = match conflict {
            Conflict::Claimed { address, mac } => {
                let note = format!(
                    "{address} is held by node {}, and another machine on its LAN, {mac}, says that it has it, too: \
                     some clients reach the wrong one; find the machine and give it another address",
                    on()
                );
                (BTreeSet::from([*address]), "AddressConflict", note)
            }
            Conflict::InUse { address, mac } => {
                let note = format!(
                    "{address} is not added on node {}: another machine on its LAN, {mac}, uses it already; it is asked for \
                     again until it is free",
                    on()
                );
                (BTreeSet::from([*address]), "AddressInUse", note)
            }
            Conflict::Vrid { vrid, router, mac } => {
                let ours = self.elected_by(*vrid, router.is_ipv4());
                // All nodes of the LAN hear it, and one Event is enough.
                let note = format!(
                    "another VRRP router on the LAN, {router} ({mac}), uses VRID {vrid}, which is ours for {}; it is ignored. \
                     Give one of the two another VRID (`--vrrp-vrids`, `--vrrp-vrid`)",
                    list(&ours)
                );
                (ours, "VridConflict", note)
            }
        };
        let of_network = matches!(conflict, Conflict::Vrid { .. });
        let owners = self.owners(&addresses, of_network, nodes);
        let notice = |(kind, name, uid): Owner| Notice {
            kind: kind.to_owned(),
            name,
            uid,
            warning: true,
            reason,
            note: plain(&note),
        };
        owners.into_iter().map(notice).collect()
    }

    fn elected_by(&self, vrid: u8, v4: bool) -> BTreeSet<IpAddr> {
        let group = self.groups.iter().find(|g| g.vrid == vrid && g.is_v4() == v4);
        group.map(|g| g.addresses.clone()).unwrap_or_default()
    }

    fn owners(&self, addresses: &BTreeSet<IpAddr>, of_network: bool, nodes: &BTreeSet<String>) -> Vec<Owner> {
        let pools = self.served.pools.iter().filter(|pool| !pool.uid.is_empty());
        let pools = pools.filter(|pool| addresses.iter().any(|a| pool.ranges.iter().any(|r| r.contains(*a))));
        let mut owners: Vec<Owner> =
            pools.map(|pool| (Kind::Pool.name(), pool.name.clone(), pool.uid.clone())).collect();
        if owners.is_empty() || !of_network {
            owners.extend(self.having(addresses, Kind::Service, &self.served.services));
        }
        if owners.is_empty() {
            owners.extend(self.having(addresses, Kind::Ingress, &self.served.ingresses));
        }
        if owners.is_empty() {
            // As in `takeover`: a Node's Events are found by its name.
            owners.extend(nodes.iter().map(|n| ("Node", ObjectName::new("", n.as_str()), n.clone())));
        }
        owners
    }

    /// The first of those that have one of the addresses: the rest would read the same.
    fn having<'a>(
        &'a self,
        addresses: &'a BTreeSet<IpAddr>,
        kind: Kind,
        objects: &'a [Arc<ServedObject>],
    ) -> impl Iterator<Item = Owner> + 'a {
        let with = objects.iter().filter(|o| o.addresses.iter().any(|a| addresses.contains(a)));
        with.take(takeover::MOST).filter_map(move |o| {
            let uid = (self.uid)(&(kind, o.name.clone()))?;
            Some((kind.name(), o.name.clone(), uid))
        })
    }
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let shown: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
    match (shown.len(), addresses.len() - shown.len()) {
        (0, _) => "other addresses".to_owned(),
        (_, 0) => shown.join(", "),
        (_, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
#[path = "conflict_tests.rs"]
mod tests;
