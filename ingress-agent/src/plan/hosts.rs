//! Host tables: which Ingress gets which host and path. The older one does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use http::StatusCode;

use super::compile::{Claim, Compiled, Rank, host_text, plain_route};
use super::keep;
use crate::model::facts::{HostFacts, Origin};
use crate::model::rejection::Rejection;
use crate::model::route::{Action, Balance, HostTable, PathMatch, Route, VirtualHost, Wildcard};
use crate::model::snapshot::ObjectName;

/// One host while it is being filled.
#[derive(Default)]
struct Host<'a> {
    rules: BTreeMap<Key<'a>, Winner<'a>>,
    /// The default backend of those paths that no rule takes.
    fallback: Option<Winner<'a>>,
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
}

/// `ingresses` come in the order of their seniority. `everywhere`: routes of the operator for hosts and paths that nobody
/// has claimed.
pub(super) fn table(
    ingresses: &[&Arc<Compiled>],
    everywhere: Option<&Arc<Route>>,
    rejections: &mut Vec<Rejection>,
    last: Option<&Arc<HostTable>>,
) -> Arc<HostTable> {
    let mut hosts: BTreeMap<&HostFacts, Host<'_>> = BTreeMap::new();
    for compiled in ingresses {
        let origin = &compiled.ingress.origin;
        // A host exists as soon as a rule names it: its unmatched paths do not fall to the unknown hosts' rules.
        for rule in &compiled.ingress.rules {
            hosts.entry(&rule.host).or_default();
        }
        for claim in &compiled.claims {
            let host = hosts.entry(&claim.host).or_default();
            match (claim.rank, host.rules.entry(key(&claim.route.matches.path))) {
                (Rank::Fallback, _) => match &host.fallback {
                    None => host.fallback = Some(Winner { origin, claim }),
                    Some(winner) => rejections.push(lost(origin, claim, winner)),
                },
                (Rank::Rule, Entry::Vacant(place)) => drop(place.insert(Winner { origin, claim })),
                (Rank::Rule, Entry::Occupied(taken)) => rejections.push(lost(origin, claim, taken.get())),
            }
        }
    }
    hosts.entry(&HostFacts::Any).or_default();

    let health = healthz();
    let mut table = HostTable::default();
    for (name, host) in hosts {
        let built_in = if *name == HostFacts::Any { [everywhere, Some(&health)] } else { [everywhere, None] };
        match name {
            HostFacts::Any => {
                let routes = host.routes(built_in);
                table.any = Some(keep(routes, last.and_then(|l| l.any.as_ref())));
            }
            HostFacts::Exact(name) => {
                let old = last.and_then(|l| l.exact.get(name));
                table.exact.insert(name.clone(), keep(host.routes(built_in), old));
            }
            HostFacts::Wildcard(suffix) => {
                let old = last.and_then(|l| l.wildcard.get(suffix)).map(|w| &w.host);
                let host = keep(host.routes(built_in), old);
                // The Ingress v1 API: the wildcard stands for exactly one label (golden case 011).
                table.wildcard.insert(suffix.clone(), Wildcard { one_label: true, host });
            }
        }
    }
    keep(table, last)
}

impl Host<'_> {
    fn routes(self, built_in: [Option<&Arc<Route>>; 2]) -> VirtualHost {
        let mut routes: BTreeMap<Key<'_>, &Arc<Route>> =
            self.rules.iter().map(|(key, winner)| (*key, &winner.claim.route)).collect();
        for route in self.rules.values().filter_map(|w| w.claim.unslashed.as_ref()) {
            // Somebody's prefix `/foo` already answers there; `/foo/` written as a prefix is the same prefix.
            let plain = |path| self.rules.get(&Key::Prefix(path)).is_some_and(|w| w.claim.unslashed.is_none());
            match key(&route.matches.path) {
                Key::Exact(path) if plain(path) => {}
                key => drop(routes.entry(key).or_insert(route)),
            }
        }
        let fallback = self.fallback.map(|winner| &winner.claim.route);
        for route in fallback.into_iter().chain(built_in.into_iter().flatten()) {
            routes.entry(key(&route.matches.path)).or_insert(route);
        }
        VirtualHost::new(routes.into_values().map(Arc::clone).collect())
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
