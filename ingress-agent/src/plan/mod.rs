//! The rules: from facts to a snapshot. Pure: no clock, no I/O, nothing async, and the answer never depends on the order in
//! which facts arrived, so that every node reaches the same one alone.
//!
//! Who wins an (address, protocol, port) that several claim: the HTTP listeners first, then the `tcp-services` and
//! `udp-services` ConfigMaps (both are the operator's word), then Services, the older before the younger. Who has which
//! address is settled before that (`addresses`). Hosts and paths go to the older Ingress. The loser's owner reads who won.
#![forbid(unsafe_code)]

pub mod options;

mod vips;

mod addresses;

mod pools;

mod l4;

mod kube_proxy;

mod http;

mod claim;

mod choice;

mod compile;

mod policies;

mod nginx;

mod host;

mod hosts;

mod tls;

mod served;

mod election;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use election::{ElectionOptions, FixedRouter};
pub use nginx::{SettingUse, setting_use};
pub use options::{Hold, PlanOptions};

use crate::model::election::VipGroup;
use crate::model::facts::Facts;
use crate::model::rejection::Rejection;
use crate::model::snapshot::{Frontend, FrontendKey, Pool, PoolName, Served, Snapshot, Vip};

/// A snapshot, and what the next plan needs to find out how little has changed.
#[derive(Debug)]
pub struct Plan {
    pub snapshot: Arc<Snapshot>,
    memo: Memo,
}

#[derive(Debug)]
struct Memo {
    options: PlanOptions,
    facts: Facts,
    addresses: Arc<addresses::Addresses>,
    http: Arc<http::Http>,
    l4: Arc<l4::L4>,
    names: Arc<BTreeSet<PoolName>>,
    vips: Arc<BTreeMap<IpAddr, Vip>>,
    elections: Arc<Elections>,
    pools: pools::Pools,
}

#[derive(Debug, Default)]
struct Elections {
    groups: Arc<[VipGroup]>,
    rejections: Vec<Rejection>,
}

/// What has to be so, given these facts. With `last`, parts that did not change are the same `Arc`s as there, and if nothing
/// did, so is the snapshot; the content is the same with and without it.
pub fn plan(facts: &Facts, options: &PlanOptions, last: Option<&Plan>) -> Plan {
    let before = last.map(|l| &l.memo).filter(|m| m.options == *options);

    let addresses = match before.filter(|m| addresses::same_input(facts, &m.facts)) {
        Some(m) => Arc::clone(&m.addresses),
        None => Arc::new(addresses::plan(facts, options, before.map(|m| &*m.addresses))),
    };
    let same = |m: &&Memo| http::same_input(facts, &m.facts) && addresses.gives_ingress_as(&m.addresses);
    let http = match before.filter(same) {
        Some(m) => Arc::clone(&m.http),
        None => Arc::new(http::plan(facts, options, &addresses, before.map(|m| (&m.facts, &*m.http)))),
    };
    let same = |m: &&Memo| {
        l4::same_input(facts, &m.facts) && addresses.gives_services_as(&m.addresses) && http.leaves_as_much(&m.http)
    };
    let l4 = match before.filter(same) {
        Some(m) => Arc::clone(&m.l4),
        None => Arc::new(l4::plan(facts, options, &addresses, &http, before.map(|m| &*m.l4))),
    };
    // An Ingress that changes seldom names other pools, and hardly ever other addresses.
    let same_l4 = before.filter(|m| Arc::ptr_eq(&m.l4, &l4));
    let names = match same_l4.filter(|m| m.http.pools == http.pools) {
        Some(m) => Arc::clone(&m.names),
        None => Arc::new(http.pools.union(&l4.pools).cloned().collect()),
    };
    let same = |m: &&Memo| m.http.owners == http.owners && addresses.holds_as(&m.addresses);
    let vips = match same_l4.filter(same) {
        Some(m) => Arc::clone(&m.vips),
        None => keep(held(&addresses, &http, &l4, options), before.map(|m| &m.vips)),
    };
    // What an endpoint may not be is an address that we answer for.
    let same_vips = before.filter(|m| Arc::ptr_eq(&m.vips, &vips));
    let pools = pools::plan(facts, options, &names, &vips, before.map(|m| &m.pools), same_vips.is_some());

    let elections = match same_vips.filter(|m| election::same_input(facts, &m.facts)) {
        Some(m) => Arc::clone(&m.elections),
        None => Arc::new(elections(facts, options, &vips, before.map(|m| &*m.elections))),
    };
    let parts =
        Parts { addresses: &addresses, http: &http, l4: &l4, vips: &vips, elections: &elections, pools: &pools };
    let snapshot = snapshot(facts, &parts, last.map(|l| &l.snapshot));
    let memo =
        Memo { options: options.clone(), facts: facts.clone(), addresses, http, l4, names, vips, elections, pools };
    Plan { snapshot, memo }
}

fn held(
    addresses: &addresses::Addresses,
    http: &http::Http,
    l4: &l4::L4,
    options: &PlanOptions,
) -> BTreeMap<IpAddr, Vip> {
    let mut owners: BTreeMap<IpAddr, BTreeSet<&String>> = BTreeMap::new();
    for (vip, owner) in http.owners.iter().chain(&l4.owners) {
        owners.entry(*vip).or_default().insert(owner);
    }
    let vip = |(address, owners): (IpAddr, BTreeSet<&String>)| {
        let held_here = options.hold.holds(address) && addresses.may_hold(address);
        (address, Vip { held_here, owners: owners.into_iter().cloned().collect() })
    };
    owners.into_iter().map(vip).collect()
}

fn elections(
    facts: &Facts,
    options: &PlanOptions,
    vips: &BTreeMap<IpAddr, Vip>,
    last: Option<&Elections>,
) -> Elections {
    let Some(election) = &options.election else { return Elections::default() };
    let mut rejections = Vec::new();
    let groups = election::groups(vips, facts, options, election, &mut rejections);
    let groups = match last.filter(|l| *l.groups == *groups) {
        Some(last) => Arc::clone(&last.groups),
        None => groups.into(),
    };
    Elections { groups, rejections }
}

struct Parts<'a> {
    addresses: &'a addresses::Addresses,
    http: &'a http::Http,
    l4: &'a l4::L4,
    vips: &'a BTreeMap<IpAddr, Vip>,
    elections: &'a Elections,
    pools: &'a pools::Pools,
}

fn snapshot(facts: &Facts, parts: &Parts<'_>, last: Option<&Arc<Snapshot>>) -> Arc<Snapshot> {
    let Parts { addresses, http, l4, vips, elections, pools } = parts;
    let frontends = http.frontends.iter().chain(&l4.frontends);
    let frontends: BTreeMap<FrontendKey, Arc<Frontend>> = frontends.map(|f| (f.key, Arc::clone(f))).collect();
    let mut rejections: Vec<Rejection> = facts.rejections.to_vec();
    rejections.extend(
        addresses
            .rejections
            .iter()
            .chain(&http.rejections)
            .chain(&l4.rejections)
            .chain(&elections.rejections)
            .chain(pools.rejections())
            .cloned(),
    );
    rejections.sort();
    rejections.dedup();
    let snapshot = Snapshot {
        generation: last.map_or(0, |l| l.generation) + 1,
        vips: (*vips).clone(),
        groups: Arc::clone(&elections.groups),
        assigned: Arc::clone(&addresses.assigned),
        frontends,
        pools: pools
            .iter()
            .map(|pool| (pool.name.clone(), Arc::clone(pool)))
            .collect::<BTreeMap<PoolName, Arc<Pool>>>(),
        listeners: http.listeners.clone(),
        streams: l4.streams.clone(),
        shared_limits: Arc::clone(&http.shared_limits),
        certificates: http.certificates.clone(),
        served: Served {
            services: Arc::clone(&l4.served),
            ingresses: Arc::clone(&http.served),
            pools: served::pools(&addresses.pools, &facts.rejections, last.map(|l| &l.served.pools)),
        },
        rejections,
    };
    match last.filter(|last| same(last, &snapshot)) {
        Some(last) => Arc::clone(last),
        None => Arc::new(snapshot),
    }
}

/// By pointer where there is one: unchanged parts have kept theirs.
fn same(a: &Snapshot, b: &Snapshot) -> bool {
    fn shared<K: PartialEq, V>(a: &BTreeMap<K, Arc<V>>, b: &BTreeMap<K, Arc<V>>) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|((ka, va), (kb, vb))| Arc::ptr_eq(va, vb) && ka == kb)
    }
    shared(&a.pools, &b.pools)
        && shared(&a.frontends, &b.frontends)
        && shared(&a.certificates, &b.certificates)
        && a.listeners.len() == b.listeners.len()
        && a.listeners.iter().zip(&b.listeners).all(|(a, b)| Arc::ptr_eq(a, b))
        && a.streams.len() == b.streams.len()
        && a.streams.iter().zip(&b.streams).all(|(a, b)| Arc::ptr_eq(a, b))
        && Arc::ptr_eq(&a.shared_limits, &b.shared_limits)
        && a.vips == b.vips
        && (Arc::ptr_eq(&a.groups, &b.groups) || a.groups == b.groups)
        && Arc::ptr_eq(&a.served.services, &b.served.services)
        && Arc::ptr_eq(&a.served.ingresses, &b.served.ingresses)
        && Arc::ptr_eq(&a.served.pools, &b.served.pools)
        && (Arc::ptr_eq(&a.assigned, &b.assigned) || a.assigned == b.assigned)
        && a.rejections == b.rejections
}

/// The old `Arc` where its content is the new one's.
fn keep<T: PartialEq>(new: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old.filter(|old| ***old == new) {
        Some(old) => Arc::clone(old),
        None => Arc::new(new),
    }
}
