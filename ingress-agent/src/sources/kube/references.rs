//! Which Secrets are in use: those that Ingresses of our classes and options name. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::class_rule::ClassRule;
use crate::model::facts::{Facts, IngressClassFacts, IngressFacts};
use crate::model::objects::Objects;
use crate::model::snapshot::ObjectName;

#[derive(Debug, Default)]
pub(super) struct References {
    rule: ClassRule,
    /// How many entries of Ingresses and options name a Secret.
    counts: HashMap<ObjectName, usize>,
    /// Ingresses whose entries are counted.
    referring: BTreeSet<ObjectName>,
    /// Secrets that came into use or went out of it since they were last asked for.
    touched: Vec<ObjectName>,
}

impl References {
    pub(super) fn new(rule: ClassRule) -> Self {
        Self { rule, ..Self::default() }
    }

    /// One more reference. A Secret that options name is in use whatever the Ingresses say.
    pub(super) fn refer(&mut self, secret: &ObjectName) {
        let count = self.counts.entry(secret.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.touched.push(secret.clone());
        }
    }

    /// Secrets that came into use (`true`) or went out of it (`false`) since the last call.
    pub(super) fn touched(&mut self) -> Vec<(ObjectName, bool)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().map(|name| (name.clone(), self.counts.contains_key(&name))).collect()
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
            for secret in secrets(ingress) {
                self.refer(secret);
            }
        }
        for secret in before.into_iter().flat_map(secrets) {
            let Some(count) = self.counts.get_mut(secret) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(secret);
                self.touched.push(secret.clone());
            }
        }
    }
}

fn secrets(ingress: &IngressFacts) -> impl Iterator<Item = &ObjectName> {
    // Those of certificates, and those that annotations name.
    ingress.tls.iter().filter_map(|tls| tls.secret.as_ref()).chain(&ingress.secrets)
}
