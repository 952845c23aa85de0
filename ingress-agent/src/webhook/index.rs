//! Who claims what, so that a new claim finds its rivals without looking at anybody else: by host and path for Ingresses, by
//! address and sharing key for Services. Kept up change by change; pools, classes and nodes are few and need no index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::facts::{BackendRef, Exposure, Facts, HostFacts, IngressFacts, RuleFacts, ServiceFacts};
use crate::model::snapshot::ObjectName;

/// Rivals for one host and path that are looked at, older ones first: the oldest that is served is among them unless
/// all of these are of other classes.
const RIVALS_A_PATH: usize = 32;
/// Rivals of one object. An Ingress of thousands of paths must not become a plan of thousands of Ingresses.
const RIVALS: usize = 512;

/// Hosts and paths that two want.
type Contested<'a> = BTreeSet<(&'a HostFacts, &'a str)>;

#[derive(Debug, Default)]
pub(super) struct Index {
    facts: Arc<Facts>,
    paths: BTreeMap<HostFacts, BTreeMap<String, Vec<Arc<IngressFacts>>>>,
    addresses: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    keys: BTreeMap<String, BTreeSet<ObjectName>>,
}

impl Index {
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the cluster was read. Before that, nothing can be said about other objects.
    pub(super) fn is_complete(&self) -> bool {
        self.facts.revision > 0
    }

    /// The cost is that of what changed.
    pub(super) fn update(&mut self, facts: &Arc<Facts>) {
        let before = std::mem::replace(&mut self.facts, Arc::clone(facts));
        for (old, new) in facts.ingresses.changes(&before.ingresses) {
            if let Some(old) = old {
                self.drop_ingress(old);
            }
            if let Some(new) = new {
                self.add_ingress(new);
            }
        }
        for (old, new) in facts.services.changes(&before.services) {
            for (service, there) in [(old, false), (new, true)] {
                let Some(service) = service else { continue };
                for address in addresses(service) {
                    mark(&mut self.addresses, address, &service.origin.name, there);
                }
                if let Some(key) = share_key(service) {
                    mark(&mut self.keys, key.to_owned(), &service.origin.name, there);
                }
            }
        }
    }

    /// The facts that decide what becomes of an Ingress that says one of these, without itself: its classes and Services, and
    /// the Ingresses that claim the same. Certificates play no part: nobody here may read a Secret.
    pub(super) fn around_ingress(&self, states: &[&IngressFacts]) -> Facts {
        let mut around = self.around_references(states.iter().flat_map(|s| ingress_backends(s)));
        let mut contested: BTreeMap<ObjectName, (Arc<IngressFacts>, Contested<'_>)> = BTreeMap::new();
        for state in states {
            for rule in &state.rules {
                let Some(host) = self.paths.get(&rule.host) else { continue };
                for path in &rule.paths {
                    let there = host.get(key(&path.path)).into_iter().flatten();
                    for rival in there.filter(|r| r.origin.name != state.origin.name).take(RIVALS_A_PATH) {
                        if contested.len() >= RIVALS && !contested.contains_key(&rival.origin.name) {
                            continue;
                        }
                        let entry = contested.entry(rival.origin.name.clone());
                        let (_, claims) = entry.or_insert_with(|| (Arc::clone(rival), BTreeSet::new()));
                        claims.insert((&rule.host, key(&path.path)));
                    }
                }
            }
        }
        for (rival, claims) in contested.into_values() {
            around.ingresses.insert(Arc::new(only(&rival, &claims)));
        }
        around
    }

    /// The same for a Service: those that have, want or share what it has or wants.
    pub(super) fn around_service(&self, states: &[&ServiceFacts]) -> Facts {
        let mut around = self.around_references(std::iter::empty());
        around.nodes = self.facts.nodes.clone();
        let of_addresses = states.iter().flat_map(|s| addresses(s)).filter_map(|a| self.addresses.get(&a));
        let of_keys = states.iter().filter_map(|s| self.keys.get(share_key(s)?));
        let rivals: BTreeSet<&ObjectName> = of_addresses.chain(of_keys).flatten().collect();
        let names: Vec<&ObjectName> = states.iter().map(|s| &s.origin.name).collect();
        for rival in rivals.into_iter().filter(|name| !names.contains(name)).take(RIVALS) {
            if let Some(rival) = self.facts.services.find(rival) {
                around.services.insert(Arc::clone(rival));
            }
        }
        around
    }

    /// For a VirtualIPPool: the others, and the nodes.
    pub(super) fn around_pool(&self, name: &ObjectName) -> Facts {
        let mut around = Facts { virtual_ip_pools: self.facts.virtual_ip_pools.clone(), ..Facts::default() };
        around.virtual_ip_pools.remove(name);
        around.nodes = self.facts.nodes.clone();
        around
    }

    /// The classes and pools, and the Services that are referred to.
    pub(super) fn around_references<'a>(&self, backends: impl Iterator<Item = &'a BackendRef>) -> Facts {
        let mut around = Facts {
            classes: self.facts.classes.clone(),
            virtual_ip_pools: self.facts.virtual_ip_pools.clone(),
            ..Facts::default()
        };
        for backend in backends {
            if let Some(service) = self.facts.services.find(&backend.service) {
                around.services.insert(Arc::clone(service));
            }
        }
        around
    }

    fn add_ingress(&mut self, ingress: &Arc<IngressFacts>) {
        for rule in &ingress.rules {
            let host = self.paths.entry(rule.host.clone()).or_default();
            for path in &rule.paths {
                let claims = match host.get_mut(key(&path.path)) {
                    Some(claims) => claims,
                    None => host.entry(key(&path.path).to_owned()).or_default(),
                };
                // Two paths of one Ingress may be told apart by their type alone.
                let name = |c: &Arc<IngressFacts>| c.origin.name == ingress.origin.name;
                if !claims.iter().any(name) {
                    let at = claims.partition_point(|c| c.origin.seniority() < ingress.origin.seniority());
                    claims.insert(at, Arc::clone(ingress));
                }
            }
        }
    }

    fn drop_ingress(&mut self, ingress: &IngressFacts) {
        for rule in &ingress.rules {
            let Some(host) = self.paths.get_mut(&rule.host) else { continue };
            for path in &rule.paths {
                let Some(claims) = host.get_mut(key(&path.path)) else { continue };
                claims.retain(|c| c.origin.name != ingress.origin.name);
                if claims.is_empty() {
                    host.remove(key(&path.path));
                }
            }
            if host.is_empty() {
                self.paths.remove(&rule.host);
            }
        }
    }
}

/// Paths that could be the same. Whether they are, with their types, the plan finds out.
fn key(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The part of a rival that is contested: the rest would cost time and change nothing.
fn only(rival: &IngressFacts, claims: &Contested<'_>) -> IngressFacts {
    let rule = |rule: &RuleFacts| {
        let paths = rule.paths.iter().filter(|path| claims.contains(&(&rule.host, key(&path.path))));
        RuleFacts { field: rule.field.clone(), host: rule.host.clone(), paths: paths.cloned().collect() }
    };
    let rules: Vec<_> = rival.rules.iter().map(rule).filter(|r| !r.paths.is_empty()).collect();
    IngressFacts {
        origin: rival.origin.clone(),
        class: rival.class.clone(),
        catch_all: false,
        default_backend: None,
        rules,
        tls: Vec::new(),
        balance: None,
        limit_shared: false,
        care: None,
        retry_budget: None,
        limit_drop: None,
        annotations: rival.annotations.clone(),
        annotations_prefix: rival.annotations_prefix.clone(),
        secrets: Vec::new(),
        config_maps: Vec::new(),
        unheeded: Vec::new(),
    }
}

fn ingress_backends(ingress: &IngressFacts) -> impl Iterator<Item = &BackendRef> {
    let paths = ingress.rules.iter().flat_map(|r| &r.paths).map(|p| &p.backend);
    paths.chain(&ingress.default_backend)
}

/// Every address that it has or wants.
fn addresses(service: &ServiceFacts) -> BTreeSet<IpAddr> {
    let mut addresses: BTreeSet<IpAddr> = service.external_ips.iter().map(|vip| vip.address).collect();
    if let Exposure::LoadBalancer(asks) = &service.exposure {
        let vips = asks.wanted.iter().flatten().chain(&asks.recorded).chain(&asks.assigned);
        addresses.extend(vips.map(|vip| vip.address));
    }
    addresses
}

fn share_key(service: &ServiceFacts) -> Option<&str> {
    match &service.exposure {
        Exposure::LoadBalancer(asks) => asks.share_key.as_deref(),
        _ => None,
    }
}

fn mark<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectName>>, key: K, name: &ObjectName, there: bool) {
    if there {
        index.entry(key).or_default().insert(name.clone());
    } else if let Some(names) = index.get_mut(&key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
