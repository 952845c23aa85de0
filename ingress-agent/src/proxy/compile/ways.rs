//! Pools by number: one for each way in which a Service port's backends are spoken to and looked after. What one Ingress
//! found out about an endpoint, or asked for, is not another's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::policy::{Care, Upstream};
use crate::model::snapshot::PoolName;
use crate::proxy::pools::PoolId;
use crate::proxy::upstream::io::CompiledUpstream;

pub(super) struct Way {
    pub(super) id: PoolId,
    pub(super) upstream: Option<Arc<CompiledUpstream>>,
    pub(super) care: Option<Arc<Care>>,
}

#[derive(Default)]
pub(super) struct Ways {
    by_name: HashMap<PoolName, Vec<Way>>,
    count: u32,
    /// Pools of ways with a health check.
    checked: HashSet<PoolName>,
}

impl Ways {
    pub(super) fn of(&mut self, name: &PoolName, upstream: Option<&Arc<Upstream>>, care: Option<&Arc<Care>>) -> PoolId {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.clone(), Vec::new());
        }
        let Some(ways) = self.by_name.get_mut(name) else { return PoolId(self.count) };
        let same = |way: &&Way| way.upstream.as_ref().map(|u| &u.source) == upstream && way.care.as_ref() == care;
        if let Some(way) = ways.iter().find(same) {
            return way.id;
        }
        let id = PoolId(self.count);
        self.count += 1;
        if care.is_some_and(|care| care.health.is_some()) {
            self.checked.insert(name.clone());
        }
        let upstream = upstream.map(|u| Arc::new(CompiledUpstream::new(u)));
        ways.push(Way { id, upstream, care: care.cloned() });
        id
    }

    pub(super) fn all(&self, name: &PoolName) -> &[Way] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether some way was ever made with a health check.
    pub(super) fn any_checked(&self) -> bool {
        !self.checked.is_empty()
    }

    pub(super) fn checked(&self) -> impl Iterator<Item = (&PoolName, &Way)> {
        self.checked.iter().flat_map(|name| self.all(name).iter().map(move |way| (name, way)))
    }
}
