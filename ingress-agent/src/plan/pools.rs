//! Pools: the endpoints behind one Service port. The part that changes most, so each pool is kept as long as the very
//! facts that it was made from are there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xdp_ebpf::maglev;

use super::{PlanOptions, keep};
use crate::model::facts::{
    DEFAULT_WEIGHT, EndpointFacts, Exposure, ExternalNameFacts, Facts, PortFacts, ServiceFacts, ServiceSlices,
    SliceFacts,
};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{
    AppProtocol, Backend, BackendState, Forwarding, ObjectName, Pool, PoolName, PoolScope, Vip,
};

/// Where the node's zone is said (`k8s.io/api/core/v1`, well-known labels).
const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Debug, Default)]
pub(super) struct Pools {
    /// Sorted by name.
    kept: Vec<Kept>,
    /// This node's zone.
    zone: Option<String>,
}

/// A pool and what it was made from.
#[derive(Debug, Clone)]
struct Kept {
    service: Option<Arc<ServiceFacts>>,
    slices: Option<Arc<ServiceSlices>>,
    pool: Arc<Pool>,
    rejections: Vec<Rejection>,
}

impl Pools {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.kept.iter().map(|kept| &kept.pool)
    }

    pub(super) fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.kept.iter().flat_map(|kept| &kept.rejections)
    }
}

pub(super) fn plan(
    facts: &Facts,
    options: &PlanOptions,
    names: &BTreeSet<PoolName>,
    vips: &BTreeMap<IpAddr, Vip>,
    last: Option<&Pools>,
    same_vips: bool,
) -> Pools {
    let node = facts.nodes.find(&ObjectName::new("", options.node.as_str())).filter(|_| options.by_zone);
    let zone = node.and_then(|node| node.labels.get(ZONE)).cloned();
    let same_zone = last.is_some_and(|l| l.zone == zone);
    let mut old = last.map(|l| l.kept.as_slice()).unwrap_or_default().iter().peekable();
    let mut pools = Vec::with_capacity(names.len());
    for name in names {
        // Both are sorted: the old pool of this name, if any, is the next.
        while old.next_if(|kept| kept.pool.name < *name).is_some() {}
        let before = old.next_if(|kept| kept.pool.name == *name);
        let (service, slices) = (facts.services.find(&name.service), facts.slices.find(&name.service));
        let unchanged = |kept: &&Kept| {
            same_vips
                && (same_zone || name.scope != PoolScope::Zone)
                && same(kept.service.as_ref(), service)
                && same(kept.slices.as_ref(), slices)
        };
        if let Some(kept) = before.filter(unchanged) {
            pools.push(kept.clone());
            continue;
        }
        let mut rejections = Vec::new();
        let pool = make(name, service, slices, (options, zone.as_deref()), vips, &mut rejections);
        let pool = keep(pool, before.map(|kept| &kept.pool));
        pools.push(Kept { service: service.cloned(), slices: slices.cloned(), pool, rejections });
    }
    Pools { kept: pools, zone }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
}

fn make(
    name: &PoolName,
    service: Option<&Arc<ServiceFacts>>,
    slices: Option<&Arc<ServiceSlices>>,
    (options, zone): (&PlanOptions, Option<&str>),
    vips: &BTreeMap<IpAddr, Vip>,
    rejections: &mut Vec<Rejection>,
) -> Pool {
    if let Some((service, Exposure::ExternalName(external))) = service.map(|s| (s, &s.exposure)) {
        return external_name(name, service, external.as_deref(), slices, vips, rejections);
    }
    let port = service.and_then(|s| s.ports.iter().find(|p| p.port == name.port && p.protocol == name.protocol));
    let (Some(service), Some(port)) = (service, port) else {
        let (backends, table_size) = (Vec::new(), maglev::size_for(0));
        return Pool { name: name.clone(), backends, table_size, app_protocol: AppProtocol::Http1 };
    };
    if let Some(pool) = (name.scope == PoolScope::ClusterIp).then(|| by_cluster_ip(name, service, port, vips)).flatten()
    {
        return pool;
    }
    let slices = slices.map(|s| s.slices.as_slice()).unwrap_or_default();
    let mut merged: BTreeMap<SocketAddr, Merged<'_>> = BTreeMap::new();
    for slice in slices {
        for number in ports(slice, port) {
            for endpoint in &slice.endpoints {
                if name.scope == PoolScope::Node && !is_here(endpoint.node.as_ref(), options) {
                    continue;
                }
                if vips.contains_key(&endpoint.address) {
                    let reason =
                        format!("{} is an address that we answer for: its packets would loop", endpoint.address);
                    rejections.push(slice.origin.reject("EndpointSlice", "endpoints", reason));
                    continue;
                }
                merged.entry(SocketAddr::new(endpoint.address, number)).or_default().add(endpoint, slice, service);
            }
        }
    }
    if let Some(zone) = zone.filter(|_| name.scope == PoolScope::Zone) {
        stay_in(zone, &mut merged);
    }
    if merged.is_empty() {
        rejections.extend(nameless(service, port, slices));
    }
    if name.scope == PoolScope::Node {
        rejections.extend(nobody_here(service, slices, &merged, options, vips));
        if service.forwarding == Some(Forwarding::Nat) {
            let reason =
                "is `nat`, which hides the client; `externalTrafficPolicy: Local` keeps it, so `local` is used";
            rejections.push(service.origin.warn("Service", "metadata.annotations[sluicegate.io/forwarding]", reason));
        }
    }
    let table_size = table_size(service, merged.len(), rejections);
    Pool {
        name: name.clone(),
        backends: backends(merged, name, service, options),
        table_size,
        app_protocol: port.app_protocol,
    }
}

/// The Service's own address, whoever is behind it. A headless one has none: its endpoints are asked, as in ingress-nginx.
fn by_cluster_ip(
    name: &PoolName,
    service: &ServiceFacts,
    port: &PortFacts,
    vips: &BTreeMap<IpAddr, Vip>,
) -> Option<Pool> {
    let address = service.cluster_ip.filter(|address| !vips.contains_key(address))?;
    let (weight, state, forwarding) = (DEFAULT_WEIGHT, BackendState::Ready, Forwarding::Nat);
    let address = SocketAddr::new(address, port.port);
    Some(Pool {
        name: name.clone(),
        backends: vec![Backend { address, weight, state, forwarding, node: None }],
        table_size: maglev::size_for(1),
        app_protocol: port.app_protocol,
    })
}

/// What a name was resolved to: the source of facts has put that in the place of slices. Only the proxy sends there.
fn external_name(
    name: &PoolName,
    service: &ServiceFacts,
    external: Option<&ExternalNameFacts>,
    slices: Option<&Arc<ServiceSlices>>,
    vips: &BTreeMap<IpAddr, Vip>,
    rejections: &mut Vec<Rejection>,
) -> Pool {
    let port = service.ports.iter().find(|p| p.port == name.port && p.protocol == name.protocol);
    let endpoints = slices.into_iter().flat_map(|s| &s.slices).flat_map(|slice| &slice.endpoints);
    let mut backends = Vec::new();
    for (external, endpoint) in endpoints.filter_map(|endpoint| Some((external?, endpoint))) {
        if vips.contains_key(&endpoint.address) {
            let reason = format!(
                "{} is {}, an address that we answer for: its requests would loop",
                external.host, endpoint.address
            );
            rejections.push(service.origin.reject("Service", "spec.externalName", reason));
            continue;
        }
        backends.push(Backend {
            address: SocketAddr::new(endpoint.address, external.target(name.port)),
            weight: DEFAULT_WEIGHT,
            state: BackendState::Ready,
            forwarding: Forwarding::Nat,
            node: None,
        });
    }
    Pool {
        name: name.clone(),
        table_size: maglev::size_for(backends.len()),
        backends,
        app_protocol: port.map_or(AppProtocol::Http1, |port| port.app_protocol),
    }
}

/// Endpoint ports of the Service's port: matched by name and protocol, as kube-proxy does.
fn ports<'a>(slice: &'a SliceFacts, port: &'a PortFacts) -> impl Iterator<Item = u16> + 'a {
    slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol).map(|p| p.port)
}

/// There are endpoints, but under other port names: a mistake of handwritten slices.
fn nameless(service: &ServiceFacts, port: &PortFacts, slices: &[Arc<SliceFacts>]) -> Option<Rejection> {
    let used = slices.iter().filter(|s| !s.endpoints.is_empty());
    let names: BTreeSet<String> = used.flat_map(|s| &s.ports).map(|p| format!("`{}` ({})", p.name, p.port)).collect();
    if names.is_empty() || slices.iter().any(|slice| ports(slice, port).next().is_some()) {
        return None;
    }
    let there: Vec<String> = names.into_iter().collect();
    let protocol = super::l4::wanted(port.protocol);
    let reason = format!(
        "no EndpointSlice has a {protocol} port named `{}`, so it has no endpoints; there are {}",
        port.name,
        there.join(", ")
    );
    Some(service.origin.warn("Service", format!("spec.ports[{}].name", port.index), reason))
}

/// Leaves out endpoints that are ready and meant for other zones, family by family. As kube-proxy does (KEP-2433), all are taken where one that is
/// ready is meant for no zone, or none for this one: hints are written by a controller that has seen an older state of things.
fn stay_in(zone: &str, merged: &mut BTreeMap<SocketAddr, Merged<'_>>) {
    for v4 in [true, false] {
        let mut ready = merged.iter().filter(|(a, e)| e.ready && a.is_ipv4() == v4);
        let all_meant = ready.clone().all(|(_, e)| !e.zones.is_empty());
        if all_meant && ready.any(|(_, e)| e.is_for(zone)) {
            merged.retain(|a, e| a.is_ipv4() != v4 || !e.ready || e.is_for(zone));
        }
    }
}

/// One endpoint may be in several slices while the slice controller moves it; the better state is the newer.
#[derive(Default)]
struct Merged<'a> {
    ready: bool,
    /// Terminating, but still answering.
    lingering: bool,
    node: Option<&'a Arc<str>>,
    /// That it is meant for, as one slice has it that says so.
    zones: &'a [String],
    weight: u32,
}

impl<'a> Merged<'a> {
    fn add(&mut self, endpoint: &'a EndpointFacts, slice: &SliceFacts, service: &ServiceFacts) {
        self.weight = self.weight.max(slice.weight);
        self.ready |= endpoint.ready || service.publish_not_ready;
        self.lingering |= endpoint.serving && endpoint.terminating;
        self.node = self.node.max(endpoint.node.as_ref());
        self.zones = self.zones.max(endpoint.zones.as_ref().map_or(&[], |zones| zones.as_slice()));
    }

    fn is_for(&self, zone: &str) -> bool {
        self.zones.iter().any(|z| z == zone)
    }
}

fn backends(
    merged: BTreeMap<SocketAddr, Merged<'_>>,
    name: &PoolName,
    service: &ServiceFacts,
    options: &PlanOptions,
) -> Vec<Backend> {
    // KEP-1669: where no endpoint is ready, those that are terminating and still serve get the traffic. A frontend sees one
    // family only, so each counts for itself.
    let none_ready = |v4: bool| !merged.iter().any(|(a, e)| e.ready && a.is_ipv4() == v4);
    let (none_v4, none_v6) = (none_ready(true), none_ready(false));
    let backend = |(address, endpoint): (SocketAddr, Merged<'_>)| {
        let last_resort = endpoint.lingering && if address.is_ipv4() { none_v4 } else { none_v6 };
        let by_node = if is_here(endpoint.node, options) { Forwarding::Local } else { Forwarding::Nat };
        Backend {
            address,
            weight: endpoint.weight,
            state: if endpoint.ready || last_resort { BackendState::Ready } else { BackendState::Draining },
            forwarding: if name.scope == PoolScope::Node {
                Forwarding::Local
            } else {
                service.forwarding.unwrap_or(by_node)
            },
            node: endpoint.node.cloned(),
        }
    };
    merged.into_iter().map(backend).collect()
}

fn is_here(node: Option<&Arc<str>>, options: &PlanOptions) -> bool {
    node.is_some_and(|node| **node == *options.node)
}

/// `externalTrafficPolicy: Local`, and this node holds the Service's address and has nobody to give the packets to. Said
/// only here: on the other nodes it is as it should be.
fn nobody_here(
    service: &ServiceFacts,
    slices: &[Arc<SliceFacts>],
    here: &BTreeMap<SocketAddr, Merged<'_>>,
    options: &PlanOptions,
    vips: &BTreeMap<IpAddr, Vip>,
) -> Option<Rejection> {
    if here.values().any(|e| e.ready || e.lingering) || !slices.iter().any(|s| !s.endpoints.is_empty()) {
        return None;
    }
    let owner = format!("Service {}", service.origin.name);
    let (vip, _) = vips.iter().find(|(_, vip)| vip.held_here && vip.owners.contains(&owner))?;
    let reason = format!(
        "is Local, and no endpoint on Node {} is ready, so nobody is served there, though it holds {vip}",
        options.node
    );
    Some(service.origin.warn("Service", "spec.externalTrafficPolicy", reason))
}

/// Draining endpoints count: a table must not change its size because one becomes ready.
fn table_size(service: &ServiceFacts, backends: usize, rejections: &mut Vec<Rejection>) -> u32 {
    match service.table_size {
        Some(size) if maglev::SIZES.contains(&size) => return size,
        Some(size) => {
            let reason = format!("{size} is not one of {:?}; the default is used", maglev::SIZES);
            rejections.push(service.origin.reject("Service", "metadata.annotations[sluicegate.io/table-size]", reason));
        }
        None => {}
    }
    maglev::size_for(backends)
}
