//! L4: which (address, protocol, port) is forwarded to which pool, and who wins where several claim one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::{PlanOptions, compile, http::Http, keep, kube_proxy, served};
use crate::model::facts::{Facts, Origin, ServiceFacts, StreamFacts, VipFacts};
use crate::model::objects::Objects;
use crate::model::rejection::Rejection;
use crate::model::snapshot::{
    Frontend, FrontendKey, FrontendKind, ObjectName, PoolName, PoolScope, Protocol, ServedObject,
};
use crate::model::stream::Stream;

#[derive(Debug, Default)]
pub(super) struct L4 {
    /// Sorted by key.
    pub(super) frontends: Vec<Arc<Frontend>>,
    pub(super) pools: BTreeSet<PoolName>,
    /// Who asked for which address.
    pub(super) owners: BTreeSet<(IpAddr, String)>,
    /// Services and their addresses.
    pub(super) served: Arc<Vec<Arc<ServedObject>>>,
    pub(super) rejections: Vec<Rejection>,
    /// Sorted by address and port.
    pub(super) streams: Vec<Arc<Stream>>,
}

/// Endpoints play no part here.
pub(super) fn same_input(a: &Facts, b: &Facts) -> bool {
    fn same(a: Option<&Arc<StreamFacts>>, b: Option<&Arc<StreamFacts>>) -> bool {
        a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
    }
    a.services.same(&b.services)
        && same(a.tcp_streams.as_ref(), b.tcp_streams.as_ref())
        && same(a.udp_streams.as_ref(), b.udp_streams.as_ref())
}

pub(super) fn plan(facts: &Facts, options: &PlanOptions, addresses: &Addresses, http: &Http, last: Option<&L4>) -> L4 {
    let listeners = http.frontends.iter().map(|f| (f.key, ("the HTTP listener".to_owned(), None)));
    let mut claims = Claims {
        options,
        taken: listeners.collect(),
        frontends: BTreeMap::new(),
        served: BTreeMap::new(),
        streams: BTreeMap::new(),
        l4: L4::default(),
    };

    for streams in [&facts.tcp_streams, &facts.udp_streams].into_iter().flatten() {
        claims.streams(streams, &http.vips, &facts.services);
    }
    let exposed = addresses.services.iter().filter(|(_, given)| !given.is_empty());
    let mut services: Vec<_> = exposed.filter_map(|(name, given)| Some((facts.services.find(name)?, given))).collect();
    services.sort_by_key(|(s, _)| s.origin.seniority());
    for (service, given) in services {
        claims.service(service, given);
    }

    let old: BTreeMap<FrontendKey, &Arc<Frontend>> =
        last.iter().flat_map(|l| &l.frontends).map(|f| (f.key, f)).collect();
    let kept = claims.frontends.into_values().map(|f| {
        let before = old.get(&f.key).copied();
        keep(f, before)
    });
    let now = claims.served.iter().map(|(name, addresses)| (name, addresses.iter().copied().collect()));
    let served = served::list(now, last.map(|l| &l.served));
    let old = |stream: &Stream| {
        let mut all = last.iter().flat_map(|l| &l.streams);
        all.find(|o| (o.vip, o.port) == (stream.vip, stream.port))
    };
    let streams = claims.streams.into_values().map(|stream| {
        let before = old(&stream);
        keep(stream, before)
    });
    let (frontends, streams) = (kept.collect(), streams.collect());
    let mut l4 = L4 { frontends, served, streams, ..claims.l4 };
    l4.rejections.extend(kube_proxy::warnings(facts, http, &l4.streams));
    l4
}

struct Claims<'a> {
    options: &'a PlanOptions,
    /// By whom, for the messages.
    taken: BTreeMap<FrontendKey, (String, Option<Origin>)>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    /// By Service: where it got a port.
    served: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
    streams: BTreeMap<FrontendKey, Stream>,
    l4: L4,
}

/// What a frontend holds of its clients.
struct Clients {
    affinity: Option<u32>,
    sources: Option<Vec<IpNet>>,
}

impl Claims<'_> {
    fn service(&mut self, service: &ServiceFacts, given: &[VipFacts]) {
        let origin = &service.origin;
        for vip in given {
            let sources = self.sources(service, vip.address);
            for port in &service.ports {
                let key = FrontendKey { vip: vip.address, protocol: port.protocol, port: port.port };
                let (name, local) = (origin.name.clone(), service.external_traffic_local);
                let pool = PoolName {
                    service: name,
                    port: port.port,
                    protocol: port.protocol,
                    scope: if local { PoolScope::Node } else { PoolScope::All },
                };
                let field = format!("spec.ports[{}].port", port.index);
                let clients = Clients { affinity: service.client_ip_affinity, sources: sources.clone() };
                // `externalIPs` are their owner's own: nobody has to be told of them.
                let claimed = self.claim(key, pool, clients, "Service", origin, field);
                if claimed && !service.external_ips.contains(vip) {
                    self.served.entry(origin.name.clone()).or_default().insert(vip.address);
                }
            }
        }
    }

    /// The ranges that can hold a client of this VIP.
    fn sources(&mut self, service: &ServiceFacts, vip: IpAddr) -> Option<Vec<IpNet>> {
        let all = service.source_ranges.as_ref()?;
        let ranges: Vec<IpNet> = all.iter().filter(|r| r.addr().is_ipv4() == vip.is_ipv4()).copied().collect();
        if ranges.is_empty() {
            // kube-proxy would admit everybody here; whoever wrote a list meant a list.
            let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!("has no range of {family}, so nobody reaches {vip}");
            self.l4.rejections.push(service.origin.warn("Service", "spec.loadBalancerSourceRanges", reason));
        }
        Some(ranges)
    }

    fn streams(&mut self, streams: &StreamFacts, addresses: &BTreeSet<IpAddr>, services: &Objects<ServiceFacts>) {
        for stream in &streams.ports {
            let backend = &stream.backend;
            let (service, pool) = match compile::resolve(backend, streams.protocol, services, compile::Names::NotHere) {
                Ok(found) => found,
                Err(fault) => {
                    self.l4.rejections.push(streams.origin.reject("ConfigMap", backend.field.as_str(), fault.reason));
                    continue;
                }
            };
            if addresses.is_empty() {
                let reason =
                    "is not served: there is no ingress address (`--ingress-vip` or an IngressClass's annotation)";
                self.l4.rejections.push(streams.origin.reject("ConfigMap", backend.field.as_str(), reason));
            }
            let proxy_protocol = stream.proxy_protocol;
            if proxy_protocol.is_spoken() && service.client_ip_affinity.is_some() {
                let reason =
                    "speaks the PROXY protocol, so the proxy balances it, which does not know `sessionAffinity`";
                self.l4.rejections.push(streams.origin.warn("ConfigMap", backend.field.as_str(), reason));
            }
            for vip in addresses {
                let key = FrontendKey { vip: *vip, protocol: streams.protocol, port: stream.port };
                if proxy_protocol.is_spoken() {
                    let (pool, balance) = (pool.clone(), service.balance.unwrap_or_default());
                    let stream = Stream { vip: *vip, port: stream.port, pool, balance, proxy_protocol };
                    self.stream(key, stream, &streams.origin, backend.field.clone());
                    continue;
                }
                // The Service's ranges are about its own addresses.
                let clients = Clients { affinity: service.client_ip_affinity, sources: None };
                self.claim(key, pool.clone(), clients, "ConfigMap", &streams.origin, backend.field.clone());
            }
        }
    }

    /// The proxy's, as HTTP is.
    fn stream(&mut self, key: FrontendKey, stream: Stream, origin: &Origin, field: String) {
        let Some(owner) = self.take(key, "ConfigMap", origin, field) else { return };
        self.l4.pools.insert(stream.pool.clone());
        self.l4.owners.insert((key.vip, owner));
        let frontend = Frontend { key, owner: stream.pool.service.clone(), kind: FrontendKind::L7 };
        self.frontends.insert(key, frontend);
        self.streams.insert(key, stream);
    }

    /// First come, first served: callers come in the order of their right. The name of the owner, if it has it now.
    fn take(&mut self, key: FrontendKey, kind: &str, origin: &Origin, field: String) -> Option<String> {
        let owner = format!("{kind} {}", origin.name);
        if let Some((winner, theirs)) = self.taken.get(&key) {
            let why = theirs.as_ref().map_or("which comes before everybody", |theirs| theirs.why_before(origin));
            self.l4.rejections.push(origin.reject(kind, field, format!("{key} is taken by {winner}, {why}")));
            return None;
        }
        // A ConfigMap's age does not matter: the operator named it.
        self.taken.insert(key, (owner.clone(), (kind == "Service").then(|| origin.clone())));
        Some(owner)
    }

    /// As `take`. Returns whether it got it.
    fn claim(
        &mut self,
        key: FrontendKey,
        pool: PoolName,
        clients: Clients,
        kind: &str,
        origin: &Origin,
        field: String,
    ) -> bool {
        let Some(owner) = self.take(key, kind, origin, field) else { return false };
        let snat = self.options.snat.iter().find(|a| a.is_ipv4() == key.vip.is_ipv4()).copied().unwrap_or(key.vip);
        let owner_name: ObjectName = pool.service.clone();
        self.l4.pools.insert(pool.clone());
        self.l4.owners.insert((key.vip, owner));
        let Clients { affinity: client_ip_affinity, sources } = clients;
        let kind = FrontendKind::L4 { pool, client_ip_affinity, snat, sources };
        self.frontends.insert(key, Frontend { key, owner: owner_name, kind });
        true
    }
}

/// Streams of UDP need UDP ports; Ingresses need TCP.
pub(super) fn wanted(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
