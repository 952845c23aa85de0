//! From the snapshot to what workers look things up in. Runs on the caller's thread, once for all workers, and reuses
//! every part whose `Arc` has not changed: one endpoint among 100,000 costs a walk over pointers.

mod own;

mod ways;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use super::health::Wanted;
use super::hosts::{CompiledRoute, Host, Hosts};
use super::metrics::{RouteName, RouteStats};
use super::policy::{Blocked, Patterns};
use super::pools::PoolId;
use super::terms::SharedTerms;
use super::tls::{Names, TlsBasis};
use super::upstream::io::CompiledUpstream;
use crate::model::policy::{ListenerSettings, UpstreamKeep};
use crate::model::route::{HostTable, Listener, Route, Tls, VirtualHost};
use crate::model::snapshot::{Certificate, ObjectName, Pool, PoolName, Snapshot};
use crate::model::stream::{Passthrough, Stream};
pub(super) use own::CompiledTls;
use own::own;
use ways::Ways;

/// What one generation serves.
#[derive(Default)]
pub(super) struct Routing {
    pub(super) generation: u64,
    pub(super) listeners: HashMap<SocketAddr, Arc<CompiledListener>>,
    pub(super) streams: HashMap<SocketAddr, Arc<CompiledStream>>,
}

impl Routing {
    /// Where sockets listen.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.listeners.keys().chain(self.streams.keys().filter(|address| !self.listeners.contains_key(address)))
    }

    /// How connections to backends are kept: the same on every listener.
    pub(super) fn keep(&self) -> UpstreamKeep {
        self.listeners.values().next().map_or_else(UpstreamKeep::default, |listener| listener.settings.keep)
    }

    pub(super) fn listens(&self, address: &SocketAddr) -> bool {
        self.listeners.contains_key(address) || self.streams.contains_key(address)
    }
}

pub(super) struct CompiledStream {
    pub(super) source: Arc<Stream>,
    pub(super) pool: PoolId,
}

/// TLS that is passed on.
pub(super) struct CompiledPassthrough {
    pub(super) source: Passthrough,
    pub(super) pool: PoolId,
}

pub(super) struct CompiledListener {
    pub(super) hosts: Arc<Hosts>,
    pub(super) settings: Arc<ListenerSettings>,
    pub(super) blocked: Blocked,
    /// Targets whose requests are not in the access log.
    pub(super) unlogged: Patterns,
    /// TLS is wanted; without `tls` the connection is refused, never served in clear.
    pub(super) secure: bool,
    pub(super) tls: Option<Arc<CompiledTls>>,
    /// By host; of a listener without TLS none.
    pub(super) passed: HashMap<Box<str>, Arc<CompiledPassthrough>>,
}

/// Pools that differ from the generation before; `None` is gone.
pub(super) type PoolChanges = Vec<(PoolId, Option<Given>)>;

/// A pool as workers get it.
pub(super) struct Given {
    pub(super) source: Arc<Pool>,
    pub(super) upstream: Option<Arc<CompiledUpstream>>,
    pub(super) slow_start: Option<Duration>,
}

/// Remembers the last generation's parts.
pub(super) struct Compiler {
    workers: usize,
    tls: Option<TlsBasis>,
    ways: Ways,
    terms: SharedTerms,
    /// Pools with health checks that routes of the generation lead to.
    checked: HashSet<PoolId>,
    /// Pools that workers have.
    sent: HashSet<PoolId>,
    pools: HashMap<PoolName, Arc<Pool>>,
    stats: HashMap<RouteName, Arc<RouteStats>>,
    hosts: Vec<Arc<Hosts>>,
    certified: HashMap<ObjectName, (Arc<Certificate>, Option<Arc<CertifiedKey>>)>,
    listeners: HashMap<SocketAddr, (Arc<Listener>, Arc<CompiledListener>)>,
}

impl Compiler {
    pub(super) fn new(workers: usize) -> anyhow::Result<Self> {
        Ok(Self { tls: Some(TlsBasis::new()?), ..Self::without_tls(workers) })
    }

    /// For questions about routes: listeners have no TLS to present.
    pub(super) fn without_tls(workers: usize) -> Self {
        Self {
            workers,
            tls: None,
            ways: Ways::default(),
            terms: SharedTerms::default(),
            checked: HashSet::new(),
            sent: HashSet::new(),
            pools: HashMap::new(),
            stats: HashMap::new(),
            hosts: Vec::new(),
            certified: HashMap::new(),
            listeners: HashMap::new(),
        }
    }

    pub(super) fn compile(&mut self, snapshot: &Snapshot) -> (Routing, PoolChanges, Vec<Wanted>) {
        let changed_certificates = self.certificates(snapshot);
        let mut listeners = HashMap::with_capacity(snapshot.listeners.len());
        let mut kept = HashMap::with_capacity(snapshot.listeners.len());
        let mut hosts: Vec<Arc<Hosts>> = Vec::new();
        let mut touched = false;
        for listener in &snapshot.listeners {
            let key = SocketAddr::new(listener.vip, listener.port);
            if kept.contains_key(&key) {
                tracing::warn!(%key, "two listeners on one address and port: the first serves");
                continue;
            }
            let known =
                self.listeners.get(&key).filter(|(source, _)| Arc::ptr_eq(source, listener) && !changed_certificates);
            let compiled = if let Some((_, compiled)) = known {
                if !hosts.iter().any(|h| Arc::ptr_eq(h, &compiled.hosts)) {
                    hosts.push(Arc::clone(&compiled.hosts));
                }
                Arc::clone(compiled)
            } else {
                touched = true;
                let table = self.host_table(&listener.hosts, &mut hosts);
                let tls = listener.tls.as_ref().and_then(|tls| {
                    self.listener_tls(key, tls, &listener.hosts, &listener.settings, changed_certificates)
                });
                let settings = Arc::clone(&listener.settings);
                let blocked = Blocked::new(&settings.block);
                let (unlogged, secure) = (Patterns::new(&settings.log.skip), listener.tls.is_some());
                let passed = listener.hosts.passed.iter().filter(|_| secure).map(|(name, source)| {
                    let pool = self.ways.of(&source.pool, None, None);
                    (name.as_str().into(), Arc::new(CompiledPassthrough { source: source.clone(), pool }))
                });
                let passed = passed.collect();
                Arc::new(CompiledListener { hosts: table, settings, blocked, unlogged, secure, tls, passed })
            };
            kept.insert(key, (Arc::clone(listener), Arc::clone(&compiled)));
            listeners.insert(key, compiled);
        }
        if touched || kept.len() != self.listeners.len() {
            self.hosts = hosts;
            self.listeners = kept;
            self.forget_stats();
            self.find_checked();
        }
        let streams = snapshot.streams.iter().map(|stream| {
            let (source, pool) = (Arc::clone(stream), self.ways.of(&stream.pool, None, None));
            (SocketAddr::new(stream.vip, stream.port), Arc::new(CompiledStream { source, pool }))
        });
        let streams = streams.collect();
        let changes = self.pool_changes(snapshot);
        (Routing { generation: snapshot.generation, listeners, streams }, changes, self.checks())
    }

    /// Statistics of the routes of this generation.
    pub(super) fn stats(&self) -> impl Iterator<Item = &Arc<RouteStats>> {
        self.stats.values()
    }

    fn host_table(&mut self, table: &Arc<HostTable>, done: &mut Vec<Arc<Hosts>>) -> Arc<Hosts> {
        let last = self.hosts.iter().chain(done.iter()).find(|h| Arc::ptr_eq(&h.source, table)).map(Arc::clone);
        if let Some(last) = last {
            if !done.iter().any(|h| Arc::ptr_eq(h, &last)) {
                done.push(Arc::clone(&last));
            }
            return last;
        }
        // By the address of the old source, which the old host keeps alive.
        let known: HashMap<*const VirtualHost, Arc<Host>> =
            self.hosts.iter().flat_map(|h| h.all()).map(|h| (Arc::as_ptr(&h.source), Arc::clone(h))).collect();
        let mut compiled = HashMap::new();
        let hosts = Hosts::new(table, |source| {
            if let Some(known) = known.get(&Arc::as_ptr(source)) {
                return Arc::clone(known);
            }
            let host = compiled.entry(Arc::as_ptr(source)).or_insert_with(|| self.host(source));
            Arc::clone(host)
        });
        let hosts = Arc::new(hosts);
        done.push(Arc::clone(&hosts));
        hosts
    }

    fn host(&mut self, source: &Arc<VirtualHost>) -> Arc<Host> {
        Arc::new(Host::new(source, |route| self.route(route)))
    }

    fn route(&mut self, route: &Arc<Route>) -> Arc<CompiledRoute> {
        let name = Arc::new((route.owner.clone(), route.rule.clone()));
        let workers = self.workers;
        let stats =
            self.stats.entry(name).or_insert_with_key(|name| Arc::new(RouteStats::new(Arc::clone(name), workers)));
        let stats = Arc::clone(stats);
        let (ways, terms) = (&mut self.ways, self.terms.of(route));
        Arc::new(CompiledRoute::new(route, stats, terms, |name, upstream, care| ways.of(name, upstream, care)))
    }

    /// A route that left takes its statistics with it, once nobody uses them.
    fn forget_stats(&mut self) {
        let routes = self.hosts.iter().flat_map(|h| h.all()).flat_map(|h| h.routes());
        let used: HashSet<*const RouteStats> = routes.map(|route| Arc::as_ptr(&route.stats)).collect();
        self.stats.retain(|_, stats| used.contains(&Arc::as_ptr(stats)));
        self.terms.forget_unused();
    }

    /// A pool stays known after the last route to it has gone, since a request may be on its way; its endpoints are left alone.
    fn find_checked(&mut self) {
        self.checked.clear();
        if !self.ways.any_checked() {
            return;
        }
        let known: HashSet<PoolId> = self.ways.checked().map(|(_, way)| way.id).collect();
        for route in self.hosts.iter().flat_map(|h| h.all()).flat_map(|h| h.routes()) {
            let pools = route.pools.iter().map(|(id, _)| *id);
            let all = pools.chain(route.canaries.iter().map(|canary| canary.pool));
            self.checked.extend(all.filter(|id| known.contains(id)));
        }
    }

    /// Whose endpoints are to be checked.
    fn checks(&self) -> Vec<Wanted> {
        let ways = self.ways.checked().filter(|(_, way)| self.checked.contains(&way.id));
        let wanted = ways.filter_map(|(name, way)| {
            let check = Arc::new(way.care.as_ref()?.health.clone()?);
            let pool = Arc::clone(self.pools.get(name)?);
            Some(Wanted { id: way.id, pool, upstream: way.upstream.clone(), check })
        });
        wanted.collect()
    }

    fn pool_changes(&mut self, snapshot: &Snapshot) -> PoolChanges {
        let mut changes = Vec::new();
        for (name, pool) in &snapshot.pools {
            let same = self.pools.get(name).is_some_and(|known| Arc::ptr_eq(known, pool));
            if !same {
                self.ways.of(name, None, None);
                self.pools.insert(name.clone(), Arc::clone(pool));
            }
            for way in self.ways.all(name) {
                if self.sent.insert(way.id) || !same {
                    let (source, upstream) = (Arc::clone(pool), way.upstream.clone());
                    let slow_start = way.care.as_ref().and_then(|care| care.slow_start);
                    changes.push((way.id, Some(Given { source, upstream, slow_start })));
                }
            }
        }
        if self.pools.len() > snapshot.pools.len() {
            let gone: Vec<PoolName> = self.pools.keys().filter(|n| !snapshot.pools.contains_key(*n)).cloned().collect();
            for name in gone {
                self.pools.remove(&name);
                for way in self.ways.all(&name) {
                    self.sent.remove(&way.id);
                    changes.push((way.id, None));
                }
            }
        }
        changes
    }

    fn listener_tls(
        &self,
        key: SocketAddr,
        tls: &Tls,
        hosts: &HostTable,
        settings: &ListenerSettings,
        changed: bool,
    ) -> Option<Arc<CompiledTls>> {
        let basis = self.tls.as_ref()?;
        let own = own(hosts);
        let same = |known: &&Arc<CompiledTls>| !changed && known.is_of(tls, &own, settings);
        if let Some(known) = self.listeners.values().filter_map(|(_, l)| l.tls.as_ref()).find(same) {
            return Some(Arc::clone(known));
        }
        let certified = |name: &ObjectName| self.certified.get(name).and_then(|(_, key)| key.clone());
        let by_name = tls.by_name.iter().filter_map(|(name, secret)| Some((name.as_str().into(), certified(secret)?)));
        let default = tls.default.as_ref().and_then(certified).unwrap_or_else(|| basis.default());
        let strict = settings.tls.reject_unknown;
        let names = Arc::new(Names { by_name: by_name.collect(), default, strict });
        match CompiledTls::new(basis, tls, &names, own, settings) {
            Ok(made) => Some(Arc::new(made)),
            Err(error) => {
                tracing::error!(%key, "TLS: {error:#}");
                None
            }
        }
    }

    /// Parses the new ones; true if any differs from before.
    fn certificates(&mut self, snapshot: &Snapshot) -> bool {
        let Some(basis) = &self.tls else { return false };
        let mut changed = false;
        for (name, certificate) in &snapshot.certificates {
            if self.certified.get(name).is_some_and(|(known, _)| Arc::ptr_eq(known, certificate)) {
                continue;
            }
            changed = true;
            let key = basis.certified(certificate).map_err(|error| tracing::error!("{error:#}")).ok();
            self.certified.insert(name.clone(), (Arc::clone(certificate), key));
        }
        let before = self.certified.len();
        self.certified.retain(|name, _| snapshot.certificates.contains_key(name));
        changed || self.certified.len() != before
    }
}
