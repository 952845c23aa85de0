//! Deliberate differences that no finding of the plan is about: the objects are all right, and are served otherwise all the same. The
//! `concerns` of the table says the same in words.

use std::collections::BTreeMap;

use super::inventory::Inventory;
use super::report::{Found, Verdict};
use crate::model::difference::Difference;
use crate::model::facts::{ConfigMapFacts, Facts, HostFacts, IngressFacts};
use crate::model::policy::Upstream;
use crate::model::route::{Action, HostTable, Route};
use crate::model::snapshot::{ObjectName, PoolName, Snapshot};

const ERRORS: &str = "custom-http-errors";

/// By Ingress.
pub(super) fn of_ingresses(inventory: &Inventory, planned: &Snapshot) -> BTreeMap<ObjectName, Vec<Found>> {
    let mut found: BTreeMap<ObjectName, Vec<Found>> = BTreeMap::new();
    let mut add = |ingress: &ObjectName, one: Found| found.entry(ingress.clone()).or_default().push(one);
    second_canaries(inventory, &mut add);
    shared_connections(&inventory.facts, planned, &mut add);
    for ingress in inventory.facts.ingresses.iter() {
        let Some(text) = ingress.annotations.get(ERRORS).filter(|text| of_auth(text)) else { continue };
        let asked = ingress.annotations.contains_key("default-backend") || inventory.options.default_backend.is_some();
        add(&ingress.origin.name, errors(&ingress.annotation_field(ERRORS), text, asked));
    }
    found
}

/// Of a key that is heeded.
pub(super) fn of_setting(key: &str, value: &str, map: &ConfigMapFacts, inventory: &Inventory) -> Option<Found> {
    let field = format!("data[{key}]");
    match key {
        "use-forwarded-headers" | "enable-real-ip" if value.trim() == "true" => {
            let from = map.data.get("proxy-real-ip-cidr").map(|v| v.trim()).unwrap_or_default();
            let anybody = from.split(',').any(|range| range.trim() == "0.0.0.0/0");
            // Of `enable-real-ip` the ranges count there, too; of the fields they never did.
            let same = anybody || key == "enable-real-ip" && !from.is_empty();
            (!same).then(|| differs(field, String::new(), Difference::ForwardedFields))
        }
        ERRORS if of_auth(value) => Some(errors(&field, value, inventory.options.default_backend.is_some())),
        _ => None,
    }
}

fn errors(field: &str, text: &str, asked: bool) -> Found {
    let difference = if asked { Difference::ErrorPagesOfAuth } else { Difference::ErrorsWithoutBackend };
    differs(field.to_owned(), format!("`{text}`"), difference)
}

fn of_auth(text: &str) -> bool {
    text.split(',').any(|code| ["401", "403"].contains(&code.trim()))
}

/// Those with the host and path of an older one.
fn second_canaries(inventory: &Inventory, add: &mut impl FnMut(&ObjectName, Found)) {
    let (facts, classes) = (&inventory.facts, &inventory.options.classes);
    let is_canary = |i: &&std::sync::Arc<IngressFacts>| {
        i.annotations.get("canary").is_some_and(|v| v == "true") && classes.is_ours(&i.class, &facts.classes)
    };
    let mut canaries: Vec<_> = facts.ingresses.iter().filter(is_canary).collect();
    canaries.sort_by_key(|i| i.origin.seniority());
    let mut first: BTreeMap<(&HostFacts, &str), &ObjectName> = BTreeMap::new();
    for ingress in canaries {
        for (rule, path) in ingress.rules.iter().flat_map(|r| r.paths.iter().map(move |p| (r, p))) {
            let own = &ingress.origin.name;
            let older = *first.entry((&rule.host, &path.path)).or_insert(own);
            if older != own {
                let reason = format!("Ingress {older} is a canary of the same host and path");
                add(own, differs(path.field.clone(), reason, Difference::SecondCanary));
            }
        }
    }
}

/// Ingresses that reach one pool over TLS under different checks.
fn shared_connections(facts: &Facts, planned: &Snapshot, add: &mut impl FnMut(&ObjectName, Found)) {
    let mut by_pool: BTreeMap<&PoolName, Vec<(&ObjectName, &Upstream)>> = BTreeMap::new();
    let listener = planned.listeners.first();
    for route in listener.iter().flat_map(|l| routes(&l.hosts)) {
        let upstream = route.policy.as_ref().and_then(|p| p.upstream.as_deref()).filter(|u| u.tls.is_some());
        let (Some(upstream), Action::Forward(pools)) = (upstream, &route.action) else { continue };
        for weighted in pools {
            by_pool.entry(&weighted.pool).or_default().push((&route.owner, upstream));
        }
    }
    for (pool, users) in by_pool {
        for (owner, upstream) in &users {
            if let Some((other, _)) = users.iter().find(|(_, u)| u != upstream) {
                let reason = format!("Ingress {other} checks {pool} otherwise");
                let field =
                    facts.ingresses.find(owner).map(|i| i.annotation_field("backend-protocol")).unwrap_or_default();
                add(owner, differs(field, reason, Difference::TlsConnections));
            }
        }
    }
}

fn routes(hosts: &HostTable) -> impl Iterator<Item = &Route> {
    let wildcards = hosts.wildcard.values().map(|w| &w.host);
    let all =
        hosts.exact.values().chain(wildcards).chain(hosts.patterns.iter().map(|(_, host)| host)).chain(&hosts.any);
    all.flat_map(|host| host.routes.iter().map(AsRef::as_ref))
}

fn differs(field: String, reason: String, difference: Difference) -> Found {
    Found { verdict: Verdict::Differs, field, reason, instead: None, difference: Some(difference.into()) }
}
