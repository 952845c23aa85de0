//! Taking over maps that an earlier agent filled. Ids, epochs and table ranges are read back, so that the first snapshot finds
//! its frontends, pools and endpoints under the numbers that flows know. Nothing is removed before the first snapshot is in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xdp_ebpf::{Backend, FrontendInfo, IPPROTO_TCP, IPPROTO_UDP, Pool, Ring, backend_state, forwarding};

use super::frontends::pool_of;
use super::{FrontendState, Image};
use crate::dataplane::filter::Bit;
use crate::dataplane::pool::{PoolState, Slot, ip};
use crate::model::snapshot::{Frontend, FrontendKey, Protocol};

/// What the maps held and nobody has asked for yet.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// Pools by id. Maps know no names: a frontend of the first snapshot claims the pool that its entry named.
    pools: HashMap<u32, Vec<Slot>>,
    /// Endpoints in no table (draining), by address and forwarding. Maps don't tell whose they were, and to a flow it makes no
    /// difference which of two entries for the same address its pool owns.
    orphans: HashMap<(SocketAddr, u8), Vec<Slot>>,
}

impl Image {
    pub(super) fn adopt(&mut self, now: Instant) -> Result<()> {
        let mut adopted = Adopted::default();
        let mut frontend_ids = self.adopt_frontends()?;
        self.adopt_addresses(now)?;
        // Removed from FRONTENDS, but the sweep of its flows did not end: its info is cleared only then.
        for id in 1..self.maps.frontend_info.end() as u32 {
            if frontend_ids.binary_search(&id).is_err()
                && self.maps.frontend_info.load(id as usize) != FrontendInfo::default()
            {
                self.sweep.retire(id);
                frontend_ids.push(id);
            }
        }
        frontend_ids.sort_unstable();

        let mut owner = vec![0u32; self.maps.backends.end()];
        let rings = self.adopt_pools(now)?;
        // Tables in force first: what only a previous one names may have another owner by now.
        for ring_of in [|p: &Pool| p.current, |p: &Pool| p.previous] {
            for (id, pool) in &rings {
                let slots = adopted.pools.entry(*id).or_default();
                self.adopt_members(*id, ring_of(pool), &mut owner, slots)?;
            }
        }
        let mut backend_ids = Vec::new();
        for (id, owner) in owner.into_iter().enumerate().skip(1) {
            let entry = self.maps.backends.load(id);
            if entry.state == backend_state::GONE {
                continue;
            }
            backend_ids.push(id as u32);
            if entry.forwarding == forwarding::LOCAL {
                self.watch(Bit::of_address(&entry.addr));
            }
            if owner == 0 {
                let slot = slot(id as u32, &entry);
                adopted.orphans.entry((slot.address, slot.forwarding)).or_default().push(slot);
            }
        }
        adopted.pools.values_mut().for_each(|slots| slots.sort_unstable_by_key(|s| s.address));

        self.backends = backend_ids.len();
        let mut pool_ids: Vec<u32> = adopted.pools.keys().copied().collect();
        pool_ids.sort_unstable();
        self.frontend_ids.adopt(&frontend_ids, now);
        self.pool_ids.adopt(&pool_ids, now);
        self.backend_ids.adopt(&backend_ids, now);
        self.adopted = Some(adopted);
        Ok(())
    }

    fn adopt_frontends(&mut self) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let entries: Vec<_> = self.maps.frontends.iter().collect::<Result<_, _>>().context("read FRONTENDS")?;
        for (key, image) in entries {
            let (key, image) = (key.0, image.0);
            let protocol = match key.proto {
                IPPROTO_TCP => Protocol::Tcp,
                IPPROTO_UDP => Protocol::Udp,
                other => anyhow::bail!("FRONTENDS has an entry of IP protocol {other}"),
            };
            let ends = (self.maps.frontend_info.end() as u32, self.maps.pools.end() as u32);
            ensure!(
                (1..ends.0).contains(&image.id) && image.pool < ends.1,
                "FRONTENDS has an entry with id {} and pool {}",
                image.id,
                image.pool
            );
            ids.push(image.id);
            let key = FrontendKey { vip: ip(&key.addr), protocol, port: u16::from_be_bytes(key.port) };
            self.watch(Bit::of_port(key.port));
            self.frontends.insert(key, FrontendState { source: None, image, pool: None, sources: Vec::new() });
        }
        self.adopt_sources()?;
        ids.sort_unstable();
        ensure!(ids.windows(2).all(|w| w[0] != w[1]), "two entries of FRONTENDS have one id");
        Ok(ids)
    }

    /// Pools that have tables or frontends.
    fn adopt_pools(&mut self, now: Instant) -> Result<Vec<(u32, Pool)>> {
        let mut named = vec![false; self.maps.pools.end()];
        self.frontends.values().for_each(|f| named[f.image.pool as usize] = true);
        let mut found = Vec::new();
        for (id, named) in named.into_iter().enumerate().skip(1) {
            let pool = self.maps.pools.load(id);
            if named || pool != Pool::default() {
                self.tables.adopt(id as u32, pool, now)?;
                found.push((id as u32, pool));
            }
        }
        Ok(found)
    }

    /// Collects the living endpoints that a table names.
    fn adopt_members(&self, pool: u32, ring: Ring, owner: &mut [u32], slots: &mut Vec<Slot>) -> Result<()> {
        if ring.is_empty() {
            return Ok(());
        }
        let window = self.maps.ring(ring)?;
        let first = ring.offset() as usize;
        for i in first..first + ring.len() as usize {
            let id = window.half(i, 0).load(Ordering::Relaxed);
            let Some(owner) = owner.get_mut(id as usize).filter(|owner| id != 0 && **owner == 0) else { continue };
            let entry = self.maps.backends.load(id as usize);
            if entry.state != backend_state::GONE {
                *owner = pool;
                slots.push(slot(id, &entry));
            }
        }
        Ok(())
    }

    /// Gives the pools that changed frontends used to name to the pools that they name now.
    pub(super) fn claim_adopted(&mut self, changed: &[&Arc<Frontend>]) {
        let Some(adopted) = &mut self.adopted else { return };
        for frontend in changed {
            let (Some(key), Some(old)) = (pool_of(frontend), self.frontends.get(&frontend.key)) else { continue };
            if self.pools.contains_key(&key) {
                continue;
            }
            if let Some(slots) = adopted.pools.remove(&old.image.pool) {
                self.pools.insert(key, PoolState { slots, ..PoolState::new(old.image.pool) });
            }
        }
    }

    /// An adopted endpoint in no table that is the same as `wanted`: its id and epoch.
    pub(super) fn claim_orphan(&mut self, wanted: &Slot) -> Option<(u32, u32)> {
        let orphans = &mut self.adopted.as_mut()?.orphans;
        orphans.get_mut(&(wanted.address, wanted.forwarding))?.pop().map(|slot| (slot.id, slot.epoch))
    }

    /// Removes what the first snapshot did not name, now that all that it names is in.
    pub(super) fn forget_adopted(&mut self, now: Instant) {
        let Some(adopted) = self.adopted.take() else { return };
        for (id, slots) in adopted.pools {
            self.tables.remove(&self.maps, id, now);
            for slot in &slots {
                self.remove_backend(slot, now);
            }
            self.pool_ids.give(id, now);
        }
        for slot in adopted.orphans.into_values().flatten() {
            self.remove_backend(&slot, now);
        }
        // Bits whose addresses left while no agent was counting.
        for word in 0..self.filter.words() {
            self.maps.filter.word(word, 0).store(self.filter.word(word), Ordering::Release);
        }
    }
}

fn slot(id: u32, entry: &Backend) -> Slot {
    let address = SocketAddr::new(ip(&entry.addr), u16::from_be_bytes(entry.port));
    Slot { address, id, epoch: entry.epoch, forwarding: entry.forwarding, state: entry.state, weight: 0 }
}
