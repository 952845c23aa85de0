//! What an Ingress asks for on a host: a route, or some of the requests of another one's.

use std::sync::{Arc, OnceLock};

use super::nginx::{guarded, path_fault};
use crate::model::facts::HostFacts;
use crate::model::policy::Canary;
use crate::model::route::{PathMatch, Route};

/// A route that an Ingress asks for on a host.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) host: HostFacts,
    pub(super) route: Arc<Route>,
    pub(super) rank: Rank,
    /// As written.
    pub(super) path: String,
    /// It makes all paths of its host regular expressions.
    pub(super) makes_regex: bool,
    /// Its route where the host's paths are expressions; `None`: the path is none that is taken. Made once: finding that out costs as much as
    /// planning a hundred other routes.
    pub(super) as_expression: OnceLock<Option<Arc<Route>>>,
    /// Of a path that ends in a slash: what answers the same path without it, where nobody else does.
    pub(super) unslashed: Option<Arc<Route>>,
    /// For messages.
    pub(super) field: String,
}

impl Claim {
    /// The route for the expression that its path is. `route` is the claim's own, or that with what other Ingresses add.
    pub(super) fn as_expression(&self, route: &Arc<Route>) -> Option<Arc<Route>> {
        let own = self
            .as_expression
            .get_or_init(|| path_fault(&self.path).is_none().then(|| expression(&self.route, &self.path)));
        let own = own.as_ref()?;
        Some(if Arc::ptr_eq(route, &self.route) { Arc::clone(own) } else { expression(route, &self.path) })
    }
}

pub(super) fn expression(route: &Arc<Route>, path: &str) -> Arc<Route> {
    let mut route = Route::clone(route);
    let (pattern, unless) = guarded(path);
    route.matches.path = PathMatch::Regex { pattern: pattern.into_owned(), case_insensitive: true };
    route.matches.unless = unless;
    Arc::new(route)
}

/// Requests for the route of another Ingress with this host and path.
#[derive(Debug)]
pub(super) struct CanaryClaim {
    pub(super) host: HostFacts,
    pub(super) path: String,
    pub(super) canary: Canary,
    pub(super) field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// A rule.
    Rule,
    /// A default backend: only where no rule takes every path.
    Fallback,
}
