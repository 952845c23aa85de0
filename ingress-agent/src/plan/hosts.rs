//! Host tables: all hosts of a group of listeners, by name. What each comes to stands in `host`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use http::StatusCode;

use super::compile::{Compiled, plain_route};
use super::host::Planned;
use super::keep;
use super::nginx::{Settings, to_other_name};
use crate::model::facts::HostFacts;
use crate::model::objects::Objects;
use crate::model::rejection::Rejection;
use crate::model::route::{Action, Balance, HostTable, PathMatch, Route, VirtualHost, Wildcard};

/// The hosts of one group of listeners. Of thousands only those are planned again whose Ingresses changed.
#[derive(Debug)]
pub(super) struct Hosts {
    planned: Objects<Planned>,
    /// Those of them that have something to say.
    telling: Objects<Planned>,
    pub(super) table: Arc<HostTable>,
    /// Some Ingress gives a host more names.
    renamed: bool,
    of_names: Vec<Rejection>,
    everywhere: Option<Arc<Route>>,
}

/// An Ingress that was, or is, or became another.
pub(super) type Change<'a> = (Option<&'a Arc<Compiled>>, Option<&'a Arc<Compiled>>);

impl Hosts {
    /// `everywhere`: routes of the operator for hosts and paths that nobody has claimed. `naming`: the Ingresses that give their hosts more names, in
    /// the order of their seniority. `base`: what changed since. Without it, everything is in `changes`. `old`: whose parts are kept where they are equal.
    pub(super) fn new(
        changes: &[Change<'_>],
        naming: &[Arc<Compiled>],
        everywhere: Option<&Arc<Route>>,
        settings: &Settings,
        base: Option<&Self>,
        old: Option<&Arc<HostTable>>,
    ) -> Self {
        let mut hosts = Self {
            planned: base.map(|b| b.planned.clone()).unwrap_or_default(),
            telling: base.map(|b| b.telling.clone()).unwrap_or_default(),
            table: base.map(|b| Arc::clone(&b.table)).unwrap_or_default(),
            renamed: !naming.is_empty(),
            of_names: Vec::new(),
            everywhere: everywhere.map(Arc::clone),
        };
        let anew = base.is_none_or(|b| b.renamed) || hosts.renamed;
        for (name, members) in hosts.touched(changes) {
            let before = hosts.planned.remove(name);
            let _ = hosts.telling.remove(name);
            let planned = (!members.is_empty() || *name == HostFacts::Any).then(|| {
                let kept = before.as_ref().map(|b| &b.host).or_else(|| host_of(old?, name));
                Arc::new(Planned::new(name, members, everywhere, kept))
            });
            let same = match (&before, &planned) {
                (Some(before), Some(planned)) => {
                    Arc::ptr_eq(&before.host, &planned.host) && before.passed == planned.passed
                }
                (before, planned) => before.is_none() && planned.is_none(),
            };
            if !anew && !same {
                let table = Arc::make_mut(&mut hosts.table);
                forget(table, name);
                if let Some(planned) = &planned {
                    enter(planned, table);
                }
            }
            if let Some(planned) = planned {
                if !planned.rejections.is_empty() {
                    hosts.telling.insert(Arc::clone(&planned));
                }
                hosts.planned.insert(planned);
            }
        }
        if anew {
            let mut table = HostTable::default();
            for planned in hosts.planned.iter() {
                enter(planned, &mut table);
            }
            for compiled in naming {
                hosts.more_names(compiled, &mut table, settings, old);
            }
            hosts.table = keep(table, old);
        }
        hosts
    }

    /// Whether later changes may be made to it.
    pub(super) fn has_everywhere(&self, everywhere: Option<&Arc<Route>>) -> bool {
        self.everywhere.as_ref() == everywhere
    }

    pub(super) fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.telling.iter().flat_map(|planned| &planned.rejections).chain(&self.of_names)
    }

    /// The hosts that changed Ingresses name, with all who name them now.
    fn touched<'a>(&self, changes: &[Change<'a>]) -> BTreeMap<&'a HostFacts, Vec<Arc<Compiled>>> {
        let mut touched: BTreeMap<&HostFacts, Vec<Arc<Compiled>>> = BTreeMap::new();
        let members = |name| self.planned.find(name).map(|p| p.members.clone()).unwrap_or_default();
        for (was, is) in changes {
            if let Some(was) = was {
                for name in was.hosts() {
                    touched.entry(name).or_insert_with(|| members(name)).retain(|member| !Arc::ptr_eq(member, was));
                }
            }
            // One that is dropped leaves its hosts to others.
            if let Some(is) = is.filter(|is| !is.asked.dropped) {
                for name in is.hosts() {
                    touched.entry(name).or_insert_with(|| members(name)).push(Arc::clone(is));
                }
            }
        }
        if self.planned.find(&HostFacts::Any).is_none() {
            touched.entry(&HostFacts::Any).or_default();
        }
        for members in touched.values_mut() {
            sort_by_seniority(members);
        }
        touched
    }

    /// `server-alias` and `from-to-www-redirect`: names that nobody has otherwise. The oldest Ingress of a host decides (golden case 019).
    fn more_names(
        &mut self,
        compiled: &Arc<Compiled>,
        table: &mut HostTable,
        settings: &Settings,
        old: Option<&Arc<HostTable>>,
    ) {
        let mut names: Vec<&String> = Vec::new();
        for rule in &compiled.ingress.rules {
            let oldest = self.planned.find(&rule.host).and_then(|p| p.members.first());
            if let HostFacts::Exact(name) = &rule.host
                && oldest.is_some_and(|oldest| Arc::ptr_eq(oldest, compiled))
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        if let Some(host) = names.first().and_then(|name| table.exact.get(*name)).map(Arc::clone) {
            for alias in &compiled.asked.aliases {
                if let Some(pattern) = alias.strip_prefix('~') {
                    table.patterns.push((pattern.to_owned(), Arc::clone(&host)));
                } else if let Some(suffix) = alias.strip_prefix("*.") {
                    let wildcard = Wildcard { one_label: true, host: Arc::clone(&host) };
                    table.wildcard.entry(suffix.to_owned()).or_insert(wildcard);
                } else if table.exact.contains_key(alias) {
                    let reason = format!("`{alias}` is left out: an Ingress has that host, or it is named before");
                    let field = compiled.ingress.annotation_field("server-alias");
                    self.of_names.push(compiled.ingress.origin.warn("Ingress", field, reason));
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
            let old = old.and_then(|old| old.exact.get(place.key()));
            place.insert(keep(host, old));
        }
    }
}

/// The senior first: it decides.
pub(super) fn sort_by_seniority(ingresses: &mut [Arc<Compiled>]) {
    ingresses.sort_by(|a, b| a.ingress.origin.seniority().cmp(&b.ingress.origin.seniority()));
}

fn enter(planned: &Planned, table: &mut HostTable) {
    let host = Arc::clone(&planned.host);
    match &planned.name {
        HostFacts::Any => table.any = Some(host),
        HostFacts::Exact(name) => {
            table.exact.insert(name.clone(), host);
            if let Some(passed) = &planned.passed {
                table.passed.insert(name.clone(), passed.clone());
            }
        }
        // The Ingress v1 API: the wildcard stands for exactly one label (golden case 011).
        HostFacts::Wildcard(suffix) => {
            table.wildcard.insert(suffix.clone(), Wildcard { one_label: true, host });
        }
    }
}

fn forget(table: &mut HostTable, name: &HostFacts) {
    match name {
        HostFacts::Any => table.any = None,
        HostFacts::Exact(exact) => {
            table.exact.remove(exact);
            table.passed.remove(exact);
        }
        HostFacts::Wildcard(suffix) => drop(table.wildcard.remove(suffix)),
    }
}

fn host_of<'a>(table: &'a HostTable, name: &HostFacts) -> Option<&'a Arc<VirtualHost>> {
    match name {
        HostFacts::Any => table.any.as_ref(),
        HostFacts::Exact(name) => table.exact.get(name),
        HostFacts::Wildcard(suffix) => table.wildcard.get(suffix).map(|wildcard| &wildcard.host),
    }
}
