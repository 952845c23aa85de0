//! From the snapshot to the maps: what changed is found by comparing pointers along sorted keys, and done in an order in which no
//! packet sees a half state. Additions from the leaf (filter, endpoint, table) to the root (frontend, VIP), removals the other way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::Image;
use super::frontends::{Put, pool_of};
use crate::dataplane::pool::PoolKey;
use crate::model::snapshot::{Frontend, FrontendKey, Pool, PoolName, Snapshot};

impl Image {
    /// Returns what could not be done, a sentence each.
    pub(in crate::dataplane) fn apply(&mut self, snapshot: &Snapshot, now: Instant) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        self.tables.tick(&self.maps, now);
        self.end_leave(now);
        let (changed, removed) = self.changed_frontends(snapshot);
        let (new_vips, old_vips) = self.changed_vips(snapshot);
        self.claim_adopted(&changed);

        let short = self.put_pools(snapshot, &changed, now, &mut problems)?;
        let mut late = Vec::new();
        let mut touched: Vec<PoolKey> = Vec::new();
        for frontend in &changed {
            touched.extend(self.frontends.get(&frontend.key).and_then(|f| f.pool.clone()));
            touched.extend(pool_of(frontend));
            if self.put_frontend(frontend, now)? != Put::Done {
                late.push(frontend);
            }
        }
        let mut late_vips = Vec::new();
        for vip in new_vips {
            if !self.put_vip(vip)? {
                late_vips.push(vip);
            }
        }

        for vip in &old_vips {
            self.remove_vip(*vip)?;
        }
        for key in &removed {
            touched.extend(self.remove_frontend(key)?);
        }
        // A frontend that comes late keeps its pool.
        touched.retain(|key| !late.iter().any(|f| pool_of(f).as_ref() == Some(key)));
        self.remove_unused(&touched, now);
        if late.is_empty() {
            self.forget_adopted(now);
        }

        // What left may have made room.
        if !short.is_empty() {
            problems.clear();
            self.put_listed(snapshot, short, now, &mut problems)?;
        }
        for frontend in late {
            self.put_late(frontend, now, &mut problems)?;
        }
        for vip in late_vips {
            if !self.put_vip(vip)? {
                problems.push(format!(
                    "{vip} answers no echo request: the limit of VIPs is reached; raise --max-frontends"
                ));
            }
        }
        Ok(problems)
    }

    fn changed_frontends<'a>(&self, snapshot: &'a Snapshot) -> (Vec<&'a Arc<Frontend>>, Vec<FrontendKey>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        let mut old = self.frontends.iter().peekable();
        for (key, new) in &snapshot.frontends {
            while let Some((gone, _)) = old.next_if(|(k, _)| *k < key) {
                removed.push(*gone);
            }
            let same = old
                .next_if(|(k, _)| *k == key)
                .is_some_and(|(_, state)| state.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, new)));
            if !same {
                changed.push(new);
            }
        }
        removed.extend(old.map(|(key, _)| *key));
        (changed, removed)
    }

    fn changed_vips(&self, snapshot: &Snapshot) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let mut old = self.vips.iter().peekable();
        for vip in snapshot.vips.keys() {
            while let Some(gone) = old.next_if(|v| *v < vip) {
                removed.push(*gone);
            }
            if old.next_if(|v| *v == vip).is_none() {
                added.push(*vip);
            }
        }
        removed.extend(old);
        (added, removed)
    }

    /// Updates the pools in use that changed and makes the ones that `changed` frontends need. Returns those with problems.
    fn put_pools(
        &mut self,
        snapshot: &Snapshot,
        changed: &[&Arc<Frontend>],
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<Vec<PoolKey>> {
        let mut wanted: Vec<PoolKey> = Vec::new();
        let mut theirs = snapshot.pools.iter().peekable();
        for (key, state) in &self.pools {
            while theirs.next_if(|(name, _)| **name < key.name).is_some() {}
            let pool = theirs.peek().filter(|(name, _)| **name == key.name).map(|(_, pool)| *pool);
            let same = pool.zip(state.source.as_ref()).is_some_and(|(new, old)| Arc::ptr_eq(new, old));
            if !same {
                wanted.push(key.clone());
            }
        }
        let mut new: Vec<_> =
            changed.iter().filter_map(|f| pool_of(f)).filter(|p| !self.pools.contains_key(p)).collect();
        new.sort_unstable();
        new.dedup();
        wanted.append(&mut new);
        self.put_listed(snapshot, wanted, now, problems)
    }

    fn put_listed(
        &mut self,
        snapshot: &Snapshot,
        keys: Vec<PoolKey>,
        now: Instant,
        problems: &mut Vec<String>,
    ) -> Result<Vec<PoolKey>> {
        let mut short = Vec::new();
        for key in keys {
            let before = problems.len();
            match snapshot.pools.get(&key.name) {
                Some(pool) => self.put_pool(&key, pool, now, problems)?,
                // On its way out with its frontends, which go first.
                None if self.pools.contains_key(&key) => {}
                // The plan promises that every named pool is there.
                None => self.put_pool(&key, &Arc::new(empty(&key.name)), now, problems)?,
            }
            if problems.len() > before {
                short.push(key);
            }
        }
        Ok(short)
    }

    fn put_late(&mut self, frontend: &Arc<Frontend>, now: Instant, problems: &mut Vec<String>) -> Result<()> {
        let reason = match self.put_frontend(frontend, now)? {
            Put::Done => return Ok(()),
            Put::Full => format!("the limit of {} frontends is reached", self.maps.max_frontends),
            Put::Short => "no id is free".to_owned(),
        };
        problems.push(format!("{} ({}) is not served: {reason}; raise --max-frontends", frontend.key, frontend.owner));
        self.remove_unused(&Vec::from_iter(pool_of(frontend)), now);
        Ok(())
    }

    fn remove_unused(&mut self, keys: &[PoolKey], now: Instant) {
        for key in keys {
            if self.pools.get(key).is_some_and(|p| p.frontends == 0) {
                self.remove_pool(key, now);
            }
        }
    }
}

fn empty(name: &PoolName) -> Pool {
    Pool {
        name: name.clone(),
        backends: Vec::new(),
        table_size: 251,
        app_protocol: crate::model::snapshot::AppProtocol::Http1,
    }
}
