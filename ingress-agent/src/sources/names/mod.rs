//! Services of type `ExternalName`, resolved: a station between a source of facts and the plan. Where a Service has a name instead of
//! endpoints, what the DNS says is put in the place of its slices. Nothing waits for it: facts go through at once, with what is known.
//!
//! Only names that an Ingress or the default backend could lead to are looked up, so a cluster's other aliases cost nothing.

mod table;

mod ask;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::resolv::StubResolver;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::model::facts::{
    DEFAULT_WEIGHT, EndpointFacts, Exposure, ExternalNameFacts, Facts, ServiceFacts, ServiceSlices, SliceFacts,
};
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;
use table::{Answers, MOST_NAMES, Table};

/// Until something is due when nothing is known to be.
const IDLE: Duration = Duration::from_hours(1);

/// Returns when the source has ended. `servers`: without any, those that the machine asks. `default_backend` is referred to by the
/// operator.
pub async fn follow(
    mut source: watch::Receiver<Arc<Facts>>,
    publish: watch::Sender<Arc<Facts>>,
    servers: Vec<SocketAddr>,
    default_backend: Option<ObjectName>,
) {
    let mut station = Station { default_backend, ..Station::default() };
    let mut questions: JoinSet<(String, Answers)> = JoinSet::new();
    let mut resolver: Option<(String, Arc<StubResolver>)> = None;
    loop {
        let now = Instant::now();
        let due = station.table.due(now);
        if !due.is_empty() {
            let current = current(&mut resolver, &servers);
            for name in due {
                let resolver = Arc::clone(&current);
                questions.spawn(async move {
                    let answers = ask::ask(&resolver, &name).await;
                    (name, answers)
                });
            }
        }
        let next = station.table.next().unwrap_or(now + IDLE).max(now);
        let full = questions.len() >= table::AT_ONCE;
        tokio::select! {
            changed = source.changed() => {
                if changed.is_err() {
                    return;
                }
                let facts = Arc::clone(&source.borrow_and_update());
                publish.send_replace(station.take(facts, Instant::now()));
            }
            Some(answered) = questions.join_next() => {
                let Ok((name, answers)) = answered else { continue };
                if station.table.answered(&name, &answers, Instant::now(), chance())
                    && let Some(facts) = station.publish()
                {
                    publish.send_replace(facts);
                }
            }
            () = tokio::time::sleep_until(next.into()), if !full => {}
        }
    }
}

/// The resolver, made again when the machine asks others than before.
fn current(resolver: &mut Option<(String, Arc<StubResolver>)>, servers: &[SocketAddr]) -> Arc<StubResolver> {
    let file = if servers.is_empty() {
        std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        String::new()
    };
    match resolver {
        Some((made_from, resolver)) if *made_from == file => Arc::clone(resolver),
        other => {
            let made = Arc::new(ask::resolver(servers));
            *other = Some((file, Arc::clone(&made)));
            made
        }
    }
}

/// From 0 to 1: the hasher's keys are random.
fn chance() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[derive(Default)]
struct Station {
    default_backend: Option<ObjectName>,
    table: Table,
    /// As the source said them.
    facts: Arc<Facts>,
    /// Services that are looked up, each with its name.
    services: BTreeMap<ObjectName, Arc<ServiceFacts>>,
    /// What was put in, so that what did not change stays the same to the plan.
    put: BTreeMap<ObjectName, Arc<ServiceSlices>>,
    untold: Vec<Rejection>,
    revision: u64,
}

impl Station {
    /// New facts: which names they want, and the facts with what is known.
    fn take(&mut self, facts: Arc<Facts>, now: Instant) -> Arc<Facts> {
        let same = facts.services.same(&self.facts.services) && facts.ingresses.same(&self.facts.ingresses);
        self.facts = facts;
        if !same {
            self.choose(now);
        }
        self.publish().unwrap_or_else(|| Arc::clone(&self.facts))
    }

    fn choose(&mut self, now: Instant) {
        let all = &self.facts.services;
        let mut named: Vec<(&Arc<ServiceFacts>, &str)> =
            all.iter().filter_map(|s| Some((s, external(s)?.host.as_str()))).collect();
        if !named.is_empty() {
            let referred = referred(&self.facts);
            let last = self.default_backend.as_ref();
            named.retain(|(s, _)| referred.contains(&s.origin.name) || last == Some(&s.origin.name));
        }
        named.sort_by_key(|(s, _)| s.origin.seniority());
        let (mut names, mut services) = (BTreeSet::new(), BTreeMap::new());
        self.untold.clear();
        for (service, host) in named {
            if names.len() >= MOST_NAMES && !names.contains(host) {
                let reason = format!("is not looked up: {MOST_NAMES} other names of older Services are");
                self.untold.push(service.origin.reject("Service", "spec.externalName", reason));
                continue;
            }
            names.insert(host);
            services.insert(service.origin.name.clone(), Arc::clone(service));
        }
        self.table.want(&names, now);
        self.services = services;
    }

    /// The facts with what is known; `None` until any were read.
    fn publish(&mut self) -> Option<Arc<Facts>> {
        if self.facts.revision == 0 {
            return None;
        }
        let mut facts = Facts::clone(&self.facts);
        let mut told = self.untold.clone();
        let mut put = BTreeMap::new();
        for (name, service) in &self.services {
            let known = external(service).and_then(|e| self.table.known(&e.host));
            let slices = slices(service, known.into_iter().flat_map(table::Known::addresses));
            // Equal ones keep their `Arc`.
            let slices = match self.put.get(name).filter(|old| ***old == slices) {
                Some(old) => Arc::clone(old),
                None => Arc::new(slices),
            };
            facts.slices.insert(Arc::clone(&slices));
            put.insert(name.clone(), slices);
            if let Some(trouble) = known.and_then(|known| known.trouble.as_ref()) {
                told.push(service.origin.warn("Service", "spec.externalName", trouble.as_str()));
            }
        }
        self.put = put;
        if !told.is_empty() {
            told.extend(facts.rejections.iter().cloned());
            told.sort();
            facts.rejections = Arc::new(told);
        }
        self.revision += 1;
        facts.revision = self.revision;
        Some(Arc::new(facts))
    }
}

fn external(service: &ServiceFacts) -> Option<&ExternalNameFacts> {
    match &service.exposure {
        Exposure::ExternalName(external) => external.as_deref(),
        _ => None,
    }
}

/// Every Service that an Ingress names, whoever's the Ingress is: that is the plan's to say.
fn referred(facts: &Facts) -> BTreeSet<&ObjectName> {
    let of_rules = facts.ingresses.iter().flat_map(|i| &i.rules).flat_map(|rule| &rule.paths).map(|path| &path.backend);
    let defaults = facts.ingresses.iter().filter_map(|i| i.default_backend.as_ref());
    of_rules.chain(defaults).map(|backend| &backend.service).collect()
}

/// Without ports: which port is meant the reference says, and the Service.
fn slices(service: &ServiceFacts, addresses: impl Iterator<Item = std::net::IpAddr>) -> ServiceSlices {
    let endpoint =
        |address| EndpointFacts { address, ready: true, serving: true, terminating: false, node: None, zones: None };
    let name = service.origin.name.clone();
    let slice = SliceFacts {
        origin: service.origin.clone(),
        service: name.clone(),
        ports: Vec::new(),
        endpoints: addresses.map(endpoint).collect(),
        weight: DEFAULT_WEIGHT,
    };
    ServiceSlices { service: name, slices: vec![Arc::new(slice)] }
}
