//! The namespaces that a label selector chooses: what is in one is watched for as long as it is chosen.

use std::collections::BTreeMap;

use super::starter::{Started, Starter};
use super::tables::Tables;
use crate::model::facts::NamespaceFacts;
use crate::model::objects::Objects;
use crate::model::snapshot::ObjectName;

pub(super) struct Chosen {
    claims_only: bool,
    watched: BTreeMap<ObjectName, Vec<Started>>,
    /// Those that were chosen when it was looked last.
    last: Objects<NamespaceFacts>,
}

impl Chosen {
    /// `claims_only`: no EndpointSlices are watched.
    pub(super) fn new(claims_only: bool) -> Self {
        Self { claims_only, watched: BTreeMap::new(), last: Objects::default() }
    }

    /// Begins with the namespaces that were chosen since, and ends with those that are not any more.
    pub(super) fn settle(&mut self, starter: &mut Starter, tables: &mut Tables) {
        if self.last.same(tables.namespaces()) {
            return;
        }
        let now = tables.namespaces().clone();
        for (name, started) in self.watched.extract_if(.., |name, _| now.find(name).is_none()) {
            tracing::info!("namespace {} is not chosen any more", name.name);
            for (id, task) in started {
                task.abort();
                tables.drop_watch(id);
            }
        }
        for namespace in now.iter() {
            let name = &namespace.origin.name;
            if !self.watched.contains_key(name) {
                let started = starter.start_in(&name.name, self.claims_only, tables);
                self.watched.insert(name.clone(), started);
            }
        }
        self.last = now;
    }
}
