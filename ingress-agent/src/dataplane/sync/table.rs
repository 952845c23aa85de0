//! The flow table as the flow sync uses it: reads records as facts, and makes, refreshes and frees records of flows that peers have.
//! It writes by the ABI's protocol for writers ([`FlowBucket`]) while packets are made records of; where both want a place, the
//! packet's has it.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::Result;
use xdp_ebpf::rules::{CLOSING_REUSE, dead, flow_rank};
use xdp_ebpf::{
    Backend, Config, Flow, FlowBucket, FrontendInfo, FrontendKey, ReplyBucket, WAYS, backend_state, flow_state,
    forwarding, hash, map, meta, tag,
};

use super::datagram::{Facts, FlowKey};
use super::directory::Entries;
use super::ticks::Moment;
use crate::dataplane::maps::{Maps, mapped};
use crate::dataplane::pins::Pins;
use crate::dataplane::pool::{ip, wire};
use crate::dataplane::region::Region;

/// The maps of the flow table, mapped as a whole for as long as the sync runs: it goes through all of them several times a second.
/// The memory is the kernel's either way.
pub(super) struct Table {
    pub(super) config: Region<Config>,
    index: Region<FlowBucket>,
    flows: Region<Flow>,
    replies: Region<ReplyBucket>,
    backends: Region<Backend>,
    frontend_info: Region<FrontendInfo>,
}

/// What a way of `FLOW_INDEX` said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glance {
    pub tag: u32,
    /// [`meta`].
    pub word: u32,
}

/// What came of an upsert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upserted {
    /// In the record at this place, with this tag and word.
    Done(usize, Glance),
    /// The record here is as fresh or fresher.
    Kept,
    Refused(Refusal),
}

/// Why a flow of a peer could not be taken over. The peer keeps it; here its packets would go by the table of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No L4 frontend has the address, port and protocol.
    Frontend,
    /// The endpoint is not in the frontend's pool.
    Endpoint,
    /// The endpoint is on this node: its answers come another way than to the node where the flow began.
    Local,
    /// The endpoint knows the client by an address that is not this node's to use.
    Source,
    /// A flow of this node, or a frontend, has the source port towards the endpoint.
    Port,
    /// All places for it are taken by flows of this node.
    Room,
}

impl Refusal {
    pub(super) const ALL: [Self; 6] =
        [Self::Frontend, Self::Endpoint, Self::Local, Self::Source, Self::Port, Self::Room];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Frontend => "unknown_frontend",
            Self::Endpoint => "unknown_endpoint",
            Self::Local => "local_endpoint",
            Self::Source => "other_source",
            Self::Port => "port_taken",
            Self::Room => "no_room",
        }
    }
}

/// A peer tells back what it was told, as it does whoever comes to it: rounded down twice and some time later, so that it looks younger by up to so
/// many ticks.
const ECHO: u32 = 3;
const META: usize = std::mem::offset_of!(FlowBucket, meta) / 4;
const SYNCED: usize = std::mem::offset_of!(Flow, synced) / 4;

impl Table {
    pub(super) fn open(pins: &Pins, maps: &Maps) -> Result<Self> {
        let buckets = maps.flow_buckets() as usize;
        Ok(Self {
            config: mapped(pins, map::CONFIG, 1)?,
            index: maps.flow_buckets_in(0, buckets)?,
            flows: maps.flows_in(0, buckets * WAYS)?,
            replies: maps.replies_in(0, maps.reply_buckets() as usize)?,
            backends: mapped(pins, map::BACKENDS, maps.backends.end())?,
            frontend_info: mapped(pins, map::FRONTEND_INFO, maps.frontend_info.end())?,
        })
    }

    pub(super) fn buckets(&self) -> usize {
        self.index.end()
    }

    /// Whether no way of a bucket is taken, at a quarter of the price of a [`Table::glance`].
    pub(super) fn is_empty(&self, bucket: usize) -> bool {
        (0..WAYS / 2).all(|pair| self.index.word(bucket, pair).load(Ordering::Relaxed) == 0)
    }

    /// The ways of a bucket; tags are read before words.
    pub(super) fn glance(&self, bucket: usize) -> [Glance; WAYS] {
        let at = self.index.load(bucket);
        std::array::from_fn(|way| Glance { tag: at.tag[way], word: at.meta[way] })
    }

    fn glance_at(&self, place: usize) -> Glance {
        let (bucket, way) = (place / WAYS, place % WAYS);
        let tag = self.index.half(bucket, way).load(Ordering::Acquire);
        Glance { tag, word: self.index.half(bucket, META + way).load(Ordering::Acquire) }
    }

    /// The record at a place, unless it changed hands while it was read.
    pub(super) fn record(&self, place: usize, seen: Glance) -> Option<Flow> {
        let flow = self.flows.load(place);
        (self.glance_at(place).tag == seen.tag).then_some(flow)
    }

    /// What peers are told of a record. `None`: they could do nothing with it, since its endpoint is gone or on this node.
    pub(super) fn facts(&self, flow: &Flow, word: u32, now: &Moment) -> Option<(FlowKey, Facts)> {
        let (backend, frontend) = (flow.backend as usize, flow.frontend as usize);
        if backend >= self.backends.end() || frontend >= self.frontend_info.end() {
            return None;
        }
        let (backend, info) = (self.backends.load(backend), self.frontend_info.load(frontend));
        let good = backend.state != backend_state::GONE && backend.epoch == flow.epoch;
        if !good || backend.forwarding != forwarding::NAT || info.proto != meta::proto(word) {
            return None;
        }
        let socket = |addr, port| SocketAddr::new(ip(addr), u16::from_be_bytes(port));
        let key = FlowKey {
            proto: info.proto,
            client: socket(&flow.client, flow.client_port),
            vip: socket(&info.addr, info.port),
        };
        let facts = Facts {
            endpoint: socket(&backend.addr, backend.port),
            source: socket(&flow.source, flow.port),
            state: meta::state(word),
            idle: now.seconds_of_ticks(meta::age(word, now.tick)),
            age: now.seconds_since(flow.opened),
        };
        Some((key, facts))
    }

    /// Makes or refreshes the record of a peer's flow. `theirs` says whether a place holds a peer's flow of which no packet came here.
    pub(super) fn upsert(
        &self,
        entries: &Entries,
        key: &FlowKey,
        facts: &Facts,
        now: &Moment,
        theirs: impl Fn(usize, Glance) -> bool,
    ) -> Upserted {
        let (vip, vip_port) = wire(key.vip);
        let Some(frontend) = entries.frontend(&FrontendKey { addr: vip, port: vip_port, proto: key.proto, pad: 0 })
        else {
            return Upserted::Refused(Refusal::Frontend);
        };
        let Some(endpoint) = entries.endpoint(frontend.pool, facts.endpoint) else {
            return Upserted::Refused(Refusal::Endpoint);
        };
        if endpoint.forwarding != forwarding::NAT {
            return Upserted::Refused(Refusal::Local);
        }
        let (source, port) = wire(facts.source);
        if source != frontend.snat {
            return Upserted::Refused(Refusal::Source);
        }
        let (client, client_port) = wire(key.client);
        let config = self.config.load(0);
        let hash = hash::tuple(config.seed, &client, &vip, client_port, vip_port, key.proto);
        let bucket = (hash as u32 & config.flow_mask) as usize;
        let word = meta::new(now.tick.wrapping_sub(now.ticks(facts.idle)), facts.state, key.proto);
        let flow = Flow {
            client,
            frontend: frontend.id,
            client_port,
            port,
            backend: endpoint.id,
            epoch: endpoint.epoch,
            source,
            reply: 0,
            opened: now.opened(facts.age),
            synced: word,
            pad: 0,
        };
        let seen = self.glance(bucket);
        // The programs go by the first way with the tag.
        let way = match seen.iter().position(|g| g.tag == hash::tag(hash)) {
            Some(way) => {
                let place = bucket * WAYS + way;
                let old = self.flows.load(place);
                let same = old.client == client && old.client_port == client_port && old.frontend == frontend.id;
                if !same {
                    return Upserted::Refused(Refusal::Room);
                }
                let untouched = theirs(place, seen[way]);
                let same = (old.backend, old.epoch, old.port, old.source)
                    == (flow.backend, flow.epoch, flow.port, flow.source);
                // Seconds were rounded on their way: a record of this node gives way only to what is later beyond doubt.
                let margin = match (untouched, same && meta::state(seen[way].word) == facts.state) {
                    (true, _) => 0,
                    (false, true) => ECHO,
                    (false, false) => 1,
                };
                let (ours, yours) = (meta::age(seen[way].word, now.tick), meta::age(word, now.tick) + margin);
                if same {
                    let news = yours < ours || yours == ours && meta::state(seen[way].word) != facts.state;
                    return if news { self.refresh(place, seen[way], word) } else { Upserted::Kept };
                }
                if ours <= yours && !untouched {
                    return Upserted::Kept;
                }
                way
            }
            // A flow that ends need not begin here.
            None if facts.state == flow_state::CLOSING => return Upserted::Kept,
            None => match roomiest(&seen, hash, now.tick, config.udp_idle) {
                Some(way) => way,
                None => return Upserted::Refused(Refusal::Room),
            },
        };
        let reply = hash::tuple(
            config.seed.wrapping_add(hash::REPLY_SEED),
            &wire(endpoint.address).0,
            &source,
            wire(endpoint.address).1,
            port,
            key.proto,
        );
        if entries.is_frontend(&FrontendKey { addr: source, port, proto: key.proto, pad: 0 }) {
            return Upserted::Refused(Refusal::Port);
        }
        self.insert(bucket * WAYS + way, seen[way], &flow, (hash, reply), (&config, now.tick), theirs)
    }

    /// The record is there already: when its last packet came is all that can be new.
    fn refresh(&self, place: usize, seen: Glance, word: u32) -> Upserted {
        // The mark first: a packet that comes now differs from both.
        self.flows.half(place, SYNCED).store(word, Ordering::Relaxed);
        let at = self.index.half(place / WAYS, META + place % WAYS);
        match at.compare_exchange(seen.word, word, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Upserted::Done(place, Glance { word, ..seen }),
            Err(_) => Upserted::Kept,
        }
    }

    fn insert(
        &self,
        place: usize,
        seen: Glance,
        flow: &Flow,
        (hash, reply_hash): (u64, u64),
        (config, tick): (&Config, u32),
        theirs: impl Fn(usize, Glance) -> bool,
    ) -> Upserted {
        let at = self.index.half(place / WAYS, place % WAYS);
        let taken = at.compare_exchange(seen.tag, tag::BUSY, Ordering::AcqRel, Ordering::Relaxed);
        if seen.tag == tag::BUSY || taken.is_err() {
            return Upserted::Refused(Refusal::Room);
        }
        if seen.tag != tag::FREE {
            self.release(self.flows.load(place).reply, place);
        }
        let wanted = hash::tag(reply_hash);
        let bucket = (reply_hash as u32 & config.reply_mask) as usize;
        let reserved = self.reserve(bucket, wanted, place, (tick, config.udp_idle), theirs);
        let way = match reserved {
            Ok(way) => way,
            Err(why) => {
                at.store(tag::FREE, Ordering::Release);
                return Upserted::Refused(why);
            }
        };
        self.flows.store(place, &Flow { reply: (bucket * WAYS + way) as u32, ..*flow });
        self.index.half(place / WAYS, META + place % WAYS).store(flow.synced, Ordering::Release);
        at.store(hash::tag(hash), Ordering::Release);
        Upserted::Done(place, Glance { tag: hash::tag(hash), word: flow.synced })
    }

    /// Takes the key of the endpoint's answers for the flow at `place`; returns its way.
    fn reserve(
        &self,
        bucket: usize,
        wanted: u32,
        place: usize,
        (tick, udp_idle): (u32, u32),
        theirs: impl Fn(usize, Glance) -> bool,
    ) -> Result<usize, Refusal> {
        let found = self.replies.load(bucket);
        let same = found.entry.iter().position(|e| e.tag == wanted);
        let way = same.or_else(|| found.entry.iter().position(|e| e.tag == tag::FREE)).ok_or(Refusal::Room)?;
        let entry = found.entry[way];
        let owner = entry.flow as usize;
        if same.is_some() && owner != place && owner < self.flows.end() {
            let reply = (bucket * WAYS + way) as u32;
            let seen = self.glance_at(owner);
            let left_behind = seen.tag == tag::FREE || self.flows.load(owner).reply != reply;
            let closing = meta::state(seen.word) == flow_state::CLOSING && meta::age(seen.word, tick) >= CLOSING_REUSE
                || theirs(owner, seen);
            if !left_behind {
                let may_go = seen.tag != tag::BUSY && (closing || dead(seen.word, tick, udp_idle));
                let at = self.index.half(owner / WAYS, owner % WAYS);
                let freed =
                    may_go && at.compare_exchange(seen.tag, tag::FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                if !freed {
                    return Err(Refusal::Port);
                }
            }
        }
        let old = word_of(entry.tag, entry.flow);
        let new = word_of(wanted, place as u32);
        let taken =
            self.replies.word(bucket, way).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken { Ok(way) } else { Err(Refusal::Port) }
    }

    /// Frees an entry of `REPLY_INDEX` if it still leads to this place.
    fn release(&self, reply: u32, place: usize) {
        let (bucket, way) = (reply as usize / WAYS, reply as usize % WAYS);
        if bucket >= self.replies.end() {
            return;
        }
        let word = self.replies.word(bucket, way);
        let entry = word.load(Ordering::Acquire);
        let [.., a, b, c, d] = entry.to_ne_bytes();
        if u32::from_ne_bytes([a, b, c, d]) as usize == place {
            // Where it is lost, somebody else has taken the entry over.
            let _ = word.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Where the record of a flow is, by the tuple of its client.
    pub(super) fn find(&self, entries: &Entries, key: &FlowKey) -> Option<(usize, Glance)> {
        let ((client, client_port), (vip, vip_port)) = (wire(key.client), wire(key.vip));
        let frontend = entries.frontend(&FrontendKey { addr: vip, port: vip_port, proto: key.proto, pad: 0 })?;
        let config = self.config.load(0);
        let hash = hash::tuple(config.seed, &client, &vip, client_port, vip_port, key.proto);
        let bucket = (hash as u32 & config.flow_mask) as usize;
        let seen = self.glance(bucket);
        let way = seen.iter().position(|g| g.tag == hash::tag(hash))?;
        let flow = self.flows.load(bucket * WAYS + way);
        let same = flow.client == client && flow.client_port == client_port && flow.frontend == frontend.id;
        same.then_some((bucket * WAYS + way, seen[way]))
    }

    /// Frees a record that is still as it was seen.
    pub(super) fn free(&self, place: usize, seen: Glance) -> bool {
        let at = self.index.half(place / WAYS, place % WAYS);
        if seen.tag < tag::FIRST
            || at.compare_exchange(seen.tag, tag::BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let untouched = self.index.half(place / WAYS, META + place % WAYS).load(Ordering::Acquire) == seen.word;
        if untouched {
            self.release(self.flows.load(place).reply, place);
        }
        at.store(if untouched { tag::FREE } else { seen.tag }, Ordering::Release);
        untouched
    }
}

/// The way for a record from elsewhere: free, dead, or of a flow that is not established; of those as the programs choose. It never
/// takes an established flow's.
fn roomiest(seen: &[Glance; WAYS], hash: u64, tick: u32, udp_idle: u32) -> Option<usize> {
    let order = (0..WAYS).map(|i| (hash::first_way(hash) as usize + i) % WAYS);
    let score = |way: usize| match seen[way] {
        Glance { tag: tag::BUSY, .. } => None,
        Glance { tag: tag::FREE, .. } => Some((0, 0)),
        Glance { word, .. } if dead(word, tick, udp_idle) => Some((1, 0)),
        Glance { word, .. } if meta::state(word) == flow_state::ESTABLISHED => None,
        Glance { word, .. } => Some((2 + flow_rank(word), 0xffff - meta::age(word, tick))),
    };
    order.filter_map(|way| Some((score(way)?, way))).min_by_key(|(score, _)| *score).map(|(_, way)| way)
}

/// An entry of `REPLY_INDEX` as the one word that it is stored with.
fn word_of(tag: u32, flow: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..].copy_from_slice(&flow.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}
