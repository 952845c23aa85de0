//! What happens to one tuple, and why: the steps of the packet path (`xdp_ebpf::rules`) taken on the live maps with the same
//! functions. Changes nothing.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use aya::maps::MapError;
use xdp_ebpf::affinity::AffinityKey;
use xdp_ebpf::rules::{PORT_PROBES, dead};
use xdp_ebpf::{
    Addr, Backend, Config, Flow, Frontend, Port, Ring, WAYS, backend_state, flow_state, forwarding, frontend_flags,
    hash, meta, tag,
};

use super::Dataplane;
use super::dropped::Dropped;
use super::image::Image;
use super::plain::Abi;
use super::pool::{ip, wire};
use crate::model::snapshot::{Forwarding, FrontendKey, Protocol};
use crate::model::traffic::L4Explanation;

impl Dataplane {
    /// What a packet from `client` to `vip` meets: the flow's record if there is one, else what a new flow would get.
    pub fn explain(&self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Result<L4Explanation> {
        let now = self.clock.tick()?;
        let (image, dropped, config) = (&self.image, &self.dropped, self.image.maps.config.load(0));
        let mut path = Path { image, dropped, config, now, told: empty() };
        path.follow(protocol, client, vip)?;
        Ok(path.told)
    }
}

fn empty() -> L4Explanation {
    L4Explanation { steps: Vec::new(), frontend: None, backend: None, source: None, from_flow: false, dropped: false }
}

struct Path<'a> {
    image: &'a Image,
    dropped: &'a Dropped,
    config: Config,
    now: u32,
    told: L4Explanation,
}

/// A tuple as it lies in the packet.
struct Tuple {
    client: Addr,
    client_port: Port,
    vip: Addr,
    vip_port: Port,
    proto: u8,
}

impl Path<'_> {
    fn say(&mut self, step: impl Into<String>) {
        self.told.steps.push(step.into());
    }

    fn follow(&mut self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Result<()> {
        if client.is_ipv4() != vip.is_ipv4() {
            self.say("client and VIP are of different address families: there is no such packet");
            return Ok(());
        }
        let ((client_addr, client_port), (vip_addr, vip_port)) = (wire(client), wire(vip));
        let t = Tuple { client: client_addr, client_port, vip: vip_addr, vip_port, proto: protocol.number() };
        let bit = hash::addr_filter_bit(&t.vip) as usize;
        let word = self.image.maps.filter.load(bit / 64);
        if word >> (bit % 64) & 1 == 0 {
            self.say(format!("{} is no address of ours (its filter bit is not set): passed to the kernel", vip.ip()));
            return Ok(());
        }
        self.say(format!("the filter bit of {} is set: look closer", vip.ip()));
        let key = FrontendKey { vip: vip.ip(), protocol, port: vip.port() };
        let Some(frontend) = self.image.frontends.get(&key).map(|f| f.image) else {
            let known = self.image.vips.contains(&vip.ip());
            let what = if known { "a VIP, but no frontend has this port" } else { "no VIP" };
            self.say(format!("{key}: {what}; unless it answers a flow of ours, it is passed to the kernel"));
            return Ok(());
        };
        self.told.frontend = Some(key);
        self.say(format!("{key} is frontend {}", frontend.id));
        if frontend.flags & frontend_flags::L7 != 0 {
            if let Some((left, owner)) = self.dropped.find(&t.client) {
                let whose = owner.map_or_else(|| "limits".to_owned(), |owner| format!("the limits of {owner}"));
                let (client, left) = (client.ip(), left.as_secs());
                self.say(format!(
                    "{client} exceeded {whose} too often: dropped at ports of the proxy, for {left} s yet"
                ));
                self.told.dropped = true;
                return Ok(());
            }
            self.say("an L7 frontend: passed to the proxy on this node");
            return Ok(());
        }
        let hash = hash::tuple(self.config.seed, &t.client, &t.vip, t.client_port, t.vip_port, t.proto);
        if self.by_record(&t, &frontend, hash)? {
            return Ok(());
        }
        if frontend.flags & frontend_flags::SOURCES != 0 {
            let ranges = self.image.frontends.get(&key).map(|f| f.sources.as_slice()).unwrap_or_default();
            let Some(range) = ranges.iter().find(|range| range.contains(&client.ip())) else {
                self.say(format!("{} is in no range of loadBalancerSourceRanges: dropped", client.ip()));
                return Ok(());
            };
            self.say(format!("{} is in {range} of loadBalancerSourceRanges", client.ip()));
        }
        self.by_table(&t, &frontend, hash)
    }

    /// The flow's own record, if it is good.
    fn by_record(&mut self, t: &Tuple, frontend: &Frontend, hash: u64) -> Result<bool> {
        let bucket = (hash as u32 & self.config.flow_mask) as usize;
        let index = self.image.maps.flow_buckets_in(bucket, 1)?.load(bucket);
        let Some(way) = index.tag.iter().position(|tag| *tag == hash::tag(hash)) else {
            self.say(format!("no flow record in bucket {bucket}"));
            return Ok(false);
        };
        let number = bucket * WAYS + way;
        let record: Flow = self.image.maps.flows_in(number, 1)?.load(number);
        if record.client != t.client || record.client_port != t.client_port || record.frontend != frontend.id {
            self.say(format!("flow record {number} has the tag, but belongs to another flow"));
            return Ok(false);
        }
        let backend = self.backend(record.backend);
        let word = index.meta[way];
        let age = meta::age(word, self.now);
        let mut step = format!("flow record {number}, {}, last packet {age} ticks ago", state_name(meta::state(word)));
        if record.synced != 0 && record.synced == word {
            step.push_str(", known from another edge and not yet seen here");
        }
        if backend.epoch != record.epoch || backend.state == backend_state::GONE {
            step.push_str(": its endpoint is gone, so the packet is treated as one without a record");
            self.say(step);
            return Ok(false);
        }
        if t.proto == xdp_ebpf::IPPROTO_UDP && age > self.config.udp_idle {
            let _ = write!(step, ": idle for more than {} ticks, so it is chosen anew", self.config.udp_idle);
            self.say(step);
            return Ok(false);
        }
        if t.proto == xdp_ebpf::IPPROTO_TCP {
            step.push_str(" (all but a new SYN go by it)");
        }
        self.say(step);
        self.told.from_flow = true;
        self.told.source = Some((ip(&record.source), u16::from_be_bytes(record.port)));
        self.arrive(&backend);
        Ok(true)
    }

    /// The Maglev table, as for a packet that opens a flow.
    fn by_table(&mut self, t: &Tuple, frontend: &Frontend, hash: u64) -> Result<()> {
        let affinity = frontend.flags & frontend_flags::CLIENT_IP_AFFINITY != 0;
        let mut choice = if affinity {
            self.say("session affinity: the client's port does not count");
            hash::tuple(self.config.seed, &t.client, &t.vip, [0; 2], t.vip_port, t.proto)
        } else {
            hash
        };
        if affinity && frontend.affinity != 0 {
            match self.sticky(t, frontend)? {
                Sticky::Keeps(backend) => return self.open(t, frontend, hash, &backend),
                Sticky::Expired => choice = hash,
                Sticky::Unknown => {}
            }
        }
        let current = self.image.tables.current(frontend.pool);
        let previous = self.image.tables.previous(frontend.pool);
        if t.proto == xdp_ebpf::IPPROTO_TCP
            && !previous.is_empty()
            && let Some((_, backend)) = self.slot(previous, choice)?
        {
            let to = SocketAddr::new(ip(&backend.addr), u16::from_be_bytes(backend.port));
            self.say(format!(
                "the table changed a moment ago: a packet that opens nothing goes by the one before, to {to}"
            ));
        }
        let slot = hash::slot(choice, current.len().max(1));
        let Some((id, backend)) = self.slot(current, choice)? else {
            self.say("the pool has no endpoint that takes new flows: passed to the kernel, which refuses");
            return Ok(());
        };
        self.say(format!(
            "slot {slot} of {} in the Maglev table of pool {}: backend {id}",
            current.len(),
            frontend.pool
        ));
        self.open(t, frontend, hash, &backend)
    }

    /// What the client has in `AFFINITY`, as for a packet that opens a flow.
    fn sticky(&mut self, t: &Tuple, frontend: &Frontend) -> Result<Sticky> {
        let key = AffinityKey { frontend: frontend.id, client: t.client };
        let found = match self.image.maps.affinity.get(&Abi(key), 0) {
            Ok(Abi(found)) => Some(found),
            Err(MapError::KeyNotFound) => None,
            Err(e) => return Err(e).context("read AFFINITY"),
        };
        let known = found.filter(|a| a.pool == frontend.pool && self.backend(a.backend).epoch == a.epoch);
        let Some(known) = known.map(|a| (a, self.backend(a.backend))).filter(|(_, b)| b.state == backend_state::READY)
        else {
            self.say("the client has no endpoint yet: its address chooses one, which it then keeps");
            return Ok(Sticky::Unknown);
        };
        let (affinity, backend) = known;
        // The programs count on where the 32 bits of the agent's clock end.
        let known_bits = u32::MAX >> (self.config.tick_shift & 31);
        let (age, lasts) = (self.now.wrapping_sub(affinity.used) & known_bits, frontend.affinity);
        if age > lasts {
            self.say(format!("its last new flow was {age} ticks ago, above {lasts}: it is spread anew"));
            return Ok(Sticky::Expired);
        }
        self.say(format!(
            "the client keeps backend {}: its last new flow was {age} ticks ago, of {lasts}",
            affinity.backend
        ));
        Ok(Sticky::Keeps(backend))
    }

    /// The rest of the way of a packet that opens a flow.
    fn open(&mut self, t: &Tuple, frontend: &Frontend, hash: u64, backend: &Backend) -> Result<()> {
        let local = backend.forwarding == forwarding::LOCAL;
        let source = if local { t.client } else { frontend.snat };
        match self.port(t, backend, source, hash, local)? {
            Some(port) => self.told.source = Some((ip(&source), port)),
            None => self.say(format!("none of {PORT_PROBES} source ports is free: the packet is dropped")),
        }
        self.arrive(backend);
        Ok(())
    }

    fn slot(&self, ring: Ring, hash: u64) -> Result<Option<(u32, Backend)>> {
        if ring.is_empty() {
            return Ok(None);
        }
        let at = (ring.offset() + hash::slot(hash, ring.len())) as usize;
        let id = self.image.maps.ring(ring)?.half(at, 0).load(std::sync::atomic::Ordering::Relaxed);
        let backend = self.backend(id);
        Ok((id != 0 && backend.state != backend_state::GONE).then_some((id, backend)))
    }

    /// The first source port that is free towards the backend, as `rules` says.
    fn port(&mut self, t: &Tuple, backend: &Backend, source: Addr, hash: u64, local: bool) -> Result<Option<u16>> {
        for from_dead in [false, true] {
            for i in 0..PORT_PROBES {
                let own = local && i == 0;
                let chosen = hash::port(hash, i, self.config.port_min, self.config.port_count);
                let port = if own { u16::from_be_bytes(t.client_port) } else { chosen };
                if self.port_is_free(t, backend, source, port, local, from_dead)? {
                    self.say(format!("source port {port} is free towards the endpoint (candidate {i})"));
                    return Ok(Some(port));
                }
            }
        }
        Ok(None)
    }

    /// Whether nobody has the port or, with `from_dead`, only a flow that is as good as gone.
    fn port_is_free(
        &self,
        t: &Tuple,
        backend: &Backend,
        source: Addr,
        port: u16,
        local: bool,
        from_dead: bool,
    ) -> Result<bool> {
        let protocol = if t.proto == xdp_ebpf::IPPROTO_TCP { Protocol::Tcp } else { Protocol::Udp };
        if !local && self.image.frontends.contains_key(&FrontendKey { vip: ip(&source), protocol, port }) {
            return Ok(false);
        }
        let seed = self.config.seed.wrapping_add(hash::REPLY_SEED);
        let hash = hash::tuple(seed, &backend.addr, &source, backend.port, port.to_be_bytes(), t.proto);
        let bucket = (hash as u32 & self.config.reply_mask) as usize;
        let replies = self.image.maps.replies_in(bucket, 1)?.load(bucket);
        let Some(taken) = replies.entry.iter().find(|e| e.tag == hash::tag(hash)) else {
            return Ok(replies.entry.iter().any(|e| e.tag == tag::FREE));
        };
        let owner = taken.flow as usize / WAYS;
        if !from_dead || owner >= self.image.maps.flow_buckets() as usize {
            return Ok(false);
        }
        let index = self.image.maps.flow_buckets_in(owner, 1)?.load(owner);
        let way = taken.flow as usize % WAYS;
        Ok(index.tag[way] == tag::FREE || dead(index.meta[way], self.now, self.config.udp_idle))
    }

    fn backend(&self, id: u32) -> Backend {
        let backends = &self.image.maps.backends;
        if (id as usize) < backends.end() { backends.load(id as usize) } else { Backend::default() }
    }

    fn arrive(&mut self, backend: &Backend) {
        let to = SocketAddr::new(ip(&backend.addr), u16::from_be_bytes(backend.port));
        let (mode, how) = match backend.forwarding {
            forwarding::LOCAL => (Forwarding::Local, "on this node: destination rewritten, passed to the kernel"),
            _ => (Forwarding::Nat, "elsewhere: source and destination rewritten, sent to the next hop"),
        };
        let draining = if backend.state == backend_state::DRAINING { " (draining)" } else { "" };
        self.say(format!("endpoint {to}{draining}, {how}"));
        self.told.backend = Some((to, mode));
    }
}

enum Sticky {
    Keeps(Backend),
    /// It was away for longer than its time.
    Expired,
    Unknown,
}

fn state_name(state: u8) -> &'static str {
    match state {
        flow_state::NEW => "new",
        flow_state::REPLIED => "answered",
        flow_state::ESTABLISHED => "established",
        flow_state::CLOSING => "closing",
        _ => "in an unknown state",
    }
}
