//! The reply index: which source ports are free towards a backend, and whose answer a packet is.

use xdp_ebpf::{Addr, Backend, FrontendKey, Port, forwarding, hash};

use super::{Model, Tuple};

impl Model {
    pub(super) fn free_left(&mut self) {
        if let Some(left) = self.left.take() {
            self.replies[left.0][left.1] = None;
        }
    }

    pub(super) fn free_reply(
        &self,
        source: Addr,
        port: Port,
        backend: &Backend,
        proto: u8,
    ) -> Option<((usize, usize), u32)> {
        let key = FrontendKey { addr: source, port, proto, pad: 0 };
        if backend.forwarding == forwarding::NAT && self.maps.frontends.contains_key(&key) {
            return None;
        }
        let reply = Tuple { src: backend.addr, dst: source, sport: backend.port, dport: port, proto };
        let h = reply.hash(self.maps.config.seed.wrapping_add(hash::REPLY_SEED));
        let bucket = (h as u32 & self.maps.config.reply_mask) as usize;
        let entries = &self.replies[bucket];
        if entries.iter().flatten().any(|(tag, _)| *tag == hash::tag(h)) {
            return None;
        }
        Some(((bucket, entries.iter().position(Option::is_none)?), hash::tag(h)))
    }

    /// The flow whose backend sent this.
    pub(super) fn reply(&self, tuple: &Tuple) -> Option<(usize, usize)> {
        let h = tuple.hash(self.maps.config.seed.wrapping_add(hash::REPLY_SEED));
        let bucket = (h as u32 & self.maps.config.reply_mask) as usize;
        let (_, at) = self.replies[bucket].iter().flatten().find(|(tag, _)| *tag == hash::tag(h)).copied()?;
        let record = self.record(at).filter(|r| self.good(r))?;
        let backend = self.backend(record.backend)?;
        let same = record.source == tuple.dst
            && record.port == tuple.dport
            && backend.addr == tuple.src
            && backend.port == tuple.sport
            && record.proto == tuple.proto;
        same.then_some(at)
    }
}
