//! Frontends: their entry in `FRONTENDS`, what replies are rewritten back to, and the address filter behind both. An id is given
//! to another frontend only after no flow names it. The ranges of clients that it admits are in `sources.rs`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::maps::PerCpuValues;
use aya::util::nr_cpus;
use ipnet::IpNet;
use xdp_ebpf::{FrontendInfo, Traffic, frontend_flags};

use super::{FrontendState, Image};
use crate::dataplane::filter::Bit;
use crate::dataplane::maps::removed;
use crate::dataplane::plain::Abi;
use crate::dataplane::pool::{PoolKey, addr};
use crate::dataplane::sync::directory::Known;
use crate::dataplane::ticks;
use crate::model::snapshot::{Frontend, FrontendKey, FrontendKind};

/// Why a frontend could not be put; it is tried again once others have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// `FRONTENDS` is full.
    Full,
    /// No id or no pool could be had.
    Short,
}

impl Image {
    /// Adds or changes a frontend. Its pool is there already.
    pub(super) fn put_frontend(&mut self, frontend: &Arc<Frontend>, now: Instant) -> Result<Put> {
        let key = frontend.key;
        let old = self.frontends.get(&key).map(|f| (f.image, f.pool.clone(), f.sources.clone()));
        if old.is_none() && self.frontends.len() >= self.maps.max_frontends {
            return Ok(Put::Full);
        }
        let pool = pool_of(frontend);
        let pool_id = match &pool {
            None => 0,
            Some(pool) => match self.pools.get(pool) {
                Some(state) => state.id,
                None => return Ok(Put::Short),
            },
        };
        // Flows were made under the old kind; they must not meet the new one.
        let same_kind = old.as_ref().is_some_and(|(image, ..)| (image.pool == 0) == (pool_id == 0));
        let id = match &old {
            Some((image, ..)) if same_kind => image.id,
            _ => match self.new_frontend_id(now)? {
                Some(id) => id,
                None => return Ok(Put::Short),
            },
        };
        let affinity = match &frontend.kind {
            FrontendKind::L4 { client_ip_affinity: Some(seconds), .. } => {
                ticks(*seconds, self.maps.config.load(0).tick_shift)?
            }
            _ => 0,
        };
        let image = image_of(frontend, id, pool_id, affinity);
        let wire = wire_key(&key);
        let admitted = match &old {
            Some((before, _, sources)) if before.id == id => sources.as_slice(),
            _ => &[],
        };
        let sources = sources_of(frontend).to_vec();
        self.admit(id, admitted, &sources)?;
        if old.as_ref().is_none_or(|(before, ..)| before.snat != image.snat) {
            self.use_source(&image.snat)?;
        }
        if old.as_ref().is_none_or(|(before, ..)| before.id != id) {
            let info = FrontendInfo { addr: wire.addr, port: wire.port, proto: wire.proto, pad: [0; 5] };
            self.maps.frontend_info.store(id as usize, &info);
        }
        if old.is_none() {
            self.watch(Bit::of_port(key.port));
        }
        if old.as_ref().is_none_or(|(before, ..)| *before != image) {
            self.maps
                .frontends
                .insert(Abi(wire), Abi(image), 0)
                .with_context(|| format!("write {key} into FRONTENDS"))?;
        }
        self.publish_frontend(wire, &image);
        // From here on packets follow the new entry.
        self.shut_out(id, admitted, &sources)?;
        if let Some(new) = &pool
            && let Some(state) = self.pools.get_mut(new)
        {
            state.frontends += 1;
        }
        if let Some((before, old_pool, old_sources)) = old {
            if let Some(state) = old_pool.as_ref().and_then(|p| self.pools.get_mut(p)) {
                state.frontends -= 1;
            }
            if before.snat != image.snat {
                self.linger(before.snat, now);
            }
            if before.id != id {
                self.shut_out(before.id, &old_sources, &[])?;
                self.sweep.retire(before.id);
            }
        }
        self.frontends.insert(key, FrontendState { source: Some(Arc::clone(frontend)), image, pool, sources });
        Ok(Put::Done)
    }

    /// Removes a frontend; its id rests until the flows that name it were swept. Returns the pool it used.
    pub(super) fn remove_frontend(&mut self, key: &FrontendKey) -> Result<Option<PoolKey>> {
        let Some(state) = self.frontends.remove(key) else { return Ok(None) };
        removed(self.maps.frontends.remove(&Abi(wire_key(key))))
            .with_context(|| format!("remove {key} from FRONTENDS"))?;
        if let Some(directory) = &self.directory {
            directory.lock().remove_frontend(&wire_key(key));
        }
        self.unwatch(Bit::of_port(key.port));
        self.shut_out(state.image.id, &state.sources, &[])?;
        self.leave_source(&state.image.snat)?;
        self.sweep.retire(state.image.id);
        if let Some(pool) = state.pool.as_ref().and_then(|p| self.pools.get_mut(p)) {
            pool.frontends -= 1;
        }
        Ok(state.pool)
    }

    /// Says what a frontend is called to who places the flows of other edges.
    fn publish_frontend(&self, key: xdp_ebpf::FrontendKey, image: &xdp_ebpf::Frontend) {
        if let Some(directory) = &self.directory {
            let known = Known { id: image.id, pool: image.pool, snat: image.snat };
            directory.lock().put_frontend(key, (image.pool != 0).then_some(known));
        }
    }

    fn new_frontend_id(&mut self, now: Instant) -> Result<Option<u32>> {
        let mut id = self.frontend_ids.take(now);
        if id.is_none() {
            self.sweep_all(now)?;
            self.frontend_ids.wake();
            id = self.frontend_ids.take(now);
        }
        if let Some(id) = id {
            self.maps.frontend_traffic.set(id, zeroes()?, 0).context("reset FRONTEND_TRAFFIC")?;
        }
        Ok(id)
    }
}

/// The data plane's pool of an L4 frontend: the endpoints of its own family.
pub(super) fn pool_of(frontend: &Frontend) -> Option<PoolKey> {
    match &frontend.kind {
        FrontendKind::L4 { pool, .. } => Some(PoolKey { name: pool.clone(), v6: frontend.key.vip.is_ipv6() }),
        FrontendKind::L7 => None,
    }
}

fn sources_of(frontend: &Frontend) -> &[IpNet] {
    match &frontend.kind {
        FrontendKind::L4 { sources: Some(sources), .. } => sources,
        _ => &[],
    }
}

fn image_of(frontend: &Frontend, id: u32, pool: u32, affinity: u32) -> xdp_ebpf::Frontend {
    match &frontend.kind {
        FrontendKind::L4 { client_ip_affinity, snat, sources, .. } => {
            let mut flags = if client_ip_affinity.is_some() { frontend_flags::CLIENT_IP_AFFINITY } else { 0 };
            if sources.is_some() {
                flags |= frontend_flags::SOURCES;
            }
            xdp_ebpf::Frontend { id, pool, flags, affinity, snat: addr(*snat) }
        }
        FrontendKind::L7 => xdp_ebpf::Frontend { id, pool: 0, flags: frontend_flags::L7, affinity: 0, snat: [0; 16] },
    }
}

pub(in crate::dataplane) fn wire_key(key: &FrontendKey) -> xdp_ebpf::FrontendKey {
    xdp_ebpf::FrontendKey { addr: addr(key.vip), port: key.port.to_be_bytes(), proto: key.protocol.number(), pad: 0 }
}

/// A per-CPU counter at zero.
pub(super) fn zeroes() -> Result<PerCpuValues<Abi<Traffic>>> {
    let cpus = nr_cpus().map_err(|(path, e)| anyhow::anyhow!("read {path}: {e}"))?;
    Ok(PerCpuValues::try_from(vec![Abi(Traffic::default()); cpus])?)
}
