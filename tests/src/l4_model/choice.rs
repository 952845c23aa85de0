//! Which clients a frontend admits, which backend a flow gets, and the source ports that it may have.

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{Addr, Backend, Frontend, Port, backend_state, forwarding, frontend_flags, hash};

use super::{Model, Tuple};

impl Model {
    pub(super) fn admits(&self, frontend: u32, client: &Addr) -> bool {
        let bit = |a: &Addr, i: u32| a[i as usize / 8] >> (7 - i % 8) & 1;
        let range = self.maps.sources.get(&frontend);
        range.is_some_and(|(range, bits)| (0..*bits).all(|i| bit(range, i) == bit(client, i)))
    }

    pub(super) fn choose(&mut self, tuple: &Tuple, frontend: &Frontend, miss: bool) -> Result<u32, Verdict> {
        let seed = self.maps.config.seed;
        let affine = frontend.flags & frontend_flags::CLIENT_IP_AFFINITY != 0;
        let h = if affine { Tuple { sport: [0, 0], ..*tuple }.hash(seed) } else { tuple.hash(seed) };
        let (current, previous) = self.maps.rings.get(&frontend.pool).cloned().unwrap_or_default();
        let at = |ring: &[u32]| {
            if ring.is_empty() { None } else { Some(ring[hash::slot(h, ring.len() as u32) as usize]) }
        };
        let key = (frontend.id, tuple.src);
        let lasting = affine && frontend.affinity != 0;
        let known = self.affinity.get(&key).filter(|(_, _, pool)| lasting && *pool == frontend.pool);
        let known =
            known.and_then(|(id, epoch, _)| Some((*id, self.maps.backends.get(id).filter(|b| b.epoch == *epoch)?)));
        match known.map(|(id, backend)| (id, backend.state)) {
            Some((id, state)) if miss && state != backend_state::GONE => {
                self.note(Verdict::FlowMiss);
                return Ok(id);
            }
            Some((id, backend_state::READY)) if !miss => return Ok(id),
            _ => {}
        }
        if miss {
            self.note(Verdict::FlowMiss);
            if let Some(id) = at(&previous).filter(|id| self.backend(*id).is_some()) {
                self.note(Verdict::PreviousTable);
                return Ok(id);
            }
        }
        let id = at(&current).filter(|id| self.backend(*id).is_some()).ok_or(Verdict::PassNoBackend)?;
        if lasting && !miss {
            let epoch = self.backend(id).map_or(0, |b| b.epoch);
            self.affinity.insert(key, (id, epoch, frontend.pool));
        }
        Ok(id)
    }

    pub(super) fn candidate(&self, tuple: &Tuple, backend: &Backend, i: u32) -> Port {
        if backend.forwarding == forwarding::LOCAL && i == 0 {
            return tuple.sport;
        }
        let c = &self.maps.config;
        hash::port(tuple.hash(c.seed), i, c.port_min, c.port_count).to_be_bytes()
    }
}
