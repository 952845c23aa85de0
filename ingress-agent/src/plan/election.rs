//! Which addresses move together, under which VRID, and in which order nodes should hold them. Every node finds the same, from the
//! nodes and pools that it knows.
//!
//! An address's VRID depends on its own group and hardly on others: where two groups of the same nodes hash to one VRID they share
//! it, rather than that one of them moves on. So a Service that comes or goes moves nobody else's address, and while two nodes
//! do not know the same Services yet, one VRID never means different addresses to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::PlanOptions;
use crate::model::election::VipGroup;
use crate::model::facts::{Facts, NodeFacts, VirtualIpPoolFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{ObjectName, Vip};

/// How nodes elect who holds which address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionOptions {
    /// VRIDs to choose from.
    pub vrids: RangeInclusive<u8>,
    /// Routers that exist on the LAN already, such as those of a keepalived pair.
    pub fixed: Vec<FixedRouter>,
    /// The nodes that hold addresses. Empty: all that the source of facts names.
    pub nodes: Vec<String>,
    /// Of this node, for everything that it may hold, instead of what the order gives.
    pub priority: Option<u8>,
}

/// A VRID that is given, and the whole list of addresses that its adverts carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedRouter {
    pub vrid: u8,
    pub addresses: Vec<IpAddr>,
}

impl Default for ElectionOptions {
    fn default() -> Self {
        Self { vrids: 1..=255, fixed: Vec::new(), nodes: Vec::new(), priority: None }
    }
}

/// Where nobody said which nodes there are: as RFC 9568 §5.2.4 and keepalived have it.
const UNRANKED: u8 = 100;
/// Of the preferred node. Below 254, which is for who was told to take over.
const FIRST: u8 = 250;
/// Between one node and the next: at adverts of 100 ms, 1.5 ms more to wait before it takes over.
const STEP: u8 = 4;

pub(super) fn same_input(a: &Facts, b: &Facts) -> bool {
    a.nodes.same(&b.nodes) && a.virtual_ip_pools.same(&b.virtual_ip_pools)
}

/// Sorted by VRID.
pub(super) fn groups(
    vips: &BTreeMap<IpAddr, Vip>,
    facts: &Facts,
    options: &PlanOptions,
    election: &ElectionOptions,
    rejections: &mut Vec<Rejection>,
) -> Vec<VipGroup> {
    let nodes = Nodes::new(facts, election);
    let mut groups = Vec::new();
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    for fixed in &election.fixed {
        given.extend(&fixed.addresses);
        if let Some(served) = fixed.addresses.iter().find(|a| vips.contains_key(a)) {
            let members = fixed.addresses.iter().copied().collect();
            groups.push(group(fixed.vrid, members, nodes.allowed(*served), nodes.known, vips, options));
        }
    }
    let taken: BTreeSet<u8> = election.fixed.iter().map(|f| f.vrid).collect();
    let free: Vec<u8> = election.vrids.clone().filter(|v| *v != 0 && !taken.contains(v)).collect();
    let left = vips.iter().filter(|(address, _)| !given.contains(*address));
    let mut slots: BTreeMap<u8, (&[&str], BTreeSet<IpAddr>)> = BTreeMap::new();
    for members in together(left, &nodes) {
        let Some(identity) = members.first().copied() else { continue };
        let allowed = nodes.allowed(identity);
        let start = hash(identity.to_string().as_bytes()) as usize;
        let fits = |vrid: &&u8| slots.get(*vrid).is_none_or(|(theirs, _)| *theirs == allowed);
        let found = (0..free.len()).filter_map(|i| free.get((start % free.len() + i) % free.len())).find(fits);
        match found {
            Some(vrid) => slots.entry(*vrid).or_insert_with(|| (allowed, BTreeSet::new())).1.extend(members),
            None => rejections.push(super::http::option("--vrrp-vrids").reject(
                "Option",
                "",
                format!("{identity} is not served: no VRID is left for one more set of nodes"),
            )),
        }
    }
    for (vrid, (allowed, members)) in slots {
        groups.push(group(vrid, members, allowed, nodes.known, vips, options));
    }
    groups.sort_by_key(|g| (g.vrid, !g.is_v4()));
    groups
}

fn group(
    vrid: u8,
    addresses: BTreeSet<IpAddr>,
    allowed: &[&str],
    nodes_known: bool,
    vips: &BTreeMap<IpAddr, Vip>,
    options: &PlanOptions,
) -> VipGroup {
    let own = options.election.as_ref().and_then(|e| e.priority);
    // Rendezvous (Thaler and Ravishankar 1998): a node that comes or goes moves only what it has or should have.
    let mut order: Vec<String> = allowed.iter().map(|n| (*n).to_owned()).collect();
    order.sort_by_cached_key(|node| (std::cmp::Reverse(hash(format!("{vrid} {node}").as_bytes())), node.clone()));
    // Others may be held elsewhere, or not be served any more.
    let may = addresses.iter().all(|a| vips.get(a).is_none_or(|vip| vip.held_here));
    let priority = match order.iter().position(|node| *node == options.node) {
        _ if !may => 0,
        None if !nodes_known => own.unwrap_or(UNRANKED),
        None => 0,
        Some(rank) => own.unwrap_or_else(|| ranked(rank)),
    };
    VipGroup { vrid, addresses, order, priority }
}

fn ranked(rank: usize) -> u8 {
    u8::try_from(rank).ok().and_then(|r| r.checked_mul(STEP)).and_then(|less| FIRST.checked_sub(less)).unwrap_or(2).max(2)
}

/// The addresses of one owner move together, one of each family: a client that is told both expects one place behind them.
fn together<'a>(vips: impl Iterator<Item = (&'a IpAddr, &'a Vip)>, nodes: &Nodes<'_>) -> Vec<BTreeSet<IpAddr>> {
    let mut owned: BTreeMap<&str, (Vec<IpAddr>, Vec<IpAddr>)> = BTreeMap::new();
    let mut leader: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
    for (address, vip) in vips {
        leader.insert(*address, *address);
        for owner in vip.owners.iter() {
            let (v4, v6) = owned.entry(owner).or_default();
            if address.is_ipv4() { v4.push(*address) } else { v6.push(*address) }
        }
    }
    for (v4, v6) in owned.values() {
        for (a, b) in v4.iter().zip(v6) {
            if nodes.allowed(*a) == nodes.allowed(*b) {
                let (a, b) = (lead(&leader, *a), lead(&leader, *b));
                leader.insert(a.max(b), a.min(b));
            }
        }
    }
    let mut sets: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in leader.keys() {
        sets.entry(lead(&leader, *address)).or_default().insert(*address);
    }
    sets.into_values().collect()
}

/// The smallest address of the set that this one is in.
fn lead(leader: &BTreeMap<IpAddr, IpAddr>, address: IpAddr) -> IpAddr {
    let mut at = address;
    while let Some(next) = leader.get(&at).filter(|next| **next != at) {
        at = *next;
    }
    at
}

/// The nodes that stand for election, sorted by name.
struct Nodes<'a> {
    /// Whether anybody said which there are.
    known: bool,
    all: Vec<&'a str>,
    /// Those that a pool allows. Older pools first.
    pools: Vec<(&'a VirtualIpPoolFacts, Vec<&'a str>)>,
}

impl<'a> Nodes<'a> {
    fn new(facts: &'a Facts, election: &'a ElectionOptions) -> Self {
        let facts_of = |name: &str| facts.nodes.find(&ObjectName::new("", name)).map(|n| &**n);
        let mut names: Vec<(&str, Option<&NodeFacts>)> = if election.nodes.is_empty() {
            facts.nodes.iter().map(|n| (n.origin.name.name.as_str(), Some(&**n))).collect()
        } else {
            election.nodes.iter().map(|name| (name.as_str(), facts_of(name))).collect()
        };
        let known = !names.is_empty();
        names.retain(|(_, node)| !node.is_some_and(|n| n.draining));
        names.sort_unstable_by_key(|(name, _)| *name);
        names.dedup_by_key(|(name, _)| *name);
        let mut pools: Vec<&VirtualIpPoolFacts> = facts.virtual_ip_pools.iter().map(|p| &**p).collect();
        pools.sort_by_key(|p| p.origin.seniority());
        let allowed = |pool: &'a VirtualIpPoolFacts| {
            let may = |(name, node): &(&'a str, Option<&NodeFacts>)| {
                let selector = &pool.nodes;
                let named = selector.names.is_empty() || selector.names.iter().any(|n| n == name);
                let labelled = selector.labels.is_empty() || node.is_some_and(|n| selector.labels.matches(&n.labels));
                (named && labelled).then_some(*name)
            };
            (pool, names.iter().filter_map(may).collect())
        };
        Self { known, all: names.iter().map(|(name, _)| *name).collect(), pools: pools.into_iter().map(allowed).collect() }
    }

    fn allowed(&self, address: IpAddr) -> &[&'a str] {
        let pool = self.pools.iter().find(|(p, _)| p.ranges.iter().any(|r| r.contains(address)));
        pool.map_or(&self.all, |(_, allowed)| allowed)
    }
}

/// FNV-1a, and the last step of `MurmurHash3`, without which neighbours get neighbouring values. Two versions must find the same;
/// std's hash may change.
fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    h = (h ^ h >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ h >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ h >> 33
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
