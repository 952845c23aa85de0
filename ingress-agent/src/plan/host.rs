//! One host: which of its Ingresses gets which path. The older one does.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use http::StatusCode;

use super::claim::{Claim, Rank, expression};
use super::compile::{Compiled, host_text, plain_route};
use super::keep;
use crate::model::facts::{HostFacts, Origin};
use crate::model::objects::Named;
use crate::model::policy::ClientCertificates;
use crate::model::rejection::Rejection;
use crate::model::route::{Action, Balance, PathMatch, Route, VirtualHost};
use crate::model::snapshot::ObjectName;
use crate::model::stream::Passthrough;

/// One host while it is being filled.
#[derive(Default)]
struct Host<'a> {
    rules: BTreeMap<Key<'a>, Winner<'a>>,
    /// The default backend of those paths that no rule takes.
    fallback: Option<Winner<'a>>,
    /// The oldest Ingress that names it: what it asks holds for paths that nobody has.
    first: Option<&'a Compiled>,
    /// Some Ingress has TLS for it.
    secured: bool,
    /// The oldest Ingress that asks for certificates of clients decides for all of the host.
    client: Option<&'a Arc<ClientCertificates>>,
    /// And the oldest that names suites of TLS.
    suites: Option<&'a Arc<[&'static str]>>,
    /// Its paths are regular expressions (ingress-nginx: one such path makes all of the host's so).
    regex: bool,
}

/// What a path matches: nothing else tells two routes of an Ingress apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

struct Winner<'a> {
    origin: &'a Origin,
    claim: &'a Claim,
    /// With the canaries of other Ingresses.
    route: Arc<Route>,
}

impl<'a> Winner<'a> {
    fn new(origin: &'a Origin, claim: &'a Claim) -> Self {
        Self { origin, claim, route: Arc::clone(&claim.route) }
    }
}

/// A host as it was planned, with what it was planned from.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: HostFacts,
    /// The Ingresses that name it, in the order of their seniority.
    pub(super) members: Vec<Arc<Compiled>>,
    pub(super) host: Arc<VirtualHost>,
    pub(super) passed: Option<Passthrough>,
    pub(super) rejections: Vec<Rejection>,
}

impl Named for Planned {
    type Name = HostFacts;

    fn name(&self) -> &HostFacts {
        &self.name
    }
}

impl Planned {
    /// `members` come in the order of their seniority. `old` is kept where it is the same.
    pub(super) fn new(
        name: &HostFacts,
        members: Vec<Arc<Compiled>>,
        everywhere: Option<&Arc<Route>>,
        old: Option<&Arc<VirtualHost>>,
    ) -> Self {
        let (mut host, mut rejections) = (Host::default(), Vec::new());
        for compiled in &members {
            let (origin, claims) = (&compiled.ingress.origin, compiled.claims_on(name));
            // A host exists as soon as a rule names it: its unmatched paths do not fall to the unknown hosts' rules.
            if has_rules(compiled, name, claims) {
                host.secured |= !compiled.ingress.tls.is_empty();
                host.client = host.client.or(compiled.asked.client.as_ref());
                host.suites = host.suites.or(Some(&compiled.asked.suites).filter(|suites| !suites.is_empty()));
                if compiled.asked.canary.is_none() {
                    host.first.get_or_insert(compiled);
                }
            }
            for claim in claims {
                host.regex |= claim.makes_regex;
                match (claim.rank, host.rules.entry(key(&claim.route.matches.path))) {
                    (Rank::Fallback, _) => match &host.fallback {
                        None => host.fallback = Some(Winner::new(origin, claim)),
                        Some(winner) => rejections.push(lost(origin, claim, winner)),
                    },
                    (Rank::Rule, Entry::Vacant(place)) => drop(place.insert(Winner::new(origin, claim))),
                    (Rank::Rule, Entry::Occupied(taken)) => rejections.push(lost(origin, claim, taken.get())),
                }
            }
        }
        for compiled in &members {
            host.canaries(name, compiled, &mut rejections);
        }
        let passed = passed(name, &members, &host, &mut rejections);
        let health = (*name == HostFacts::Any).then(healthz);
        let host = keep(host.routes(name, [everywhere, health.as_ref()]), old);
        Self { name: name.clone(), members, host, passed, rejections }
    }
}

/// Whether a rule names the host. A default backend claims the unknown hosts without one.
fn has_rules(compiled: &Compiled, host: &HostFacts, claims: &[Claim]) -> bool {
    let ingress = &compiled.ingress;
    (!ingress.catch_all && !claims.is_empty()) || ingress.rules.iter().any(|rule| rule.host == *host)
}

/// Whether a host's TLS goes to the Service of its path `/`. As in ingress-nginx, the oldest Ingress of a host decides, and a wildcard is not
/// looked for: its proxy compares whole names.
fn passed(
    name: &HostFacts,
    members: &[Arc<Compiled>],
    host: &Host<'_>,
    rejections: &mut Vec<Rejection>,
) -> Option<Passthrough> {
    let mut passed = None;
    for compiled in members.iter().filter(|c| c.asked.passed && has_rules(c, name, c.claims_on(name))) {
        let origin = &compiled.ingress.origin;
        let reason = match (name, host.first) {
            (_, Some(first)) if first.ingress.origin.name != origin.name => {
                let older = &first.ingress.origin;
                (!first.asked.passed).then(|| {
                    format!("does not ask for it: Ingress {} decides, {}", older.name, older.why_before(origin))
                })
            }
            (HostFacts::Exact(_), _) => match host.whole(&origin.name) {
                Some(to) => {
                    passed = Some(to);
                    None
                }
                None => Some("has no path `/` with a Service that could get its connections".to_owned()),
            },
            _ => Some("is not a whole name, which the one that a client asks for would be compared with".to_owned()),
        };
        if let Some(reason) = reason {
            let reason = format!("{} {reason}; its TLS is ended here", host_text(name));
            rejections.push(origin.warn("Ingress", compiled.ingress.annotation_field("ssl-passthrough"), reason));
        }
    }
    passed
}

impl Host<'_> {
    /// Hands the requests that an Ingress wants of others' to their routes.
    fn canaries(&mut self, name: &HostFacts, compiled: &Compiled, rejections: &mut Vec<Rejection>) {
        for wanted in compiled.canaries.iter().filter(|wanted| wanted.host == *name) {
            let Some(winner) = self.rules.values_mut().find(|w| w.claim.path == wanted.path) else {
                let reason =
                    format!("no Ingress has {}{}, of which it would take requests", host_text(name), wanted.path);
                rejections.push(compiled.ingress.origin.warn("Ingress", wanted.field.as_str(), reason));
                continue;
            };
            let route = Arc::make_mut(&mut winner.route);
            let policy = Arc::make_mut(route.policy.get_or_insert_default());
            Arc::make_mut(policy.canary.get_or_insert_default()).push(wanted.canary.clone());
        }
    }

    /// Where all of it goes, as far as it goes to one Service.
    fn whole(&self, owner: &ObjectName) -> Option<Passthrough> {
        let root = self.rules.values().find(|winner| winner.claim.path == "/").or(self.fallback.as_ref())?;
        // Without its canaries.
        let Action::Forward(pools) = &root.claim.route.action else { return None };
        let (pool, balance) = (pools.first()?.pool.clone(), root.claim.route.balance);
        Some(Passthrough { owner: owner.clone(), pool, balance })
    }

    fn routes(self, name: &HostFacts, built_in: [Option<&Arc<Route>>; 2]) -> VirtualHost {
        let rest = self.rest(name, built_in[0]);
        let (secured, client) = (self.secured, self.client.map(Arc::clone));
        let suites = self.suites.map(Arc::clone).unwrap_or_default();
        let host =
            if self.regex { self.expressions(rest, built_in[1]) } else { self.paths(rest.as_ref(), built_in[1]) };
        VirtualHost { secured, client, suites, ..host }
    }

    /// What takes every path that no rule does.
    fn rest(&self, name: &HostFacts, everywhere: Option<&Arc<Route>>) -> Option<Arc<Route>> {
        if let Some(fallback) = &self.fallback {
            return Some(Arc::clone(&fallback.route));
        }
        match self.first {
            // Without anything to ask, such paths are 404 without a route.
            Some(first)
                if everywhere.is_none() && !first.asked.of_rest().answers(self.secured) && !first.asked.denied =>
            {
                None
            }
            Some(first) => {
                let action = everywhere.map_or(Action::Respond(StatusCode::NOT_FOUND), |route| route.action.clone());
                Some(first.rest(name, action))
            }
            None => everywhere.map(Arc::clone),
        }
    }

    fn paths(self, rest: Option<&Arc<Route>>, built_in: Option<&Arc<Route>>) -> VirtualHost {
        let mut routes: BTreeMap<Key<'_>, &Arc<Route>> =
            self.rules.iter().map(|(key, winner)| (*key, &winner.route)).collect();
        for route in self.rules.values().filter_map(|w| w.claim.unslashed.as_ref()) {
            // Somebody's prefix `/foo` already answers there; `/foo/` written as a prefix is the same prefix.
            let plain = |path| self.rules.get(&Key::Prefix(path)).is_some_and(|w| w.claim.unslashed.is_none());
            match key(&route.matches.path) {
                Key::Exact(path) if plain(path) => {}
                key => drop(routes.entry(key).or_insert(route)),
            }
        }
        for route in rest.into_iter().chain(built_in) {
            routes.entry(key(&route.matches.path)).or_insert(route);
        }
        VirtualHost::new(routes.into_values().map(Arc::clone).collect())
    }

    /// Each path is an expression, Exact included; longer ones are tried first, and of one length those that sort last.
    fn expressions(self, rest: Option<Arc<Route>>, built_in: Option<&Arc<Route>>) -> VirtualHost {
        let mut routes: Vec<(&str, Arc<Route>)> = Vec::new();
        for winner in self.rules.values() {
            let path = winner.claim.path.as_str();
            routes.extend(winner.claim.as_expression(&winner.route).map(|route| (path, route)));
        }
        if !routes.iter().any(|(path, _)| *path == "/") {
            routes.extend(rest.map(|route| ("/", expression(&route, "/"))));
        }
        routes.sort_by_key(|(path, route)| (Reverse(path.len()), Reverse(path.to_owned()), route.matches.created));
        let built_in = built_in.map(Arc::clone);
        VirtualHost::ordered(built_in.into_iter().chain(routes.into_iter().map(|(_, route)| route)).collect())
    }
}

fn key(path: &PathMatch) -> Key<'_> {
    match path {
        PathMatch::Exact(path) => Key::Exact(path),
        PathMatch::Prefix(path) => Key::Prefix(path),
        PathMatch::Regex { pattern, .. } => Key::Regex(pattern),
    }
}

fn lost(origin: &Origin, claim: &Claim, winner: &Winner<'_>) -> Rejection {
    let who = if winner.origin.name == origin.name {
        format!("{} already", winner.claim.field)
    } else {
        format!("served by Ingress {}, {}", winner.origin.name, winner.origin.why_before(origin))
    };
    origin.reject("Ingress", claim.field.as_str(), format!("{} is {who}", claim.route.rule))
}

/// ingress-nginx answers a probe of the edge itself on hosts that nobody named (golden cases 014 and 016).
fn healthz() -> Arc<Route> {
    let (owner, path) = (ObjectName::new("", "healthz"), PathMatch::Exact("/healthz".to_owned()));
    let rule = format!("{}/healthz (built in)", host_text(&HostFacts::Any));
    Arc::new(plain_route(&owner, 0, rule, path, Action::Respond(StatusCode::OK), Balance::default()))
}
