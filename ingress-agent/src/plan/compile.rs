//! One Ingress → the routes it asks for. Who gets them is decided in `hosts`.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use http::StatusCode;

use super::PlanOptions;
use super::claim::{CanaryClaim, Claim, Rank, expression};
use super::l4::wanted;
use super::nginx::{Asked, Found, Seen, Settings, expression_contrast, path_fault, to_slash};
use super::policies::Policies;
use crate::model::difference::Contrast;
use crate::model::facts::{
    BackendRef, Exposure, Facts, HostFacts, IngressFacts, PathFacts, PathKind, PortRef, RuleFacts, ServiceFacts,
};
use crate::model::objects::Objects;
use crate::model::policy::Policy;
use crate::model::rejection::Rejection;
use crate::model::route::{
    Action, Balance, PathMatch, PathRewrite, Redirect, RedirectPort, Retry, Route, RouteMatch, Timeouts, WeightedPool,
};
use crate::model::snapshot::{ObjectName, PoolName, PoolScope, Protocol};

/// An Ingress, compiled, and what that depended on.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) ingress: Arc<IngressFacts>,
    /// Every Service that it names, as it was found.
    services: Vec<(ObjectName, Option<Arc<ServiceFacts>>)>,
    /// Other objects that its annotations name.
    seen: Seen,
    settings: Arc<Settings>,
    pub(super) asked: Asked,
    pub(super) claims: Vec<Claim>,
    /// Of an Ingress that takes some of another one's requests.
    pub(super) canaries: Vec<CanaryClaim>,
    /// Each once.
    pub(super) pools: Vec<PoolName>,
    pub(super) rejections: Vec<Rejection>,
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
    pub(super) fn holds(&self, ingress: &Arc<IngressFacts>, facts: &Facts, settings: &Arc<Settings>) -> bool {
        let same = |(name, found): &(ObjectName, Option<Arc<ServiceFacts>>)| {
            facts.services.find(name).map(Arc::as_ptr) == found.as_ref().map(Arc::as_ptr)
        };
        Arc::ptr_eq(&self.ingress, ingress)
            && Arc::ptr_eq(&self.settings, settings)
            && self.services.iter().all(same)
            && self.seen.holds(facts)
    }
}

pub(super) fn compile(
    ingress: &Arc<IngressFacts>,
    facts: &Facts,
    names: Names,
    settings: &Arc<Settings>,
    policies: &mut Policies,
) -> Compiled {
    let mut found = Found::new(facts);
    let (asked, rejections) = Asked::read(ingress, settings, &mut found);
    let mut compiled = Compiled {
        ingress: Arc::clone(ingress),
        services: Vec::new(),
        seen: found.seen,
        settings: Arc::clone(settings),
        asked,
        claims: Vec::new(),
        canaries: Vec::new(),
        pools: Vec::new(),
        rejections,
    };
    for name in found.services {
        compiled.services.push((name.clone(), facts.services.find(&name).cloned()));
    }
    for remark in &ingress.unheeded {
        let told = ingress.origin.warn("Ingress", &*remark.field, &*remark.reason);
        compiled.rejections.push(told.contrasted(Contrast::Listed));
    }
    if compiled.asked.dropped {
        return compiled;
    }
    if ingress.catch_all && !settings.catch_all {
        let why = "there are no rules, and with `--disable-catch-all` no Ingress takes the hosts that nobody names";
        compiled.rejections.push(ingress.origin.reject("Ingress", "spec.defaultBackend", why));
        return compiled;
    }
    let services = &facts.services;
    for rule in &ingress.rules {
        for path in &rule.paths {
            compiled.path(rule, path, services, names);
        }
    }
    compiled.locations();
    if let Some(backend) = ingress.default_backend.as_ref().filter(|_| compiled.asked.canary.is_none()) {
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
            let route = compiled.route(rule_text, everything, action.clone(), balance, compiled.asked.of_rest());
            let field = "spec.defaultBackend".to_owned();
            let path = "/".to_owned();
            let (rank, unslashed, makes_regex) = (Rank::Fallback, None, false);
            let as_expression = OnceLock::new();
            compiled.claims.push(Claim { host, route, rank, path, makes_regex, as_expression, unslashed, field });
        }
    }
    if let Some(pool) = compiled.claims.iter().find_map(|c| c.route.policy.as_ref()?.errors.as_ref()?.pool.clone()) {
        compiled.reaches(pool);
    }
    // By host, as it is looked for; of one host in the order in which they were written.
    compiled.claims.sort_by(|a, b| a.host.cmp(&b.host));
    compiled.share(policies);
    compiled
}

impl Compiled {
    /// The hosts that it names, each once.
    pub(super) fn hosts(&self) -> BTreeSet<&HostFacts> {
        self.ingress.rules.iter().map(|rule| &rule.host).chain(self.claims.iter().map(|claim| &claim.host)).collect()
    }

    pub(super) fn claims_on(&self, host: &HostFacts) -> &[Claim] {
        let from = self.claims.partition_point(|claim| claim.host < *host);
        let claims = &self.claims[from..];
        &claims[..claims.partition_point(|claim| claim.host == *host)]
    }

    fn reaches(&mut self, pool: PoolName) {
        if !self.pools.contains(&pool) {
            self.pools.push(pool);
        }
    }

    /// There are many like it, and it stays.
    fn share(&mut self, policies: &mut Policies) {
        self.services.shrink_to_fit();
        self.claims.shrink_to_fit();
        self.pools.shrink_to_fit();
        policies.share(&mut self.asked.policy);
        for claim in &mut self.claims {
            if let Some(policy) = Arc::get_mut(&mut claim.route).and_then(|route| route.policy.as_mut()) {
                policies.share(policy);
            }
            if claim.makes_regex {
                // Its path was found to be one.
                let _ = claim.as_expression.set(Some(expression(&claim.route, &claim.path)));
            }
        }
    }

    fn path(&mut self, rule: &RuleFacts, path: &PathFacts, services: &Objects<ServiceFacts>, names: Names) {
        let makes_regex = self.asked.makes_regex(&path.path);
        if makes_regex && let Some(fault) = path_fault(&path.path) {
            let reason = format!("`{}` is not a regular expression that is taken here: {fault}", path.path);
            let rejection = self.ingress.origin.reject("Ingress", format!("{}.path", path.field), reason);
            self.rejections.push(rejection.contrasted(expression_contrast(&fault)));
            return;
        }
        let (action, balance) = self.forward(&path.backend, services, names);
        if let Some(wanted) = &self.asked.canary {
            if let Action::Forward(pools) = &action {
                let canary = wanted.to(pools[0].pool.clone());
                let (host, field) = (rule.host.clone(), path.field.clone());
                self.canaries.push(CanaryClaim { host, path: path.path.clone(), canary, field });
            }
            return;
        }
        let rule_text = format!("{}{} ({})", host_text(&rule.host), path.path, kind_text(path.kind));
        let unslashed = slash_redirect(&self.ingress, path, &rule_text, &self.asked);
        let port = match &path.backend.port {
            PortRef::Number(number) => number.to_string(),
            PortRef::Name(name) => name.clone(),
        };
        let policy = self.asked.of_path(&path.path, Some((&path.backend.service.name, &port)));
        let route = self.route(rule_text, path_match(path), action, balance, policy);
        let (host, field) = (rule.host.clone(), path.field.clone());
        let (rank, path) = (Rank::Rule, path.path.clone());
        let as_expression = OnceLock::new();
        self.claims.push(Claim { host, route, rank, path, makes_regex, as_expression, unslashed, field });
    }

    /// Paths that a server-snippet has, on each of the Ingress's hosts.
    fn locations(&mut self) {
        let hosts: BTreeSet<HostFacts> = self.ingress.rules.iter().map(|r| r.host.clone()).collect();
        let mut claims = Vec::new();
        for (location, host) in self.asked.locations.iter().flat_map(|l| hosts.iter().map(move |h| (l, h))) {
            let policy = Policy { snippet: Some(Arc::new(location.snippet.clone())), ..Policy::default() };
            let rule = format!("{}{} (server-snippet)", host_text(host), location.pattern);
            // The snippet answers; what it would come to otherwise is nobody's path.
            let action = Action::Respond(StatusCode::NOT_FOUND);
            let route = self.route(rule, location.path.clone(), action, Balance::default(), policy);
            let field = self.ingress.annotation_field("server-snippet");
            let (host, path) = (host.clone(), location.pattern.clone());
            let (rank, makes_regex, unslashed) = (Rank::Rule, false, None);
            let as_expression = OnceLock::new();
            claims.push(Claim { host, route, rank, path, makes_regex, as_expression, unslashed, field });
        }
        self.claims.append(&mut claims);
    }

    fn route(&self, rule: String, path: PathMatch, action: Action, balance: Balance, policy: Policy) -> Arc<Route> {
        let origin = &self.ingress.origin;
        let (action, policy) = if self.asked.denied {
            // Nothing else of it may answer, either.
            (Action::Respond(StatusCode::SERVICE_UNAVAILABLE), Policy::default())
        } else {
            (action, policy)
        };
        let mut route = plain_route(&origin.name, origin.created, rule, path, action, balance);
        route.timeouts = self.asked.timeouts;
        route.retry = self.asked.retry;
        route.max_body = self.asked.max_body;
        route.filters.clone_from(&self.asked.filters);
        route.policy = Some(Arc::new(policy));
        Arc::new(route)
    }

    /// What answers a host's paths that nobody has.
    pub(super) fn rest(&self, host: &HostFacts, action: Action) -> Arc<Route> {
        let rule = format!("{} (paths that nobody has)", host_text(host));
        self.route(rule, PathMatch::Prefix(String::new()), action, Balance::default(), self.asked.of_rest())
    }

    /// A backend that leads nowhere answers 503 on its own path (golden case 021) and harms no other.
    fn forward(&mut self, backend: &BackendRef, services: &Objects<ServiceFacts>, names: Names) -> (Action, Balance) {
        let found = services.find(&backend.service).cloned();
        if !self.services.iter().any(|(name, _)| *name == backend.service) {
            self.services.push((backend.service.clone(), found));
        }
        let origin = &self.ingress.origin;
        match resolve(backend, Protocol::Tcp, services, names) {
            Ok((service, mut pool)) => {
                pool.scope = self.asked.scope_of(service);
                self.reaches(pool.clone());
                let balance = self.ingress.balance.or(self.asked.balance).or(service.balance).unwrap_or_default();
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
            return Ok((service, PoolName { service: name.clone(), port, protocol, scope: PoolScope::All }));
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
    Ok((service, PoolName { service: name.clone(), port: port.port, protocol, scope: PoolScope::All }))
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
fn slash_redirect(ingress: &IngressFacts, path: &PathFacts, rule: &str, asked: &Asked) -> Option<Arc<Route>> {
    let without = path.path.strip_suffix('/').filter(|p| !p.is_empty())?;
    let redirect = Redirect {
        scheme: None,
        host: None,
        port: if asked.port_in_redirects { RedirectPort::Own } else { RedirectPort::Usual },
        path: Some(PathRewrite::Full(path.path.clone())),
        status: StatusCode::MOVED_PERMANENTLY,
    };
    let exact = PathMatch::Exact(without.to_owned());
    let origin = &ingress.origin;
    let action = Action::Redirect(redirect);
    let mut route = plain_route(&origin.name, origin.created, rule.to_owned(), exact, action, Balance::default());
    if asked.relative {
        let redirect = Some(to_slash(&path.path));
        route.policy = Some(Arc::new(Policy { redirect, ..Policy::default() }));
    }
    Some(Arc::new(route))
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
        matches: RouteMatch { path, unless: None, method: None, headers, query, created, object: owner.clone() },
        filters: Vec::new(),
        action,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        balance,
        max_body: None,
        policy: None,
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
