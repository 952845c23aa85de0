//! Which addresses move together, under which VRID, and in which order nodes should hold them. Every node finds the same, from the
//! nodes and pools that it knows.
//!
//! An address's VRID depends on its own group and on no other: where two groups hash to one VRID they share it, rather than that one
//! of them moves on. So a Service that comes or goes moves nobody else's address, and while two nodes do not know the same
//! Services yet, a VRID never means different addresses to them. VRIDs are divided among the selectors of nodes that pools have,
//! since who shares a VRID must be allowed on the same nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::PlanOptions;
use crate::model::election::VipGroup;
use crate::model::facts::{Facts, NodeFacts, NodeSelector, VirtualIpPoolFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{ObjectName, Vip};

/// How nodes elect who holds which address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionOptions {
    /// VRIDs to choose from.
    pub vrids: RangeInclusive<u8>,
    /// Routers that exist on the LAN already, such as those of a keepalived pair.
    pub fixed: Vec<FixedRouter>,
    /// The nodes that hold addresses. Empty: those with the label of edge nodes, and where none has it, all that there are.
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

/// Where the DaemonSet runs the agent. Nodes without the label stand for election only if no node has it.
const EDGE: &str = "node-role.kubernetes.io/edge";
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
            groups.push(group(fixed.vrid, members, nodes.of(nodes.class(*served)), nodes.known, vips, options));
        }
    }
    let taken: BTreeSet<u8> = election.fixed.iter().map(|f| f.vrid).collect();
    let free = election.vrids.clone().filter(|v| *v != 0 && !taken.contains(v));
    let shares = divide(free.collect(), nodes.allowed.keys().map(String::as_str).collect());
    let left = vips.iter().filter(|(address, _)| !given.contains(*address));
    let mut slots: BTreeMap<u8, (&str, BTreeSet<IpAddr>)> = BTreeMap::new();
    for members in together(left, &nodes) {
        let Some(identity) = members.first().copied() else { continue };
        let class = nodes.class(identity);
        let of_class = shares.get(class).into_iter().flatten();
        match of_class.max_by_key(|vrid| hash(format!("{vrid} {identity}").as_bytes())) {
            Some(vrid) => slots.entry(*vrid).or_insert_with(|| (class, BTreeSet::new())).1.extend(members),
            None => rejections.push(super::http::option("--vrrp-vrids").reject(
                "Option",
                "",
                format!("{identity} is not served: there are more VirtualIPPools of different nodes than VRIDs"),
            )),
        }
    }
    for (vrid, (class, members)) in slots {
        groups.push(group(vrid, members, nodes.of(class), nodes.known, vips, options));
    }
    groups.sort_by_key(|g| (g.vrid, !g.is_v4()));
    groups
}

/// Gives each VRID to a class, and each class at least one as long as there are enough. A class that appears takes its part and
/// moves nothing else.
fn divide(vrids: Vec<u8>, classes: Vec<&str>) -> BTreeMap<&str, Vec<u8>> {
    let mut shares: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let weight = |vrid: u8, class: &str| hash(format!("{vrid} {class}").as_bytes());
    for vrid in vrids {
        if let Some(class) = classes.iter().max_by_key(|class| weight(vrid, class)) {
            shares.entry(class).or_default().push(vrid);
        }
    }
    for class in classes {
        if shares.contains_key(class) {
            continue;
        }
        let spare = shares
            .iter()
            .filter(|(_, share)| share.len() > 1)
            .flat_map(|(owner, share)| share.iter().map(|vrid| (*owner, *vrid)).collect::<Vec<_>>());
        if let Some((owner, vrid)) = spare.max_by_key(|(_, vrid)| weight(*vrid, class)) {
            shares.entry(owner).or_default().retain(|v| *v != vrid);
            shares.insert(class, vec![vrid]);
        }
    }
    shares
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
    u8::try_from(rank)
        .ok()
        .and_then(|r| r.checked_mul(STEP))
        .and_then(|less| FIRST.checked_sub(less))
        .unwrap_or(2)
        .max(2)
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
            if nodes.class(*a) == nodes.class(*b) {
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

/// The nodes that stand for election, by class: a selector of nodes that some pool has.
struct Nodes<'a> {
    /// Whether anybody said which there are.
    known: bool,
    /// Names by class, sorted. The class of addresses that all nodes may hold is always there.
    allowed: BTreeMap<String, Vec<&'a str>>,
    /// Each pool with its class. Older pools first.
    pools: Vec<(&'a VirtualIpPoolFacts, String)>,
}

/// The class of the selector that selects all. A node that joins, leaves or drains changes no class, only who is in it.
const ALL: &str = "";

impl<'a> Nodes<'a> {
    fn new(facts: &'a Facts, election: &'a ElectionOptions) -> Self {
        let facts_of = |name: &str| facts.nodes.find(&ObjectName::new("", name)).map(|n| &**n);
        let mut names: Vec<(&str, Option<&NodeFacts>)> = if election.nodes.is_empty() {
            let labelled = facts.nodes.iter().any(|n| n.labels.contains_key(EDGE));
            let stands = |n: &&Arc<NodeFacts>| !labelled || n.labels.contains_key(EDGE);
            facts.nodes.iter().filter(stands).map(|n| (n.origin.name.name.as_str(), Some(&**n))).collect()
        } else {
            election.nodes.iter().map(|name| (name.as_str(), facts_of(name))).collect()
        };
        let known = !names.is_empty();
        names.retain(|(_, node)| !node.is_some_and(|n| n.draining));
        names.sort_unstable_by_key(|(name, _)| *name);
        names.dedup_by_key(|(name, _)| *name);
        let mut pools: Vec<&VirtualIpPoolFacts> = facts.virtual_ip_pools.iter().map(|p| &**p).collect();
        pools.sort_by_key(|p| p.origin.seniority());
        let pools: Vec<_> = pools.into_iter().map(|pool| (pool, class_of(&pool.nodes))).collect();
        let mut allowed = BTreeMap::from([(ALL.to_owned(), names.iter().map(|(name, _)| *name).collect())]);
        for (pool, class) in &pools {
            let may = |(name, node): &(&'a str, Option<&NodeFacts>)| {
                let selector = &pool.nodes;
                let named = selector.names.is_empty() || selector.names.iter().any(|n| n == name);
                let labelled = selector.labels.is_empty() || node.is_some_and(|n| selector.labels.matches(&n.labels));
                (named && labelled).then_some(*name)
            };
            allowed.entry(class.clone()).or_insert_with(|| names.iter().filter_map(may).collect());
        }
        Self { known, allowed, pools }
    }

    fn class(&self, address: IpAddr) -> &str {
        let pool = self.pools.iter().find(|(p, _)| p.ranges.iter().any(|r| r.contains(address)));
        pool.map_or(ALL, |(_, class)| class)
    }

    fn of(&self, class: &str) -> &[&'a str] {
        self.allowed.get(class).map(Vec::as_slice).unwrap_or_default()
    }
}

fn class_of(selector: &NodeSelector) -> String {
    if selector.names.is_empty() && selector.labels.is_empty() {
        return ALL.to_owned();
    }
    let mut names = selector.names.clone();
    names.sort_unstable();
    format!("{names:?} {:?}", selector.labels)
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
