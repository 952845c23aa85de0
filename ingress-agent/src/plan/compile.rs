//! One Ingress → the routes it asks for. Who gets them is decided in `hosts`.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;

use super::PlanOptions;
use super::l4::wanted;
use crate::model::facts::{BackendRef, Exposure, HostFacts, IngressFacts, PathFacts, PathKind, PortRef, ServiceFacts};
use crate::model::objects::Objects;
use crate::model::rejection::Rejection;
use crate::model::route::{
    Action, Balance, PathMatch, PathRewrite, Redirect, Retry, Route, RouteMatch, Timeouts, WeightedPool,
};
use crate::model::snapshot::{ObjectName, PoolName, Protocol};

/// An Ingress, compiled, and what that depended on.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) ingress: Arc<IngressFacts>,
    /// Every Service that it names, as it was found.
    services: Vec<(ObjectName, Option<Arc<ServiceFacts>>)>,
    pub(super) claims: Vec<Claim>,
    pub(super) pools: BTreeSet<PoolName>,
    pub(super) rejections: Vec<Rejection>,
}

/// A route that an Ingress asks for on a host.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) host: HostFacts,
    pub(super) route: Arc<Route>,
    pub(super) rank: Rank,
    /// Of a path that ends in a slash: what answers the same path without it, where nobody else does.
    pub(super) unslashed: Option<Arc<Route>>,
    /// For messages.
    pub(super) field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// A rule.
    Rule,
    /// A default backend: only where no rule takes every path.
    Fallback,
}

/// Why a reference leads nowhere.
pub(super) struct Fault {
    /// Within the backend: `.name` or `.port`.
    pub(super) part: &'static str,
    pub(super) reason: String,
}

/// What Services of type `ExternalName` are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Resolved,
    Off,
    /// Packets are forwarded to endpoints, which are known before; a name is looked up for the proxy.
    NotHere,
}

impl Names {
    pub(super) fn of(options: &PlanOptions) -> Self {
        if options.external_names { Self::Resolved } else { Self::Off }
    }
}

impl Compiled {
    /// Whether compiling it again would give the same.
    pub(super) fn holds(&self, ingress: &Arc<IngressFacts>, services: &Objects<ServiceFacts>) -> bool {
        let same = |(name, found): &(ObjectName, Option<Arc<ServiceFacts>>)| {
            services.find(name).map(Arc::as_ptr) == found.as_ref().map(Arc::as_ptr)
        };
        Arc::ptr_eq(&self.ingress, ingress) && self.services.iter().all(same)
    }
}

pub(super) fn compile(ingress: &Arc<IngressFacts>, services: &Objects<ServiceFacts>, names: Names) -> Compiled {
    let mut compiled = Compiled {
        ingress: Arc::clone(ingress),
        services: Vec::new(),
        claims: Vec::new(),
        pools: BTreeSet::new(),
        rejections: Vec::new(),
    };
    for remark in &ingress.unheeded {
        compiled.rejections.push(ingress.origin.warn("Ingress", &*remark.field, &*remark.reason));
    }
    for rule in &ingress.rules {
        for path in &rule.paths {
            let (action, balance) = compiled.forward(&path.backend, services, names);
            let rule_text = format!("{}{} ({})", host_text(&rule.host), path.path, kind_text(path.kind));
            let unslashed = slash_redirect(ingress, path, &rule_text);
            let route = route(ingress, rule_text, path_match(path), action, balance);
            let (host, field) = (rule.host.clone(), path.field.clone());
            compiled.claims.push(Claim { host, route, rank: Rank::Rule, unslashed, field });
        }
    }
    if let Some(backend) = &ingress.default_backend {
        let (action, balance) = compiled.forward(backend, services, names);
        // With rules it is the default of their hosts; an Ingress of nothing else takes the unknown hosts (observed in
        // ingress-nginx: golden cases 014 and 015).
        let hosts: BTreeSet<HostFacts> = if ingress.catch_all {
            BTreeSet::from([HostFacts::Any])
        } else {
            ingress.rules.iter().map(|r| r.host.clone()).collect()
        };
        for host in hosts {
            let rule_text = format!("{} (default backend)", host_text(&host));
            let everything = PathMatch::Prefix(String::new());
            let route = route(ingress, rule_text, everything, action.clone(), balance);
            let field = "spec.defaultBackend".to_owned();
            compiled.claims.push(Claim { host, route, rank: Rank::Fallback, unslashed: None, field });
        }
    }
    compiled
}

impl Compiled {
    /// A backend that leads nowhere answers 503 on its own path (golden case 021) and harms no other.
    fn forward(&mut self, backend: &BackendRef, services: &Objects<ServiceFacts>, names: Names) -> (Action, Balance) {
        let found = services.find(&backend.service).cloned();
        if !self.services.iter().any(|(name, _)| *name == backend.service) {
            self.services.push((backend.service.clone(), found));
        }
        let origin = &self.ingress.origin;
        match resolve(backend, Protocol::Tcp, services, names) {
            Ok((service, pool)) => {
                self.pools.insert(pool.clone());
                let balance = self.ingress.balance.or(service.balance).unwrap_or_default();
                (Action::Forward(vec![WeightedPool { pool, weight: 1, filters: Vec::new() }]), balance)
            }
            Err(fault) => {
                let field = format!("{}{}", backend.field, fault.part);
                let reason = format!("{}; its requests are answered with 503", fault.reason);
                self.rejections.push(origin.reject("Ingress", field, reason));
                (Action::Respond(StatusCode::SERVICE_UNAVAILABLE), Balance::default())
            }
        }
    }
}

/// The Service port that a reference means.
pub(super) fn resolve<'a>(
    backend: &BackendRef,
    protocol: Protocol,
    services: &'a Objects<ServiceFacts>,
    names: Names,
) -> Result<(&'a Arc<ServiceFacts>, PoolName), Fault> {
    let name = &backend.service;
    let Some(service) = services.find(name) else {
        return Err(Fault { part: ".name", reason: format!("there is no Service {name}") });
    };
    if let Exposure::ExternalName(_) = service.exposure {
        let refused = match names {
            Names::Resolved => None,
            Names::Off => Some("and names are not resolved here (`--disable-svc-external-name`)"),
            Names::NotHere => Some("which only an Ingress may name"),
        };
        if let Some(why) = refused {
            let reason = format!("Service {name} is of type ExternalName, {why}");
            return Err(Fault { part: ".name", reason });
        }
        // As in ingress-nginx: it need not say which ports there are.
        if let PortRef::Number(port) = backend.port {
            return Ok((service, PoolName { service: name.clone(), port, protocol, local: false }));
        }
    }
    let named = |p: &&crate::model::facts::PortFacts| {
        p.protocol == protocol
            && match &backend.port {
                PortRef::Number(number) => p.port == *number,
                PortRef::Name(port) => p.name == *port,
            }
    };
    let Some(port) = service.ports.iter().find(named) else {
        let wanted = wanted(protocol);
        let (part, port) = match &backend.port {
            PortRef::Number(number) => (".port.number", number.to_string()),
            PortRef::Name(port) => (".port.name", format!("named `{port}`")),
        };
        return Err(Fault { part, reason: format!("Service {name} has no {wanted} port {port}") });
    };
    // `externalTrafficPolicy` is about packets for the Service's own addresses; whoever refers to it means all endpoints.
    Ok((service, PoolName { service: name.clone(), port: port.port, protocol, local: false }))
}

fn path_match(path: &PathFacts) -> PathMatch {
    match path.kind {
        PathKind::Exact => PathMatch::Exact(path.path.clone()),
        // ingress-nginx's ImplementationSpecific is its Prefix (golden cases 003 and 007).
        PathKind::Prefix | PathKind::ImplementationSpecific => {
            PathMatch::Prefix(path.path.strip_suffix('/').unwrap_or(&path.path).to_owned())
        }
    }
}

/// nginx sends a request for `/foo` to `/foo/` where only the latter is configured (golden case 004).
fn slash_redirect(ingress: &IngressFacts, path: &PathFacts, rule: &str) -> Option<Arc<Route>> {
    let without = path.path.strip_suffix('/').filter(|p| !p.is_empty())?;
    let redirect = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: Some(PathRewrite::Full(path.path.clone())),
        status: StatusCode::MOVED_PERMANENTLY,
    };
    let exact = PathMatch::Exact(without.to_owned());
    Some(route(ingress, rule.to_owned(), exact, Action::Redirect(redirect), Balance::default()))
}

fn route(ingress: &IngressFacts, rule: String, path: PathMatch, action: Action, balance: Balance) -> Arc<Route> {
    Arc::new(plain_route(&ingress.origin.name, ingress.origin.created, rule, path, action, balance))
}

/// A route that looks at the path alone and leaves the rest at its defaults.
pub(super) fn plain_route(
    owner: &ObjectName,
    created: i64,
    rule: String,
    path: PathMatch,
    action: Action,
    balance: Balance,
) -> Route {
    let (headers, query) = (Vec::new(), Vec::new());
    Route {
        owner: owner.clone(),
        rule,
        matches: RouteMatch { path, method: None, headers, query, created, object: owner.clone() },
        filters: Vec::new(),
        action,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        balance,
        max_body: None,
    }
}

pub(super) fn host_text(host: &HostFacts) -> String {
    match host {
        HostFacts::Any => "any host".to_owned(),
        HostFacts::Wildcard(suffix) => format!("*.{suffix}"),
        HostFacts::Exact(name) => name.clone(),
    }
}

fn kind_text(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Exact => "Exact",
        PathKind::Prefix => "Prefix",
        PathKind::ImplementationSpecific => "ImplementationSpecific",
    }
}
