//! Snapshots made by hand, and a running proxy that serves them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use ingress_agent::model::policy::{ListenerSettings, Policy};
use ingress_agent::model::route::{
    Action, Balance, Filter, HostTable, Listener, PathMatch, Retry, Route, RouteMatch, Timeouts, Tls, VirtualHost,
    WeightedPool, Wildcard,
};
use ingress_agent::model::snapshot::{
    AppProtocol, Backend, BackendState, Certificate, Forwarding, ObjectName, Pool, PoolName, PoolScope, PrivateKey,
    Protocol, Snapshot,
};
use ingress_agent::proxy::{Proxy, ProxyOptions};
use tokio::runtime::Runtime;

pub fn pool_name(name: &str) -> PoolName {
    PoolName { service: ObjectName::new("shop", name), port: 80, protocol: Protocol::Tcp, scope: PoolScope::All }
}

pub fn endpoint(address: SocketAddr) -> Backend {
    Backend { address, weight: 1, state: BackendState::Ready, forwarding: Forwarding::Nat, node: None }
}

pub fn pool(name: &str, backends: &[SocketAddr]) -> Pool {
    let mut backends: Vec<Backend> = backends.iter().copied().map(endpoint).collect();
    backends.sort_by_key(|b| b.address);
    Pool { name: pool_name(name), backends, table_size: 251, app_protocol: AppProtocol::Http1 }
}

/// A route that forwards to one pool.
pub fn route(path: PathMatch, to: &str) -> Route {
    let forward = Action::Forward(vec![WeightedPool { pool: pool_name(to), weight: 1, filters: Vec::new() }]);
    route_doing(path, forward)
}

pub fn route_doing(path: PathMatch, action: Action) -> Route {
    Route {
        owner: ObjectName::new("shop", "web"),
        rule: format!("{path:?}"),
        matches: RouteMatch {
            path,
            unless: None,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            created: 0,
            object: ObjectName::new("shop", "web"),
        },
        filters: Vec::new(),
        action,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        balance: Balance::RoundRobin,
        max_body: None,
        policy: None,
    }
}

pub fn answering(path: PathMatch, status: u16) -> Route {
    route_doing(path, Action::Respond(StatusCode::from_u16(status).expect("a status")))
}

pub fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.to_owned())
}

pub fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.to_owned())
}

/// With another filter at the end.
pub fn filtered(mut route: Route, filter: Filter) -> Route {
    route.filters.push(filter);
    route
}

/// The routes sorted as the model says.
pub fn host(routes: Vec<Route>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost::new(routes.into_iter().map(Arc::new).collect()))
}

/// A snapshot under construction.
#[derive(Clone, Default)]
pub struct Site {
    pub hosts: HostTable,
    pub pools: Vec<Arc<Pool>>,
    pub tls: Option<Tls>,
    pub certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    pub settings: Arc<ListenerSettings>,
}

impl Site {
    /// Everything to one backend.
    pub fn to(backend: SocketAddr) -> Self {
        Self::default().pool(pool("web", &[backend])).any(vec![route(prefix(""), "web")])
    }

    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.retain(|known| known.name != pool.name);
        self.pools.push(Arc::new(pool));
        self
    }

    #[must_use]
    pub fn any(mut self, routes: Vec<Route>) -> Self {
        self.hosts.any = Some(host(routes));
        self
    }

    #[must_use]
    pub fn host(mut self, name: &str, routes: Vec<Route>) -> Self {
        self.hosts.exact.insert(name.to_owned(), host(routes));
        self
    }

    #[must_use]
    pub fn wildcard(mut self, suffix: &str, one_label: bool, routes: Vec<Route>) -> Self {
        self.hosts.wildcard.insert(suffix.to_owned(), Wildcard { one_label, host: host(routes) });
        self
    }

    /// Serves `certificate` for its names.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        let mut tls = self.tls.take().unwrap_or_default();
        let mut by_name = (*tls.by_name).clone();
        for name in &certificate.names {
            by_name.insert(name.clone(), certificate.name.clone());
        }
        tls.by_name = Arc::new(by_name);
        self.tls = Some(tls);
        self.certificates.insert(certificate.name.clone(), Arc::new(certificate));
        self
    }

    /// Everything to one backend, under a policy.
    pub fn under(backend: SocketAddr, policy: Policy) -> Self {
        let mut route = route(prefix(""), "web");
        route.policy = Some(Arc::new(policy));
        Self::default().pool(pool("web", &[backend])).any(vec![route])
    }

    pub fn snapshot(&self, generation: u64, vip: IpAddr) -> Snapshot {
        let hosts = Arc::new(self.hosts.clone());
        let mut listeners = vec![Listener {
            vip,
            port: HTTP,
            tls: None,
            hosts: Arc::clone(&hosts),
            settings: Arc::clone(&self.settings),
        }];
        if let Some(tls) = &self.tls {
            listeners.push(Listener {
                vip,
                port: HTTPS,
                tls: Some(tls.clone()),
                hosts,
                settings: Arc::clone(&self.settings),
            });
        }
        Snapshot {
            generation,
            pools: self.pools.iter().map(|p| (p.name.clone(), Arc::clone(p))).collect(),
            listeners: listeners.into_iter().map(Arc::new).collect(),
            certificates: self.certificates.clone(),
            ..Snapshot::default()
        }
    }
}

pub const HTTP: u16 = 8080;
pub const HTTPS: u16 = 8443;

/// A proxy that serves a site on an address of its own.
pub struct Served {
    pub vip: IpAddr,
    pub proxy: Option<Proxy>,
    pub runtime: Runtime,
    generation: u64,
}

impl Served {
    pub fn new(site: &Site) -> Self {
        Self::with(ProxyOptions { workers: 2, ..ProxyOptions::default() }, site)
    }

    /// One worker, for tests that count turns.
    pub fn single(site: &Site) -> Self {
        Self::with(ProxyOptions { workers: 1, ..ProxyOptions::default() }, site)
    }

    pub fn with(options: ProxyOptions, site: &Site) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let proxy = Proxy::start(options).expect("the proxy starts");
        let mut served = Self { vip: super::address(), proxy: Some(proxy), runtime, generation: 0 };
        let problems = served.apply(site);
        assert!(problems.is_empty(), "{problems:?}");
        served
    }

    pub fn apply(&mut self, site: &Site) -> Vec<String> {
        self.generation += 1;
        let snapshot = Arc::new(site.snapshot(self.generation, self.vip));
        self.apply_snapshot(snapshot)
    }

    pub fn apply_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Vec<String> {
        self.runtime.block_on(self.proxy().apply(snapshot)).expect("the workers apply")
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the proxy runs")
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.vip, HTTP)
    }

    pub fn https(&self) -> SocketAddr {
        SocketAddr::new(self.vip, HTTPS)
    }
}

/// A certificate for these names; its Secret is `shop/{secret}`.
pub fn certificate(secret: &str, names: &[&str]) -> Certificate {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let made = rcgen::CertificateParams::new(names.clone()).expect("names").self_signed(&key).expect("a certificate");
    Certificate {
        name: ObjectName::new("shop", secret),
        chain: vec![made.der().to_vec()],
        key: PrivateKey::Pkcs8(key.serialize_der()),
        names,
        not_before: std::time::UNIX_EPOCH,
        not_after: std::time::UNIX_EPOCH,
        fingerprint: [0; 32],
    }
}
