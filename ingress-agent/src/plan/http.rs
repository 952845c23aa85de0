//! HTTP: which addresses listen, for which IngressClasses, and with which hosts and certificates.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;

use super::addresses::Addresses;
use super::compile::{Compiled, Names, compile, host_text, plain_route, resolve};
use super::nginx::{Settings, errors_everywhere};
use super::policies::Policies;
use super::{PlanOptions, hosts, keep, served, tls, vips};
use crate::model::facts::{
    BackendRef, ClassChoice, Facts, HostFacts, IngressClassFacts, IngressFacts, Origin, PortRef,
};
use crate::model::policy::Limits;
use crate::model::rejection::Rejection;
use crate::model::route::{Action, Balance, HostTable, Listener, PathMatch, Route, Tls, WeightedPool};
use crate::model::snapshot::{
    Certificate, Frontend, FrontendKey, FrontendKind, ObjectName, PoolName, Protocol, ServedObject,
};

#[derive(Debug, Default)]
pub(super) struct Http {
    /// Sorted by address and port.
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) frontends: Vec<Arc<Frontend>>,
    pub(super) pools: Arc<BTreeSet<PoolName>>,
    pub(super) certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    /// Of Ingresses whose limits all edges have together, by name.
    pub(super) shared_limits: Arc<Vec<Arc<Limits>>>,
    /// All ingress addresses.
    pub(super) vips: BTreeSet<IpAddr>,
    /// Who asked for which address.
    pub(super) owners: BTreeSet<(IpAddr, String)>,
    pub(super) rejections: Vec<Rejection>,
    /// Ingresses and their addresses.
    pub(super) served: Arc<Vec<Arc<ServedObject>>>,
    /// By Ingress, sorted by name.
    compiled: Vec<Arc<Compiled>>,
    settings: Option<Arc<Settings>>,
}

/// Endpoints play no part here.
pub(super) fn same_input(a: &Facts, b: &Facts) -> bool {
    a.ingresses.same(&b.ingresses)
        && a.classes.same(&b.classes)
        && a.services.same(&b.services)
        && a.certificates.same(&b.certificates)
        && a.secrets.same(&b.secrets)
        && a.config_maps.same(&b.config_maps)
}

/// Whose Ingress it is: `None` of a class (only served where the options say so), or the class of this name.
type Class<'a> = Option<&'a ObjectName>;

pub(super) fn plan(facts: &Facts, options: &PlanOptions, addresses: &Addresses, last: Option<&Http>) -> Http {
    let mut http = Http::default();
    let ours: Vec<&Arc<IngressClassFacts>> = facts.classes.iter().filter(|c| options.classes.owns(c)).collect();

    let settings = Settings::read(facts, options, &mut http.rejections);
    let settings = keep(settings, last.and_then(|l| l.settings.as_ref()));
    http.settings = Some(Arc::clone(&settings));
    let known: BTreeSet<&str> = facts.classes.iter().map(|c| c.origin.name.name.as_str()).collect();
    let mut chosen: Vec<(Class<'_>, Arc<Compiled>)> = Vec::new();
    let mut policies = Policies::default();
    let mut old = last.map(|l| l.compiled.as_slice()).unwrap_or_default().iter().peekable();
    for ingress in facts.ingresses.iter() {
        let name = &ingress.origin.name;
        while old.next_if(|c| c.ingress.origin.name < *name).is_some() {}
        let before = old.next_if(|c| c.ingress.origin.name == *name);
        let Some(class) = class(ingress, &known, &ours, options, &mut http.rejections) else {
            continue;
        };
        let compiled = match before.filter(|c| c.holds(ingress, facts, &settings)) {
            Some(compiled) => Arc::clone(compiled),
            None => Arc::new(compile(ingress, facts, Names::of(options), &settings, &mut policies)),
        };
        chosen.push((class, compiled));
    }
    http.compiled = chosen.iter().map(|(_, c)| Arc::clone(c)).collect();
    let shared = http.compiled.iter().filter_map(|c| c.asked.policy.limits.as_ref().filter(|l| l.shared).cloned());
    http.shared_limits = keep(shared.collect(), last.map(|l| &l.shared_limits));
    let groups = groups(&ours, addresses, &mut http);
    let by_class = by_class(&groups);
    let now = chosen.iter().filter_map(|(class, c)| Some((&c.ingress.origin.name, Arc::clone(by_class.get(class)?))));
    http.served = served::list(now, last.map(|l| &l.served));
    chosen.sort_by(|(_, a), (_, b)| a.ingress.origin.seniority().cmp(&b.ingress.origin.seniority()));

    for (class, compiled) in &chosen {
        if !groups.keys().any(|classes| classes.contains(class)) {
            let reason = "is not served: neither its IngressClass (`sluicegate.io/vips` or a VirtualIPPool) nor `--ingress-vip` \
                 gives an address";
            http.rejections.push(compiled.ingress.origin.reject("Ingress", "spec.ingressClassName", reason));
        }
    }
    let default_certificate = default_certificate(facts, options, &mut http);
    let everywhere = default_backend(facts, options, &settings, &mut http).or_else(|| {
        // Nobody's hosts and paths are errors, too, which the ConfigMap may want replaced.
        let policy = errors_everywhere(&settings, None)?;
        let rule = format!("{} (custom-http-errors)", host_text(&HostFacts::Any));
        let (action, everything) = (Action::Respond(StatusCode::NOT_FOUND), PathMatch::Prefix(String::new()));
        let owner = ObjectName::new("", "custom-http-errors");
        let mut route = plain_route(&owner, i64::MAX, rule, everything, action, Balance::default());
        route.policy = Some(Arc::new(policy));
        Some(Arc::new(route))
    });
    let fallback = std::mem::take(&mut http.pools);
    let mut pools: Vec<&PoolName> = fallback.iter().collect();
    for (classes, addresses) in &groups {
        let mut members: Vec<_> = chosen.iter().filter(|(class, _)| classes.contains(class)).map(|(_, c)| c).collect();
        for compiled in &members {
            pools.extend(&compiled.pools);
            http.rejections.extend(compiled.rejections.iter().cloned());
        }
        members.retain(|compiled| !compiled.asked.dropped);
        let first = addresses.first().and_then(|a| last?.listeners.iter().find(|l| l.vip == *a));
        let hosts =
            hosts::table(&members, everywhere.as_ref(), &settings, &mut http.rejections, first.map(|l| &l.hosts));
        let names = tls::names(&members, facts, &mut http.rejections);
        http.certificates.extend(names.certificates);
        let old_names = addresses.first().and_then(|a| last?.listeners.iter().find(|l| l.vip == *a && l.tls.is_some()));
        let by_name = keep(names.by_name, old_names.and_then(|l| l.tls.as_ref()).map(|tls| &tls.by_name));
        let tls = Tls { by_name, default: default_certificate.clone() };
        for vip in addresses {
            http.listen(*vip, options.http_port, None, &hosts, last);
            http.listen(*vip, options.https_port, Some(tls.clone()), &hosts, last);
        }
    }
    pools.sort_unstable();
    pools.dedup();
    http.pools = match last.filter(|l| l.pools.iter().eq(pools.iter().copied())) {
        Some(l) => Arc::clone(&l.pools),
        None => Arc::new(pools.into_iter().cloned().collect()),
    };
    http.listeners.sort_by_key(|l| (l.vip, l.port));
    http.frontends.sort_by_key(|f| f.key);
    http
}

impl Http {
    /// Whether L4 finds the same ports taken and the same ingress addresses.
    pub(super) fn leaves_as_much(&self, other: &Self) -> bool {
        self.vips == other.vips && self.frontends.iter().map(|f| f.key).eq(other.frontends.iter().map(|f| f.key))
    }

    fn listen(&mut self, vip: IpAddr, port: u16, tls: Option<Tls>, hosts: &Arc<HostTable>, last: Option<&Http>) {
        let key = FrontendKey { vip, protocol: Protocol::Tcp, port };
        if port == 0 || self.frontends.iter().any(|f| f.key == key) {
            return;
        }
        let Some(settings) = self.settings.as_ref().map(|s| Arc::clone(&s.listener)) else { return };
        let listener = Listener { vip, port, tls, hosts: Arc::clone(hosts), settings };
        let old = last.and_then(|l| l.listeners.iter().find(|l| l.vip == vip && l.port == port));
        self.listeners.push(match old {
            // Comparing host tables by content would cost as much as making them.
            Some(old)
                if Arc::ptr_eq(&old.hosts, hosts) && old.tls == listener.tls && old.settings == listener.settings =>
            {
                Arc::clone(old)
            }
            _ => Arc::new(listener),
        });
        let owner = ObjectName::new("", "ingress");
        let old = last.and_then(|l| l.frontends.iter().find(|f| f.key == key));
        self.frontends.push(keep(Frontend { key, owner, kind: FrontendKind::L7 }, old));
    }
}

/// Addresses that serve the same classes, with these classes.
fn groups<'a>(
    ours: &[&'a Arc<IngressClassFacts>],
    addresses: &Addresses,
    http: &mut Http,
) -> BTreeMap<BTreeSet<Class<'a>>, Vec<IpAddr>> {
    let mut by_vip: BTreeMap<IpAddr, BTreeSet<Class<'a>>> = BTreeMap::new();
    for (vip, given_by) in &addresses.ingress {
        match vips::fault(*vip) {
            None => {
                by_vip.entry(*vip).or_default().insert(None);
                http.owners.insert((*vip, (*given_by).to_owned()));
            }
            Some(fault) => {
                let origin = option(given_by);
                http.rejections.push(origin.reject("Option", "", format!("{vip} cannot be served: it {fault}")));
            }
        }
    }
    let of_options: Vec<IpAddr> = by_vip.keys().copied().collect();
    for class in ours {
        let name = Some(&class.origin.name);
        let Some(given) = addresses.classes.get(&class.origin.name) else {
            for vip in &of_options {
                by_vip.entry(*vip).or_default().insert(name);
            }
            continue;
        };
        for vip in given {
            if let Some(fault) = vips::fault(vip.address) {
                let reason = format!("{} cannot be served: it {fault}", vip.address);
                http.rejections.push(class.origin.reject("IngressClass", vip.field.as_str(), reason));
                continue;
            }
            by_vip.entry(vip.address).or_default().insert(name);
            http.owners.insert((vip.address, format!("IngressClass {}", class.origin.name)));
        }
    }
    http.vips = by_vip.keys().copied().collect();
    let mut groups: BTreeMap<BTreeSet<Class<'a>>, Vec<IpAddr>> = BTreeMap::new();
    for (vip, classes) in by_vip {
        groups.entry(classes).or_default().push(vip);
    }
    groups
}

/// Where the Ingresses of each class are served.
fn by_class<'a>(groups: &BTreeMap<BTreeSet<Class<'a>>, Vec<IpAddr>>) -> BTreeMap<Class<'a>, Arc<[IpAddr]>> {
    let mut sorted: BTreeMap<Class<'a>, BTreeSet<IpAddr>> = BTreeMap::new();
    for (classes, addresses) in groups {
        for class in classes {
            sorted.entry(*class).or_default().extend(addresses);
        }
    }
    sorted.into_iter().map(|(class, addresses)| (class, addresses.into_iter().collect())).collect()
}

/// `None`: somebody else's Ingress. As ingress-nginx chooses: the field, else the deprecated annotation, else the default
/// class (which the API server would have filled in), else what the options say about Ingresses without one.
fn class<'a>(
    ingress: &IngressFacts,
    known: &BTreeSet<&str>,
    ours: &[&'a Arc<IngressClassFacts>],
    options: &PlanOptions,
    rejections: &mut Vec<Rejection>,
) -> Option<Class<'a>> {
    let named = |name: &str| ours.iter().map(|c| &c.origin.name).find(|n| n.name == name).map(Some);
    match options.classes.meant(&ingress.class) {
        ClassChoice::Named(name) => {
            if !known.contains(name.as_str()) {
                let reason = format!("there is no IngressClass {name}, so nobody serves it");
                rejections.push(ingress.origin.warn("Ingress", "spec.ingressClassName", reason));
            }
            named(name)
        }
        // ingress-nginx compares the annotation with its `--ingress-class`, and no IngressClass need be there. One of that name
        // that is ours says where it is served.
        ClassChoice::Annotation(name) => match &options.classes.annotation {
            Some(ours) => (ours == name).then(|| named(name).unwrap_or(None)),
            None => named(name),
        },
        ClassChoice::None => {
            // Of several, the API server's admission takes the newest.
            let default = ours.iter().filter(|c| c.default).min_by_key(|c| (Reverse(c.origin.created), &c.origin.name));
            if let Some(default) = default {
                return Some(Some(&default.origin.name));
            }
            if options.classes.without_class {
                return Some(None);
            }
            let reason = "is missing, and no IngressClass of ours is the default, so it is not served here";
            rejections.push(ingress.origin.warn("Ingress", "spec.ingressClassName", reason));
            None
        }
    }
}

fn default_certificate(facts: &Facts, options: &PlanOptions, http: &mut Http) -> Option<ObjectName> {
    let name = options.default_certificate.as_ref()?;
    let Some(found) = facts.certificates.find(name) else {
        let reason = format!("there is no usable Secret {name} of type kubernetes.io/tls; a self-signed one is served");
        http.rejections.push(option("--default-ssl-certificate").warn("Option", "", reason));
        return None;
    };
    http.certificates.insert(name.clone(), Arc::clone(&found.certificate));
    Some(name.clone())
}

/// `--default-backend-service`: its first TCP port, as in ingress-nginx.
fn default_backend(facts: &Facts, options: &PlanOptions, settings: &Settings, http: &mut Http) -> Option<Arc<Route>> {
    let name = options.default_backend.as_ref()?;
    let origin = option("--default-backend-service");
    let first = facts.services.find(name).and_then(|s| s.ports.iter().find(|p| p.protocol == Protocol::Tcp));
    // A port that does not exist finds the right words for a Service that has none.
    let port = PortRef::Number(first.map_or(80, |p| p.port));
    let backend = BackendRef { field: String::new(), service: name.clone(), port };
    let (service, pool) = match resolve(&backend, Protocol::Tcp, &facts.services, Names::of(options)) {
        Ok(found) => found,
        Err(fault) => {
            let reason = format!("{}; unknown hosts and paths are answered with 404", fault.reason);
            http.rejections.push(origin.reject("Option", "", reason));
            return None;
        }
    };
    Arc::make_mut(&mut http.pools).insert(pool.clone());
    let rule = format!("{} (--default-backend-service)", host_text(&HostFacts::Any));
    let policy = errors_everywhere(settings, Some(pool.clone()));
    let action = Action::Forward(vec![WeightedPool { pool, weight: 1, filters: Vec::new() }]);
    let everything = PathMatch::Prefix(String::new());
    let mut route = plain_route(name, i64::MAX, rule, everything, action, service.balance.unwrap_or_default());
    route.policy = policy.map(Arc::new);
    Some(Arc::new(route))
}

/// Options stand where no object does.
pub(super) fn option(name: &str) -> Origin {
    Origin { name: ObjectName::new("", name), place: "command line".to_owned(), ..Origin::default() }
}
