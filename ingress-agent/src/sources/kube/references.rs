//! Which Secrets and ConfigMaps are in use: those that Ingresses of our classes, the settings and options name. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::class_rule::ClassRule;
use crate::model::facts::{ConfigMapFacts, Facts, IngressClassFacts, IngressFacts};
use crate::model::objects::Objects;
use crate::model::snapshot::ObjectName;

/// What others refer to, and is read for no other reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Referred {
    Secret,
    ConfigMap,
}

type Reference<'a> = (Referred, &'a ObjectName);

/// Keys of the settings that name a ConfigMap, `namespace/name`.
const OF_SETTINGS: [&str; 2] = ["add-headers", "proxy-set-headers"];

#[derive(Debug, Default)]
pub(super) struct References {
    rule: ClassRule,
    /// How many entries of Ingresses, settings and options name an object.
    counts: HashMap<(Referred, ObjectName), usize>,
    /// Ingresses whose entries are counted.
    referring: BTreeSet<ObjectName>,
    /// Objects that came into use or went out of it since they were last asked for.
    touched: Vec<(Referred, ObjectName)>,
}

impl References {
    pub(super) fn new(rule: ClassRule) -> Self {
        Self { rule, ..Self::default() }
    }

    /// One more reference. What options name is in use whatever the Ingresses say.
    pub(super) fn refer(&mut self, (kind, name): Reference<'_>) {
        let count = self.counts.entry((kind, name.clone())).or_default();
        *count += 1;
        if *count == 1 {
            self.touched.push((kind, name.clone()));
        }
    }

    fn release(&mut self, (kind, name): Reference<'_>) {
        let key = (kind, name.clone());
        let Some(count) = self.counts.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&key);
            self.touched.push(key);
        }
    }

    /// Objects of a kind that came into use (`true`) or went out of it (`false`) since the last call.
    pub(super) fn touched(&mut self, kind: Referred) -> Vec<(ObjectName, bool)> {
        let touched = self.touched.extract_if(.., |(of, _)| *of == kind);
        let touched: Vec<_> = touched.collect();
        touched.into_iter().map(|key| (key.1.clone(), self.counts.contains_key(&key))).collect()
    }

    /// Other Ingresses may be ours now. There are few classes, and they hardly ever change.
    pub(super) fn classes_changed(&mut self, facts: &Facts) {
        let ours = |i: &Arc<IngressFacts>| self.rule.is_ours(&i.class, &facts.classes);
        let other = |i: &&Arc<IngressFacts>| ours(i) != self.referring.contains(&i.origin.name);
        let others: Vec<&Arc<IngressFacts>> = facts.ingresses.iter().filter(other).collect();
        for ingress in others {
            self.ingress_changed(Some(ingress), Some(ingress), &facts.classes);
        }
    }

    pub(super) fn ingress_changed(
        &mut self,
        before: Option<&IngressFacts>,
        after: Option<&IngressFacts>,
        classes: &Objects<IngressClassFacts>,
    ) {
        let before = before.filter(|i| self.referring.remove(&i.origin.name));
        if let Some(ingress) = after.filter(|i| self.rule.is_ours(&i.class, classes)) {
            self.referring.insert(ingress.origin.name.clone());
            for reference in of_ingress(ingress) {
                self.refer(reference);
            }
        }
        for reference in before.into_iter().flat_map(of_ingress) {
            self.release(reference);
        }
    }

    /// The ConfigMap of settings.
    pub(super) fn settings_changed(&mut self, before: Option<&ConfigMapFacts>, after: Option<&ConfigMapFacts>) {
        for name in after.into_iter().flat_map(of_settings) {
            self.refer((Referred::ConfigMap, &name));
        }
        for name in before.into_iter().flat_map(of_settings) {
            self.release((Referred::ConfigMap, &name));
        }
    }
}

fn of_ingress(ingress: &IngressFacts) -> impl Iterator<Item = Reference<'_>> {
    // Those of certificates, and those that annotations name.
    let secrets = ingress.tls.iter().filter_map(|tls| tls.secret.as_ref()).chain(&ingress.secrets);
    let config_maps = ingress.config_maps.iter().map(|name| (Referred::ConfigMap, name));
    secrets.map(|name| (Referred::Secret, name)).chain(config_maps)
}

fn of_settings(settings: &ConfigMapFacts) -> impl Iterator<Item = ObjectName> + '_ {
    let values = OF_SETTINGS.iter().filter_map(|key| settings.data.get(*key)?.trim().split_once('/'));
    values.filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty()).map(|(n, m)| ObjectName::new(n, m))
}
