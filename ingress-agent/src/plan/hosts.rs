//! Host tables: which Ingress gets which host and path. The older one does.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;

use super::claim::{Claim, Rank, expression};
use super::compile::{Compiled, host_text, plain_route};
use super::keep;
use super::nginx::{Settings, to_other_name};
use crate::model::facts::{HostFacts, Origin};
use crate::model::policy::ClientCertificates;
use crate::model::rejection::Rejection;
use crate::model::route::{Action, Balance, HostTable, PathMatch, Route, VirtualHost, Wildcard};
use crate::model::snapshot::ObjectName;
use crate::model::stream::Passthrough;

const PASSTHROUGH: &str = "metadata.annotations[nginx.ingress.kubernetes.io/ssl-passthrough]";

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

/// `ingresses` come in the order of their seniority. `everywhere`: routes of the operator for hosts and paths that nobody
/// has claimed.
pub(super) fn table(
    ingresses: &[&Arc<Compiled>],
    everywhere: Option<&Arc<Route>>,
    settings: &Settings,
    rejections: &mut Vec<Rejection>,
    last: Option<&Arc<HostTable>>,
) -> Arc<HostTable> {
    let mut hosts: BTreeMap<&HostFacts, Host<'_>> = BTreeMap::new();
    for compiled in ingresses {
        let origin = &compiled.ingress.origin;
        // A host exists as soon as a rule names it: its unmatched paths do not fall to the unknown hosts' rules.
        for rule in &compiled.ingress.rules {
            let host = hosts.entry(&rule.host).or_default();
            host.secured |= !compiled.ingress.tls.is_empty();
            host.client = host.client.or(compiled.asked.client.as_ref());
            if compiled.asked.canary.is_none() {
                host.first.get_or_insert(compiled);
            }
        }
        for claim in &compiled.claims {
            let host = hosts.entry(&claim.host).or_default();
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
    for compiled in ingresses {
        canaries(compiled, &mut hosts, rejections);
    }
    hosts.entry(&HostFacts::Any).or_default();

    let health = healthz();
    let mut table = HostTable { passed: passed(ingresses, &hosts, rejections), ..HostTable::default() };
    for (name, host) in hosts {
        let built_in = if *name == HostFacts::Any { [everywhere, Some(&health)] } else { [everywhere, None] };
        match name {
            HostFacts::Any => {
                let routes = host.routes(name, built_in);
                table.any = Some(keep(routes, last.and_then(|l| l.any.as_ref())));
            }
            HostFacts::Exact(exact) => {
                let old = last.and_then(|l| l.exact.get(exact));
                table.exact.insert(exact.clone(), keep(host.routes(name, built_in), old));
            }
            HostFacts::Wildcard(suffix) => {
                let old = last.and_then(|l| l.wildcard.get(suffix)).map(|w| &w.host);
                let host = keep(host.routes(name, built_in), old);
                // The Ingress v1 API: the wildcard stands for exactly one label (golden case 011).
                table.wildcard.insert(suffix.clone(), Wildcard { one_label: true, host });
            }
        }
    }
    let mut named = BTreeSet::new();
    for compiled in ingresses {
        more_names(compiled, &mut named, &mut table, settings, rejections, last);
    }
    keep(table, last)
}

/// Hosts whose TLS goes to the Service of their path `/`. As in ingress-nginx, the oldest Ingress of a host decides, and a wildcard is not
/// looked for: its proxy compares whole names.
fn passed(
    ingresses: &[&Arc<Compiled>],
    hosts: &BTreeMap<&HostFacts, Host<'_>>,
    rejections: &mut Vec<Rejection>,
) -> BTreeMap<String, Passthrough> {
    let mut passed = BTreeMap::new();
    for compiled in ingresses.iter().filter(|c| c.asked.passed) {
        let origin = &compiled.ingress.origin;
        for rule in &compiled.ingress.rules {
            let Some(host) = hosts.get(&rule.host) else { continue };
            let reason = match (&rule.host, host.first) {
                (_, Some(first)) if first.ingress.origin.name != origin.name => {
                    let older = &first.ingress.origin;
                    (!first.asked.passed).then(|| {
                        format!("does not ask for it: Ingress {} decides, {}", older.name, older.why_before(origin))
                    })
                }
                (HostFacts::Exact(name), _) => match host.whole(&origin.name) {
                    Some(to) => {
                        passed.insert(name.clone(), to);
                        None
                    }
                    None => Some("has no path `/` with a Service that could get its connections".to_owned()),
                },
                _ => {
                    Some("is not a whole name, which the one that a client asks for would be compared with".to_owned())
                }
            };
            if let Some(reason) = reason {
                let reason = format!("{} {reason}; its TLS is ended here", host_text(&rule.host));
                rejections.push(origin.warn("Ingress", PASSTHROUGH, reason));
            }
        }
    }
    passed
}

/// Hands the requests that an Ingress wants of others' to their routes.
fn canaries(compiled: &Compiled, hosts: &mut BTreeMap<&HostFacts, Host<'_>>, rejections: &mut Vec<Rejection>) {
    for wanted in &compiled.canaries {
        let rules = hosts.get_mut(&wanted.host).map(|h| &mut h.rules);
        let winner = rules.and_then(|rules| rules.values_mut().find(|w| w.claim.path == wanted.path));
        let Some(winner) = winner else {
            let reason =
                format!("no Ingress has {}{}, of which it would take requests", host_text(&wanted.host), wanted.path);
            rejections.push(compiled.ingress.origin.warn("Ingress", wanted.field.as_str(), reason));
            continue;
        };
        let route = Arc::make_mut(&mut winner.route);
        let policy = Arc::make_mut(route.policy.get_or_insert_default());
        Arc::make_mut(policy.canary.get_or_insert_default()).push(wanted.canary.clone());
    }
}

/// `server-alias` and `from-to-www-redirect`: names that nobody has otherwise. The oldest Ingress of a host decides (golden case 019).
fn more_names(
    compiled: &Compiled,
    named: &mut BTreeSet<String>,
    table: &mut HostTable,
    settings: &Settings,
    rejections: &mut Vec<Rejection>,
    last: Option<&Arc<HostTable>>,
) {
    let exact = |rule: &crate::model::facts::RuleFacts| match &rule.host {
        HostFacts::Exact(name) => Some(name.clone()),
        _ => None,
    };
    let names = compiled.ingress.rules.iter().filter_map(exact).filter(|name| named.insert(name.clone()));
    let names: Vec<String> = names.collect();
    if let Some(host) = names.first().and_then(|name| table.exact.get(name)).map(Arc::clone) {
        for alias in &compiled.asked.aliases {
            if let Some(pattern) = alias.strip_prefix('~') {
                table.patterns.push((pattern.to_owned(), Arc::clone(&host)));
            } else if let Some(suffix) = alias.strip_prefix("*.") {
                let wildcard = Wildcard { one_label: true, host: Arc::clone(&host) };
                table.wildcard.entry(suffix.to_owned()).or_insert(wildcard);
            } else if table.exact.contains_key(alias) {
                let reason = format!("`{alias}` is left out: an Ingress has that host, or it is named before");
                rejections.push(compiled.ingress.origin.warn(
                    "Ingress",
                    "metadata.annotations[nginx.ingress.kubernetes.io/server-alias]",
                    reason,
                ));
            } else {
                table.exact.insert(alias.clone(), Arc::clone(&host));
            }
        }
    }
    for name in names.iter().filter(|_| compiled.asked.other_name) {
        let other = name.strip_prefix("www.").map_or_else(|| format!("www.{name}"), str::to_owned);
        let Entry::Vacant(place) = table.exact.entry(other) else { continue };
        let origin = &compiled.ingress.origin;
        let rule = format!("{} (from-to-www-redirect)", place.key());
        // The policy answers; what it would come to otherwise is nobody's path.
        let action = Action::Respond(StatusCode::NOT_FOUND);
        let everything = PathMatch::Prefix(String::new());
        let mut route = plain_route(&origin.name, origin.created, rule, everything, action, Balance::default());
        route.policy = Some(Arc::new(to_other_name(name, settings)));
        let host = VirtualHost::new(vec![Arc::new(route)]);
        let old = last.and_then(|l| l.exact.get(place.key()));
        place.insert(keep(host, old));
    }
}

impl Host<'_> {
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
        let host =
            if self.regex { self.expressions(rest, built_in[1]) } else { self.paths(rest.as_ref(), built_in[1]) };
        VirtualHost { secured, client, ..host }
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
