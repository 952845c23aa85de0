//! Which Ingresses are ours, and what each comes to. Of thousands only those are looked at again that changed, as long as nothing else did that
//! an Ingress may depend on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::PlanOptions;
use super::compile::{Compiled, Names, compile};
use super::hosts;
use super::nginx::Settings;
use super::policies::Policies;
use crate::model::facts::{ClassChoice, Facts, IngressClassFacts, IngressFacts};
use crate::model::objects::{Named, Objects};
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;

/// Whose Ingress it is: `None` of a class (only served where the options say so), or the class of this name.
pub(super) type Class = Option<ObjectName>;

/// An Ingress as it was looked at.
#[derive(Debug, PartialEq)]
pub(super) struct Looked {
    ingress: Arc<IngressFacts>,
    /// `None`: somebody else's.
    pub(super) ours: Option<Ours>,
    /// Of its class.
    said: Vec<Rejection>,
}

#[derive(Debug)]
pub(super) struct Ours {
    pub(super) class: Class,
    pub(super) compiled: Arc<Compiled>,
}

impl PartialEq for Ours {
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class && Arc::ptr_eq(&self.compiled, &other.compiled)
    }
}

impl Named for Looked {
    type Name = ObjectName;

    fn name(&self) -> &ObjectName {
        &self.ingress.origin.name
    }
}

impl Looked {
    pub(super) fn of_class(&self, classes: &BTreeSet<Class>) -> Option<&Arc<Compiled>> {
        self.ours.as_ref().filter(|ours| classes.contains(&ours.class)).map(|ours| &ours.compiled)
    }

    fn compiled(&self) -> Option<&Compiled> {
        self.ours.as_ref().map(|ours| &*ours.compiled)
    }

    pub(super) fn shares_limits(&self) -> bool {
        self.compiled().is_some_and(|c| c.asked.policy.limits.as_ref().is_some_and(|limits| limits.shared))
    }
}

/// What an Ingress was and what it is.
pub(super) type LookedChange = (Option<Arc<Looked>>, Option<Arc<Looked>>);

/// All Ingresses, and those among them of which there is more to do than to serve their paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) all: Objects<Looked>,
    telling: Objects<Looked>,
    with_tls: Objects<Looked>,
    /// That give their hosts more names.
    naming: Objects<Looked>,
    policies: Policies,
    /// How many are of each class.
    classes: BTreeMap<Class, usize>,
}

impl Choice {
    /// The Ingresses of these facts, and how they differ from what they were.
    pub(super) fn new(
        facts: &Facts,
        options: &PlanOptions,
        settings: &Arc<Settings>,
        last: Option<(&Facts, &Self, &Arc<Settings>)>,
    ) -> (Self, Vec<LookedChange>) {
        let mut look = Look {
            facts,
            options,
            settings,
            ours: facts.classes.iter().filter(|c| options.classes.owns(c)).collect(),
            known: facts.classes.iter().map(|c| c.origin.name.name.as_str()).collect(),
            policies: last.map(|(_, last, _)| last.policies.in_use()).unwrap_or_default(),
        };
        let mut choice = last.map(|(_, last, _)| last.clone()).unwrap_or_default();
        let mut changes = Vec::new();
        let quiet = last.filter(|(before, _, then)| {
            facts.services.same(&before.services)
                && facts.classes.same(&before.classes)
                && facts.certificates.same(&before.certificates)
                && facts.secrets.same(&before.secrets)
                && facts.config_maps.same(&before.config_maps)
                && Arc::ptr_eq(settings, then)
        });
        if let Some((before, ..)) = quiet {
            for (was, is) in facts.ingresses.changes(&before.ingresses) {
                let was = was.and_then(|was| choice.remove(&was.origin.name));
                let is = is.map(|is| look.at(is, was.as_deref()));
                choice.put(was, is, &mut changes);
            }
        } else {
            let gone: Vec<ObjectName> = choice
                .all
                .iter()
                .map(|l| l.name())
                .filter(|name| facts.ingresses.find(name).is_none())
                .cloned()
                .collect();
            for name in gone {
                let was = choice.remove(&name);
                choice.put(was, None, &mut changes);
            }
            for ingress in facts.ingresses.iter() {
                let was = choice.all.find(&ingress.origin.name).cloned();
                let is = look.at(ingress, was.as_deref());
                if was.as_deref() != Some(&*is) {
                    let was = choice.remove(&ingress.origin.name);
                    choice.put(was, Some(is), &mut changes);
                }
            }
        }
        choice.policies = look.policies;
        (choice, changes)
    }

    fn remove(&mut self, name: &ObjectName) -> Option<Arc<Looked>> {
        for some in [&mut self.telling, &mut self.with_tls, &mut self.naming] {
            some.remove(name);
        }
        let removed = self.all.remove(name);
        if let Some(ours) = removed.as_ref().and_then(|was| was.ours.as_ref())
            && let Some(count) = self.classes.get_mut(&ours.class)
        {
            *count -= 1;
        }
        removed
    }

    fn put(&mut self, was: Option<Arc<Looked>>, is: Option<Arc<Looked>>, changes: &mut Vec<LookedChange>) {
        if let Some(is) = &is {
            let compiled = is.compiled();
            if let Some(ours) = &is.ours {
                *self.classes.entry(ours.class.clone()).or_default() += 1;
            }
            let put = |into: &mut Objects<Looked>, wanted: bool| {
                if wanted {
                    into.insert(Arc::clone(is));
                }
            };
            put(&mut self.all, true);
            put(&mut self.telling, !is.said.is_empty() || compiled.is_some_and(|c| !c.rejections.is_empty()));
            put(&mut self.with_tls, compiled.is_some() && !is.ingress.tls.is_empty());
            put(&mut self.naming, compiled.is_some_and(|c| c.asked.other_name || !c.asked.aliases.is_empty()));
        }
        changes.push((was, is));
    }

    /// Those that some Ingress is of.
    pub(super) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|(_, count)| **count > 0).map(|(class, _)| class)
    }

    /// What there is to say of each; of those that are compiled only where they are served.
    pub(super) fn rejections(&self, served: impl Fn(&Class) -> bool) -> Vec<Rejection> {
        let mut all = Vec::new();
        for looked in self.telling.iter() {
            all.extend(looked.said.iter().cloned());
            if let Some(ours) = looked.ours.as_ref().filter(|ours| served(&ours.class)) {
                all.extend(ours.compiled.rejections.iter().cloned());
            }
        }
        all
    }

    pub(super) fn with_tls(&self, classes: &BTreeSet<Class>) -> Vec<Arc<Compiled>> {
        by_seniority(&self.with_tls, classes)
    }

    pub(super) fn naming(&self, classes: &BTreeSet<Class>) -> Vec<Arc<Compiled>> {
        by_seniority(&self.naming, classes)
    }
}

fn by_seniority(some: &Objects<Looked>, classes: &BTreeSet<Class>) -> Vec<Arc<Compiled>> {
    let of_class = some.iter().filter_map(|looked| looked.of_class(classes));
    let mut all: Vec<Arc<Compiled>> = of_class.filter(|c| !c.asked.dropped).map(Arc::clone).collect();
    hosts::sort_by_seniority(&mut all);
    all
}

/// The changes of the Ingresses of some classes.
pub(super) fn of_classes<'a>(changes: &'a [LookedChange], classes: &BTreeSet<Class>) -> Vec<hosts::Change<'a>> {
    let of = |looked: &'a Option<Arc<Looked>>| looked.as_ref().and_then(|looked| looked.of_class(classes));
    changes.iter().map(|(was, is)| (of(was), of(is))).collect()
}

/// What an Ingress is looked at with.
struct Look<'a> {
    facts: &'a Facts,
    options: &'a PlanOptions,
    settings: &'a Arc<Settings>,
    ours: Vec<&'a Arc<IngressClassFacts>>,
    known: BTreeSet<&'a str>,
    policies: Policies,
}

impl Look<'_> {
    fn at(&mut self, ingress: &Arc<IngressFacts>, was: Option<&Looked>) -> Arc<Looked> {
        let mut said = Vec::new();
        let ours = self.class(ingress, &mut said).map(|class| {
            let before = was.and_then(|was| was.ours.as_ref()).map(|ours| &ours.compiled);
            let compiled = before.filter(|c| c.holds(ingress, self.facts, self.settings)).map(Arc::clone);
            let compiled = compiled.unwrap_or_else(|| {
                let names = Names::of(self.options);
                Arc::new(compile(ingress, self.facts, names, self.settings, &mut self.policies))
            });
            Ours { class, compiled }
        });
        Arc::new(Looked { ingress: Arc::clone(ingress), ours, said })
    }

    /// As ingress-nginx chooses: the field, else the deprecated annotation, else the default class (which the API server would have
    /// filled in), else what the options say about Ingresses without one.
    fn class(&self, ingress: &IngressFacts, rejections: &mut Vec<Rejection>) -> Option<Class> {
        let named = |name: &str| {
            let class = self.ours.iter().map(|c| &c.origin.name).find(|n| n.name == name);
            class.cloned().map(Some)
        };
        match self.options.classes.meant(&ingress.class) {
            ClassChoice::Named(name) => {
                if !self.known.contains(name.as_str()) {
                    let reason = format!("there is no IngressClass {name}, so nobody serves it");
                    rejections.push(ingress.origin.warn("Ingress", "spec.ingressClassName", reason));
                }
                named(name)
            }
            // ingress-nginx compares the annotation with its `--ingress-class`, and no IngressClass need be there. One of that name
            // that is ours says where it is served.
            ClassChoice::Annotation(name) => match &self.options.classes.annotation {
                Some(ours) => (ours == name).then(|| named(name).unwrap_or(None)),
                None => named(name),
            },
            ClassChoice::None => {
                // Of several, the API server's admission takes the newest.
                let default =
                    self.ours.iter().filter(|c| c.default).min_by_key(|c| (Reverse(c.origin.created), &c.origin.name));
                if let Some(default) = default {
                    return Some(Some(default.origin.name.clone()));
                }
                if self.options.classes.without_class {
                    return Some(None);
                }
                let reason = "is missing, and no IngressClass of ours is the default, so it is not served here";
                rejections.push(ingress.origin.warn("Ingress", "spec.ingressClassName", reason));
                None
            }
        }
    }
}
