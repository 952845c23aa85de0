//! Which VirtualIPPools count, whom they are for, and what is left in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::space::{Space, is_buggy};
use crate::model::addresses::AddressRange;
use crate::model::facts::{Facts, Family, NodeFacts, PoolRef, ServiceFacts, VirtualIpPoolFacts};
use crate::model::objects::Objects;
use crate::model::pool_state::{PoolCount, PoolState, PoolVerdict};
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;
use crate::plan::{PlanOptions, vips};

const KIND: &str = "VirtualIPPool";

#[derive(Debug)]
pub(super) struct Pools<'a> {
    /// Older ones first.
    accepted: Vec<Pool<'a>>,
    rejected: Vec<(&'a VirtualIpPoolFacts, Fault)>,
    /// First address of a range → the range and the index of its pool.
    ranges: BTreeMap<IpAddr, (AddressRange, usize)>,
    node_addresses: BTreeMap<IpAddr, &'a NodeFacts>,
}

/// Why a pool as a whole cannot be used.
#[derive(Debug)]
struct Fault {
    verdict: PoolVerdict,
    reason: String,
}

#[derive(Debug)]
struct Pool<'a> {
    facts: &'a VirtualIpPoolFacts,
    v4: Space,
    v6: Space,
}

impl<'a> Pools<'a> {
    pub(super) fn new(facts: &'a Facts, rejections: &mut Vec<Rejection>) -> Self {
        let mut pools = Self {
            accepted: Vec::new(),
            rejected: Vec::new(),
            ranges: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
        };
        let mut all: Vec<&VirtualIpPoolFacts> = facts.virtual_ip_pools.iter().map(|p| &**p).collect();
        all.sort_by_key(|pool| pool.origin.seniority());
        for pool in all {
            match pools.fault(pool) {
                Some(fault) => {
                    rejections.push(pool.origin.reject(KIND, "spec.addresses", fault.reason.as_str()));
                    pools.rejected.push((pool, fault));
                }
                None => pools.accept(pool),
            }
        }
        pools.node_addresses(&facts.nodes, rejections);
        pools
    }

    fn fault(&self, pool: &VirtualIpPoolFacts) -> Option<Fault> {
        for range in &pool.ranges {
            for end in [range.first(), range.last()] {
                if let Some(fault) = vips::fault(end) {
                    let reason = format!("{range} cannot be served: {end} {fault}");
                    return Some(Fault { verdict: PoolVerdict::Unusable, reason });
                }
            }
            // Those that count are apart from each other, so only the last that begins before the end can overlap.
            let before = self.ranges.range(..=range.last()).next_back();
            if let Some((_, (other, index))) = before.filter(|(_, (other, _))| other.overlaps(range)) {
                let winner = &self.accepted[*index].facts.origin;
                let why = winner.why_before(&pool.origin);
                let reason = format!("{range} overlaps {other} of {KIND} {}, {why}", winner.name);
                return Some(Fault { verdict: PoolVerdict::Overlaps, reason });
            }
        }
        None
    }

    fn accept(&mut self, facts: &'a VirtualIpPoolFacts) {
        let of = |v4: bool| facts.ranges.iter().filter(move |r| r.first().is_ipv4() == v4).copied();
        let (v4, v6) = (Space::new(of(true), facts.avoid_buggy), Space::new(of(false), false));
        let index = self.accepted.len();
        self.ranges.extend(facts.ranges.iter().map(|range| (range.first(), (*range, index))));
        self.accepted.push(Pool { facts, v4, v6 });
    }

    /// A node's own address in a pool is not the pool's end: a node that joins must not take down what others serve.
    fn node_addresses(&mut self, nodes: &'a Objects<NodeFacts>, rejections: &mut Vec<Rejection>) {
        for node in nodes.iter() {
            for address in &node.addresses {
                let Some(index) = self.index(*address) else { continue };
                let reason = format!("holds {address}, an address of Node {}: it is not given out", node.origin.name);
                rejections.push(self.accepted[index].facts.origin.reject(KIND, "spec.addresses", reason));
                self.node_addresses.insert(*address, node);
                self.take(*address);
            }
        }
    }

    /// There is none at all, whether good or bad.
    pub(super) fn none(&self) -> bool {
        self.accepted.is_empty() && self.rejected.is_empty()
    }

    fn index(&self, address: IpAddr) -> Option<usize> {
        let (_, (range, index)) = self.ranges.range(..=address).next_back()?;
        range.contains(address).then_some(*index)
    }

    pub(super) fn name_of(&self, address: IpAddr) -> Option<&'a ObjectName> {
        self.index(address).map(|index| &self.accepted[index].facts.origin.name)
    }

    /// Why this Service may not have this address.
    pub(super) fn refuse(&self, address: IpAddr, service: &ServiceFacts, asked: Option<&PoolRef>) -> Option<String> {
        let Some(index) = self.index(address) else {
            return Some("it is in no VirtualIPPool".to_owned());
        };
        let pool = self.accepted[index].facts;
        if let Some(asked) = asked.filter(|asked| asked.name != pool.origin.name) {
            return Some(format!("it is in {KIND} {}, and {} asks for {}", pool.origin.name, asked.field, asked.name));
        }
        if let Some(reason) = not_for(pool, service) {
            return Some(format!("it is in {KIND} {}, which {reason}", pool.origin.name));
        }
        if let Some(node) = self.node_addresses.get(&address) {
            return Some(format!("it is an address of Node {}", node.origin.name));
        }
        (pool.avoid_buggy && is_buggy(address))
            .then(|| format!("it ends in .0 or .255, which {KIND} {} avoids", pool.origin.name))
    }

    /// The pools that a Service may have an address of, best first, or the reason why there is none.
    pub(super) fn choices(&self, service: &ServiceFacts, asked: Option<&PoolRef>) -> Result<Vec<usize>, String> {
        if let Some(asked) = asked {
            let index = self.named(&asked.name)?;
            return match not_for(self.accepted[index].facts, service) {
                Some(reason) => Err(format!("{KIND} {} cannot give an address: it {reason}", asked.name)),
                None => Ok(vec![index]),
            };
        }
        let open = |(_, pool): &(usize, &Pool<'_>)| pool.facts.auto_assign && not_for(pool.facts, service).is_none();
        let mut open: Vec<(usize, &Pool<'_>)> = self.accepted.iter().enumerate().filter(open).collect();
        if open.is_empty() {
            return Err(format!(
                "no {KIND} gives it an address without being asked (`autoAssign`, `namespaces`, `serviceSelector`)"
            ));
        }
        // A pool that says whom it is for was made for them.
        open.sort_by_key(|(_, pool)| pool.facts.namespaces.is_empty() && pool.facts.services.is_empty());
        Ok(open.into_iter().map(|(index, _)| index).collect())
    }

    pub(super) fn named(&self, name: &ObjectName) -> Result<usize, String> {
        if self.rejected.iter().any(|(pool, _)| pool.origin.name == *name) {
            return Err(format!("{KIND} {name} is rejected itself"));
        }
        let found = self.accepted.iter().position(|pool| pool.facts.origin.name == *name);
        found.ok_or_else(|| format!("there is no {KIND} {name}"))
    }

    pub(super) fn holds(&self, index: usize, address: IpAddr) -> bool {
        self.index(address) == Some(index)
    }

    pub(super) fn has(&self, index: usize, family: Family) -> bool {
        let pool = &self.accepted[index];
        match family {
            Family::V4 => !pool.v4.is_empty(),
            Family::V6 => !pool.v6.is_empty(),
        }
    }

    pub(super) fn free(&mut self, index: usize, family: Family, hash: u64) -> Option<IpAddr> {
        self.space(index, family).free(hash)
    }

    /// Nothing where the address is in no pool.
    pub(super) fn take(&mut self, address: IpAddr) {
        if let Some(index) = self.index(address) {
            self.space(index, Family::of(address)).take(address);
        }
    }

    fn space(&mut self, index: usize, family: Family) -> &mut Space {
        let pool = &mut self.accepted[index];
        match family {
            Family::V4 => &mut pool.v4,
            Family::V6 => &mut pool.v6,
        }
    }

    /// `VirtualIPPool a (12 addresses), VirtualIPPool b (none of IPv6)`, for who found them exhausted.
    pub(super) fn describe(&self, choices: &[usize], family: Family) -> String {
        let one = |index: &usize| {
            let pool = &self.accepted[*index];
            let size = if family == Family::V4 { pool.v4.size() } else { pool.v6.size() };
            let name = &pool.facts.origin.name;
            match size {
                0 => format!("{KIND} {name} (has no {})", family.name()),
                1 => format!("{KIND} {name} (1 address)"),
                size => format!("{KIND} {name} ({size} addresses)"),
            }
        };
        choices.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What became of each, sorted by name, once `held` are given away.
    pub(super) fn states(&self, held: impl Iterator<Item = IpAddr>) -> Vec<PoolState> {
        let mut assigned: BTreeMap<(usize, Family), u64> = BTreeMap::new();
        for address in held {
            if let Some(index) = self.index(address) {
                *assigned.entry((index, Family::of(address))).or_default() += 1;
            }
        }
        let accepted = self.accepted.iter().enumerate().map(|(index, pool)| {
            let count = |family, space: &Space| {
                let assigned = assigned.get(&(index, family)).copied().unwrap_or_default();
                let available = u64::try_from(space.left()).unwrap_or(u64::MAX);
                (!space.is_empty()).then_some(PoolCount { assigned, available })
            };
            let nodes = self.node_addresses.iter().filter(|(address, _)| self.index(**address) == Some(index));
            let nodes: Vec<String> =
                nodes.map(|(address, node)| format!("{address} of Node {}", node.origin.name)).collect();
            let (verdict, message) = match &nodes[..] {
                [] => (PoolVerdict::Accepted, "its addresses are given".to_owned()),
                [first] => (PoolVerdict::HoldsNodeAddress, format!("its addresses are given, but for {first}")),
                [first, more @ ..] => (
                    PoolVerdict::HoldsNodeAddress,
                    format!("its addresses are given, but for {first} and {} more of nodes", more.len()),
                ),
            };
            let (v4, v6) = (count(Family::V4, &pool.v4), count(Family::V6, &pool.v6));
            state(pool.facts, verdict, message, v4, v6)
        });
        let rejected = self.rejected.iter().map(|(pool, fault)| {
            let of = |v4: bool| pool.ranges.iter().any(|r| r.first().is_ipv4() == v4).then_some(PoolCount::default());
            state(pool, fault.verdict, fault.reason.clone(), of(true), of(false))
        });
        let mut states: Vec<PoolState> = accepted.chain(rejected).collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// What this node does not hold, and remarks on why.
    pub(super) fn elsewhere(
        &self,
        nodes: &Objects<NodeFacts>,
        options: &PlanOptions,
        rejections: &mut Vec<Rejection>,
    ) -> Vec<AddressRange> {
        let node = nodes.find(&ObjectName::new("", options.node.as_str()));
        let mut ranges = Vec::new();
        for pool in self.accepted.iter().map(|pool| pool.facts) {
            let selector = &pool.nodes;
            let named = selector.names.is_empty() || selector.names.contains(&options.node);
            let labelled = selector.labels.is_empty() || node.is_some_and(|n| selector.labels.matches(&n.labels));
            if named && !labelled && node.is_none() {
                let reason = format!("Node {} is not known here, so it does not hold these addresses", options.node);
                rejections.push(pool.origin.warn(KIND, "spec.nodes.matchLabels", reason));
            }
            let interface = pool.interface.as_ref().filter(|name| **name != options.vip_interface);
            if let Some(name) = interface.filter(|_| named && labelled) {
                let (node, ours) = (&options.node, &options.vip_interface);
                let reason = format!(
                    "{name} is not `{ours}`, which carries addresses on Node {node} (`--vip-interface`), so it does not hold them"
                );
                rejections.push(pool.origin.warn(KIND, "spec.interface", reason));
            }
            if !named || !labelled || interface.is_some() {
                ranges.extend(&pool.ranges);
            }
        }
        ranges.sort_unstable();
        ranges
    }
}

fn state(
    pool: &VirtualIpPoolFacts,
    verdict: PoolVerdict,
    message: String,
    v4: Option<PoolCount>,
    v6: Option<PoolCount>,
) -> PoolState {
    let (origin, generation) = (&pool.origin, pool.generation);
    let (name, uid, ranges) = (origin.name.clone(), origin.uid.clone(), pool.ranges.clone());
    PoolState { name, uid, generation, ranges, verdict, message, v4, v6 }
}

fn not_for(pool: &VirtualIpPoolFacts, service: &ServiceFacts) -> Option<String> {
    let namespace = &service.origin.name.namespace;
    if !pool.namespaces.is_empty() && !pool.namespaces.contains(namespace) {
        return Some(format!("is for the namespaces {}", pool.namespaces.join(", ")));
    }
    (!pool.services.matches(&service.labels)).then(|| "is for Services with other labels".to_owned())
}
