//! HTTP: which addresses listen, for which IngressClasses, and with which hosts and certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;

use super::addresses::Addresses;
use super::choice::{self, Choice, Class, Looked, LookedChange};
use super::compile::{Names, host_text, plain_route, resolve};
use super::hosts::Hosts;
use super::nginx::{Settings, errors_everywhere};
use super::{PlanOptions, keep, served, tls, vips};
use crate::model::facts::{BackendRef, Facts, HostFacts, IngressClassFacts, Origin, PortRef};
use crate::model::objects::Named;
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
    choice: Choice,
    settings: Option<Arc<Settings>>,
    groups: Vec<Group>,
    /// Of `--default-backend-service`.
    fallback: Arc<BTreeSet<PoolName>>,
    /// Where the Ingresses of each class are served.
    by_class: BTreeMap<Class, Arc<[IpAddr]>>,
}

/// Addresses that serve the same classes.
#[derive(Debug)]
struct Group {
    classes: BTreeSet<Class>,
    hosts: Hosts,
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

/// `last`: what was planned before, from those facts.
pub(super) fn plan(facts: &Facts, options: &PlanOptions, addresses: &Addresses, last: Option<(&Facts, &Http)>) -> Http {
    let mut http = Http::default();
    let ours: Vec<&Arc<IngressClassFacts>> = facts.classes.iter().filter(|c| options.classes.owns(c)).collect();

    let settings = Settings::read(facts, options, &mut http.rejections);
    let settings = keep(settings, last.and_then(|(_, l)| l.settings.as_ref()));
    http.settings = Some(Arc::clone(&settings));
    let before = last.and_then(|(facts, l)| Some((facts, &l.choice, l.settings.as_ref()?)));
    let (choice, changes) = Choice::new(facts, options, &settings, before);
    let last = last.map(|(_, last)| last);
    let groups = groups(&ours, addresses, &mut http);
    http.by_class = by_class(&groups);
    http.served = served(&choice, &changes, &http.by_class, last);
    http.shared_limits = match last {
        Some(l) if !changes.iter().flat_map(|(a, b)| [a, b]).flatten().any(|l| l.shares_limits()) => {
            Arc::clone(&l.shared_limits)
        }
        _ => {
            let sharing = choice.all.iter().filter(|looked| looked.shares_limits());
            let shared = sharing.filter_map(|l| l.ours.as_ref()?.compiled.asked.policy.limits.clone());
            keep(shared.collect(), last.map(|l| &l.shared_limits))
        }
    };
    let is_served = |class: &Class| groups.keys().any(|classes| classes.contains(class));
    http.rejections.extend(choice.rejections(is_served));
    if !choice.classes().all(is_served) {
        for ours in choice.all.iter().filter_map(|looked| looked.ours.as_ref()).filter(|ours| !is_served(&ours.class)) {
            let reason = "is not served: neither its IngressClass (`sluicegate.io/vips` or a VirtualIPPool) nor `--ingress-vip` \
                 gives an address";
            let origin = &ours.compiled.ingress.origin;
            http.rejections.push(origin.reject("Ingress", "spec.ingressClassName", reason));
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
    http.fallback = std::mem::take(&mut http.pools);
    for (classes, addresses) in &groups {
        let base = last.and_then(|l| l.groups.iter().find(|g| g.classes == *classes)).map(|group| &group.hosts);
        // Where most have changed, as by a setting, taking each out of its hosts is more than planning these afresh.
        let few = changes.len() <= 8 + choice.all.len() / 8;
        let base = base.filter(|hosts| few && hosts.has_everywhere(everywhere.as_ref()));
        let first = addresses.first().and_then(|a| last?.listeners.iter().find(|l| l.vip == *a));
        let changes = match base {
            Some(_) => choice::of_classes(&changes, classes),
            None => choice.all.iter().map(|looked| (None, looked.of_class(classes))).collect(),
        };
        let naming = choice.naming(classes);
        let hosts = Hosts::new(&changes, &naming, everywhere.as_ref(), &settings, base, first.map(|l| &l.hosts));
        http.rejections.extend(hosts.rejections().cloned());
        let names = tls::names(&choice.with_tls(classes), facts, &mut http.rejections);
        http.certificates.extend(names.certificates);
        let old_names = addresses.first().and_then(|a| last?.listeners.iter().find(|l| l.vip == *a && l.tls.is_some()));
        let by_name = keep(names.by_name, old_names.and_then(|l| l.tls.as_ref()).map(|tls| &tls.by_name));
        let tls = Tls { by_name, default: default_certificate.clone() };
        for vip in addresses {
            http.listen(*vip, options.http_port, None, &hosts.table, last);
            http.listen(*vip, options.https_port, Some(tls.clone()), &hosts.table, last);
        }
        http.groups.push(Group { classes: classes.clone(), hosts });
    }
    http.pools = pools(&http, &choice, &changes, last);
    http.choice = choice;
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

/// Where the Ingresses are served.
fn served(
    choice: &Choice,
    changes: &[LookedChange],
    by_class: &BTreeMap<Class, Arc<[IpAddr]>>,
    last: Option<&Http>,
) -> Arc<Vec<Arc<ServedObject>>> {
    fn at<'a>(
        looked: &'a Looked,
        by_class: &BTreeMap<Class, Arc<[IpAddr]>>,
    ) -> Option<(&'a ObjectName, Arc<[IpAddr]>)> {
        Some((looked.name(), Arc::clone(by_class.get(&looked.ours.as_ref()?.class)?)))
    }
    let Some(last) = last.filter(|l| l.by_class == *by_class) else {
        return served::list(choice.all.iter().filter_map(|l| at(l, by_class)), last.map(|l| &l.served));
    };
    served::changed(
        changes.iter().map(|(was, is)| {
            let (was, is) = (was.as_deref(), is.as_deref());
            (was.and_then(|l| at(l, by_class)), is.and_then(|l| at(l, by_class)))
        }),
        &last.served,
    )
}

/// What the routes lead to. Whether somebody still leads to a pool that an Ingress left is only found by asking all.
fn pools(http: &Http, choice: &Choice, changes: &[LookedChange], last: Option<&Http>) -> Arc<BTreeSet<PoolName>> {
    let classes: BTreeSet<Class> = http.groups.iter().flat_map(|group| group.classes.iter().cloned()).collect();
    let of = |looked: &Option<Arc<Looked>>| -> Vec<PoolName> {
        looked.as_ref().and_then(|l| l.of_class(&classes)).map(|c| c.pools.clone()).unwrap_or_default()
    };
    let groups = |http: &Http| http.groups.iter().map(|group| group.classes.clone()).collect::<Vec<_>>();
    let same = |l: &&Http| l.fallback == http.fallback && groups(l) == groups(http);
    if let Some(last) = last.filter(same) {
        let changes: Vec<(Vec<PoolName>, Vec<PoolName>)> = changes.iter().map(|(was, is)| (of(was), of(is))).collect();
        if changes.iter().all(|(was, is)| was.iter().all(|pool| is.contains(pool))) {
            let mut new = changes.into_iter().flat_map(|(_, is)| is).filter(|p| !last.pools.contains(p)).peekable();
            let mut pools = Arc::clone(&last.pools);
            if new.peek().is_some() {
                Arc::make_mut(&mut pools).extend(new);
            }
            return pools;
        }
    }
    let mut pools: Vec<&PoolName> = http.fallback.iter().collect();
    pools.extend(choice.all.iter().filter_map(|l| l.of_class(&classes)).flat_map(|c| &c.pools));
    pools.sort_unstable();
    pools.dedup();
    match last.filter(|l| l.pools.iter().eq(pools.iter().copied())) {
        Some(l) => Arc::clone(&l.pools),
        None => Arc::new(pools.into_iter().cloned().collect()),
    }
}

/// Addresses that serve the same classes, with these classes.
fn groups(
    ours: &[&Arc<IngressClassFacts>],
    addresses: &Addresses,
    http: &mut Http,
) -> BTreeMap<BTreeSet<Class>, Vec<IpAddr>> {
    let mut by_vip: BTreeMap<IpAddr, BTreeSet<Class>> = BTreeMap::new();
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
        let name = Some(class.origin.name.clone());
        let Some(given) = addresses.classes.get(&class.origin.name) else {
            for vip in &of_options {
                by_vip.entry(*vip).or_default().insert(name.clone());
            }
            continue;
        };
        for vip in given {
            if let Some(fault) = vips::fault(vip.address) {
                let reason = format!("{} cannot be served: it {fault}", vip.address);
                http.rejections.push(class.origin.reject("IngressClass", vip.field.as_str(), reason));
                continue;
            }
            by_vip.entry(vip.address).or_default().insert(name.clone());
            http.owners.insert((vip.address, format!("IngressClass {}", class.origin.name)));
        }
    }
    http.vips = by_vip.keys().copied().collect();
    let mut groups: BTreeMap<BTreeSet<Class>, Vec<IpAddr>> = BTreeMap::new();
    for (vip, classes) in by_vip {
        groups.entry(classes).or_default().push(vip);
    }
    groups
}

/// Where the Ingresses of each class are served.
fn by_class(groups: &BTreeMap<BTreeSet<Class>, Vec<IpAddr>>) -> BTreeMap<Class, Arc<[IpAddr]>> {
    let mut sorted: BTreeMap<&Class, BTreeSet<IpAddr>> = BTreeMap::new();
    for (classes, addresses) in groups {
        for class in classes {
            sorted.entry(class).or_default().extend(addresses);
        }
    }
    sorted.into_iter().map(|(class, addresses)| (class.clone(), addresses.into_iter().collect())).collect()
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
