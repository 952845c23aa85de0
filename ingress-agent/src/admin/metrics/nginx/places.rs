//! Where the routes of a snapshot are: the host and path that their owners wrote, and the Service behind them. Labels come from here, never from
//! what clients send.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::model::route::{Action, HostTable, Route, VirtualHost};
use crate::model::snapshot::{ObjectName, Snapshot};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// `*.` for wildcards, and nginx's `_` for hosts that nobody names.
    pub(super) host: String,
    pub(super) path: String,
    /// Empty where no Service is asked.
    pub(super) service: String,
}

/// By owner and rule.
pub(super) fn places(snapshot: &Snapshot) -> HashMap<(&ObjectName, &str), Place> {
    let mut places = HashMap::new();
    for table in tables(snapshot) {
        for (host, routes) in hosts(table) {
            for route in &routes.routes {
                let Some(path) = path(host.as_deref(), &route.rule) else { continue };
                match places.entry((&route.owner, &*route.rule)) {
                    // A path without its slash has the rule of the one with it, and no Service.
                    Entry::Occupied(mut known) => {
                        let known: &mut Place = known.get_mut();
                        if known.service.is_empty() {
                            known.service = service(route);
                        }
                    }
                    Entry::Vacant(place) => {
                        let host = host.clone().unwrap_or_else(|| "_".to_owned());
                        place.insert(Place { host, path, service: service(route) });
                    }
                }
            }
        }
    }
    places
}

/// Each once: listeners share them.
pub(super) fn tables(snapshot: &Snapshot) -> Vec<&Arc<HostTable>> {
    let mut tables: Vec<&Arc<HostTable>> = Vec::new();
    for listener in &snapshot.listeners {
        if !tables.iter().any(|known| Arc::ptr_eq(known, &listener.hosts)) {
            tables.push(&listener.hosts);
        }
    }
    tables
}

/// `None`: any other.
pub(super) fn hosts(table: &HostTable) -> impl Iterator<Item = (Option<String>, &Arc<VirtualHost>)> {
    let exact = table.exact.iter().map(|(name, host)| (Some(name.clone()), host));
    let wildcard = table.wildcard.iter().map(|(suffix, w)| (Some(format!("*.{suffix}")), &w.host));
    exact.chain(wildcard).chain(table.any.iter().map(|host| (None, host)))
}

/// A rule is written as host, path and, in parentheses, its kind. `None`: it is that of another host, of which this is an alias.
fn path(host: Option<&str>, rule: &str) -> Option<String> {
    let rest = rule.strip_prefix(host.unwrap_or("any host"))?;
    let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
    Some(if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}

fn service(route: &Route) -> String {
    match &route.action {
        Action::Forward(pools) => pools.first().map(|p| p.pool.service.name.clone()).unwrap_or_default(),
        Action::Redirect(_) | Action::Respond(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_where_it_is() {
        let of = |host: Option<&str>, rule| path(host, rule);
        assert_eq!(of(Some("a.test"), "a.test/x (y)/z (Prefix)").as_deref(), Some("/x (y)/z"));
        assert_eq!(of(Some("*.test"), "*.test (default backend)").as_deref(), Some("/"));
        assert_eq!(of(None, "any host/x (Exact)").as_deref(), Some("/x"));
        assert_eq!(of(Some("alias.test"), "a.test/x (Exact)"), None);
    }
}
