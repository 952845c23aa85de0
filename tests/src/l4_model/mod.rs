//! A plain model of the packet path, written from `xdp_ebpf::rules` and nothing else: vectors and maps instead of shared
//! memory, clarity instead of speed. The differential test holds the program against it. Time stands still in here.

mod choice;

mod given;

mod parse;

mod replies;

mod icmp;

mod rewrite;

mod hand_over;

use std::collections::BTreeMap;

use xdp_ebpf::rules::{PORT_PROBES, flow_rank};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{
    Addr, Backend, Frontend, FrontendKey, Port, Traffic, WAYS, backend_state, flow_state, forwarding, frontend_flags,
    hash, meta, vip_flags,
};

pub use given::{Action, Maps, NextHop, Outcome};
use parse::{Parsed, Seen};
use rewrite::Edit;

#[derive(Clone, Debug)]
struct Record {
    tag: u32,
    client: Addr,
    client_port: Port,
    frontend: u32,
    backend: u32,
    epoch: u32,
    source: Addr,
    port: Port,
    proto: u8,
    state: u8,
    /// Bucket and way of its reply entry.
    reply: (usize, usize),
}

/// A packet's five-tuple.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuple {
    pub src: Addr,
    pub dst: Addr,
    pub sport: Port,
    pub dport: Port,
    pub proto: u8,
}

impl Tuple {
    fn hash(&self, seed: u64) -> u64 {
        hash::tuple(seed, &self.src, &self.dst, self.sport, self.dport, self.proto)
    }
}

/// An entry of the reply index: its tag, and the flow's bucket and way.
type Reply = (u32, (usize, usize));

/// The data plane: maps, flows and counters.
pub struct Model {
    pub maps: Maps,
    next_hop: Box<dyn Fn(&Addr) -> NextHop>,
    flows: Vec<[Option<Record>; WAYS]>,
    replies: Vec<[Option<Reply>; WAYS]>,
    /// The reply entry of the flow evicted last, freed when the next record is made.
    left: Option<(usize, usize)>,
    /// By frontend and client: backend, epoch and pool. Nothing is forgotten.
    affinity: BTreeMap<(u32, Addr), (u32, u32, u32)>,
    pub counts: BTreeMap<Verdict, u64>,
    pub frontend_traffic: BTreeMap<u32, Traffic>,
    pub backend_traffic: BTreeMap<u32, Traffic>,
}

impl Model {
    pub fn new(maps: Maps, next_hop: impl Fn(&Addr) -> NextHop + 'static) -> Self {
        let buckets = maps.config.flow_mask as usize + 1;
        Self {
            flows: vec![Default::default(); buckets],
            replies: vec![Default::default(); maps.config.reply_mask as usize + 1],
            maps,
            next_hop: Box::new(next_hop),
            left: None,
            affinity: BTreeMap::new(),
            counts: BTreeMap::new(),
            frontend_traffic: BTreeMap::new(),
            backend_traffic: BTreeMap::new(),
        }
    }

    fn note(&mut self, verdict: Verdict) {
        *self.counts.entry(verdict).or_default() += 1;
    }

    /// Runs one frame that came in by XDP.
    pub fn ingress(&mut self, frame: &[u8]) -> Outcome {
        let outcome = self.decide(frame);
        self.note(outcome.verdict);
        outcome
    }

    fn decide(&mut self, frame: &[u8]) -> Outcome {
        let pass = |verdict| Outcome { action: Action::Pass, verdict, frame: frame.to_vec() };
        let filter = |dst: &Addr| self.maps.filter.contains(&hash::addr_filter_bit(dst));
        let parsed = match parse::frame(frame, filter) {
            Ok(parsed) => parsed,
            Err(verdict) => return pass(verdict),
        };
        match parsed.seen {
            Seen::Icmp => self.icmp(frame, &parsed).unwrap_or_else(pass),
            Seen::Other => pass(self.not_served(&parsed.dst, Verdict::PassProtocol)),
            Seen::Tuple { tuple, flags } => {
                let key = FrontendKey { addr: tuple.dst, port: tuple.dport, proto: tuple.proto, pad: 0 };
                match self.maps.frontends.get(&key).copied() {
                    Some(frontend) => self.client_packet(frame, &parsed, tuple, flags, frontend),
                    None => self.backend_packet(frame, &parsed, tuple, flags),
                }
                .unwrap_or_else(|verdict| Outcome {
                    action: if matches!(verdict, Verdict::DropNoPort | Verdict::DropSource | Verdict::DropLimited) {
                        Action::Drop
                    } else {
                        Action::Pass
                    },
                    verdict,
                    frame: frame.to_vec(),
                })
            }
        }
    }

    fn not_served(&self, dst: &Addr, verdict: Verdict) -> Verdict {
        if self.maps.vips.contains_key(dst) { verdict } else { Verdict::PassNotOurs }
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.maps.backends.get(&id).copied().filter(|b| id != 0 && b.state != backend_state::GONE)
    }

    fn good(&self, record: &Record) -> bool {
        self.backend(record.backend).is_some_and(|b| b.epoch == record.epoch)
    }

    /// The own record: the first way with the tag decides, whether or not it is this flow's.
    fn own(&self, tuple: &Tuple, frontend: u32) -> Option<(usize, usize)> {
        let h = tuple.hash(self.maps.config.seed);
        let bucket = (h as u32 & self.maps.config.flow_mask) as usize;
        let way = self.flows[bucket].iter().position(|r| r.as_ref().is_some_and(|r| r.tag == hash::tag(h)))?;
        let record = self.flows[bucket][way].as_ref()?;
        let same = record.client == tuple.src && record.client_port == tuple.sport && record.frontend == frontend;
        same.then_some((bucket, way))
    }

    fn record(&self, at: (usize, usize)) -> Option<&Record> {
        self.flows[at.0][at.1].as_ref()
    }

    fn client_packet(
        &mut self,
        frame: &[u8],
        parsed: &Parsed,
        tuple: Tuple,
        flags: u8,
        frontend: Frontend,
    ) -> Result<Outcome, Verdict> {
        if frontend.flags & frontend_flags::L7 != 0 {
            if self.maps.dropped.get(&tuple.src) == Some(&true) {
                return Err(Verdict::DropLimited);
            }
            let opens = tuple.proto != xdp_ebpf::IPPROTO_TCP || flags & 2 != 0;
            return self.hand_over(frame, parsed, tuple, opens).ok_or(Verdict::PassL7);
        }
        if parsed.ttl <= 1 {
            return Err(Verdict::PassTtl);
        }
        let tcp = tuple.proto == xdp_ebpf::IPPROTO_TCP;
        let (syn, ack, fin, rst) = (flags & 2 != 0, flags & 16 != 0, flags & 1 != 0, flags & 4 != 0);
        let own = self.own(&tuple, frontend.id);
        let good = own.is_some_and(|at| self.record(at).is_some_and(|r| self.good(r)));
        let opens = if tcp { syn && !ack } else { !good };
        let closes = tcp && (fin || rst);
        if own.is_none()
            && let Some(sent_on) = self.hand_over(frame, parsed, tuple, opens || !tcp)
        {
            return Ok(sent_on);
        }
        let traffic_of;
        let (source, port, backend);
        if let Some(at) = own.filter(|_| good && !opens) {
            let r = self.flows[at.0][at.1].as_mut().expect("good records exist");
            if closes {
                r.state = flow_state::CLOSING;
            } else if r.state == flow_state::REPLIED {
                r.state = flow_state::ESTABLISHED;
            }
            (source, port, traffic_of) = (r.source, r.port, r.backend);
            backend = self.backend(traffic_of).ok_or(Verdict::DropInternal)?;
        } else {
            if frontend.flags & frontend_flags::SOURCES != 0 && !self.admits(frontend.id, &tuple.src) {
                return Err(Verdict::DropSource);
            }
            let id = self.choose(&tuple, &frontend, tcp && !opens)?;
            backend = self.backend(id).ok_or(Verdict::PassNoBackend)?;
            traffic_of = id;
            let kept = own.filter(|at| opens && good && self.record(*at).is_some_and(|r| r.backend == id));
            if let Some(at) = kept {
                let r = self.flows[at.0][at.1].as_mut().expect("good records exist");
                if r.state == flow_state::CLOSING {
                    r.state = flow_state::NEW;
                }
                (source, port) = (r.source, r.port);
            } else if tcp && !opens && rst {
                source = if backend.forwarding == forwarding::LOCAL { tuple.src } else { frontend.snat };
                port = self.candidate(&tuple, &backend, 0);
            } else {
                (source, port) = self.make(&tuple, &frontend, id, &backend, own, tcp && fin)?;
            }
        }
        self.count(frontend.id, traffic_of, parsed, true);
        let edit = Edit { src: source, dst: backend.addr, sport: port, dport: backend.port };
        if backend.forwarding == forwarding::LOCAL {
            return Ok(Outcome {
                action: Action::Pass,
                verdict: Verdict::ForwardLocal,
                frame: rewrite::tuple(frame, parsed, &edit, false),
            });
        }
        Ok(self.send(frame, parsed, &edit, (Verdict::ForwardNat, Verdict::ForwardNatPass)))
    }

    fn make(
        &mut self,
        tuple: &Tuple,
        frontend: &Frontend,
        id: u32,
        backend: &Backend,
        own: Option<(usize, usize)>,
        fin: bool,
    ) -> Result<(Addr, Port), Verdict> {
        let h = tuple.hash(self.maps.config.seed);
        let bucket = (h as u32 & self.maps.config.flow_mask) as usize;
        let at = own.unwrap_or_else(|| (bucket, self.way(bucket, h)));
        self.free_left();
        let mut left = None;
        if let Some(old) = self.flows[at.0][at.1].take() {
            if own.is_some() {
                self.replies[old.reply.0][old.reply.1] = None;
            } else {
                left = Some(old.reply);
                self.note(Verdict::FlowEvicted);
                if old.state == flow_state::ESTABLISHED {
                    self.note(Verdict::FlowEvictedEstablished);
                }
            }
        }
        let source = if backend.forwarding == forwarding::LOCAL { tuple.src } else { frontend.snat };
        for i in 0..PORT_PROBES {
            let port = self.candidate(tuple, backend, i);
            let Some((reply, tag)) = self.free_reply(source, port, backend, tuple.proto) else {
                self.note(Verdict::PortProbe);
                continue;
            };
            self.replies[reply.0][reply.1] = Some((tag, at));
            self.left = left;
            self.flows[at.0][at.1] = Some(Record {
                tag: hash::tag(h),
                client: tuple.src,
                client_port: tuple.sport,
                frontend: frontend.id,
                backend: id,
                epoch: backend.epoch,
                source,
                port,
                proto: tuple.proto,
                state: if fin { flow_state::CLOSING } else { flow_state::NEW },
                reply,
            });
            self.note(Verdict::FlowNew);
            self.frontend_traffic.entry(frontend.id).or_default().new_flows += 1;
            self.backend_traffic.entry(id).or_default().new_flows += 1;
            return Ok((source, port));
        }
        self.left = left;
        self.free_left();
        Err(Verdict::DropNoPort)
    }

    /// From the hash's first way on: the first free way, else the first of the lowest rank (all are equally old: time stands
    /// still).
    fn way(&self, bucket: usize, h: u64) -> usize {
        let ways = &self.flows[bucket];
        let order = (0..WAYS).map(|i| (hash::first_way(h) as usize + i) % WAYS);
        let rank = |r: &Option<Record>| r.as_ref().map_or(0, |r| 1 + flow_rank(meta::new(0, r.state, r.proto)));
        order.min_by_key(|way| rank(&ways[*way])).unwrap_or(0)
    }

    fn backend_packet(&mut self, frame: &[u8], parsed: &Parsed, tuple: Tuple, flags: u8) -> Result<Outcome, Verdict> {
        let Some(at) = self.reply(&tuple) else {
            let opens = tuple.proto == xdp_ebpf::IPPROTO_TCP && flags & 0x12 == 0x02;
            let here = || self.not_served(&tuple.dst, Verdict::PassNoFrontend);
            return self.hand_over(frame, parsed, tuple, opens).ok_or_else(here);
        };
        if parsed.ttl <= 1 {
            return Err(Verdict::PassTtl);
        }
        let r = self.flows[at.0][at.1].as_mut().ok_or(Verdict::DropInternal)?;
        if tuple.proto == xdp_ebpf::IPPROTO_TCP && flags & 5 != 0 {
            r.state = flow_state::CLOSING;
        } else if r.state == flow_state::NEW {
            r.state = flow_state::REPLIED;
        }
        let r = r.clone();
        let info = *self.maps.infos.get(&r.frontend).ok_or(Verdict::DropInternal)?;
        self.count(r.frontend, r.backend, parsed, false);
        let edit = Edit { src: info.addr, dst: r.client, sport: info.port, dport: r.client_port };
        Ok(self.send(frame, parsed, &edit, (Verdict::ReplyNat, Verdict::ReplyNatPass)))
    }

    /// Rewrites and sends to the next hop of the rewritten packet. MTUs are left to the packet tables.
    fn send(&self, frame: &[u8], parsed: &Parsed, edit: &Edit, verdicts: (Verdict, Verdict)) -> Outcome {
        let rewritten = rewrite::tuple(frame, parsed, edit, true);
        self.leave(rewritten, parsed, &edit.dst, verdicts)
    }

    fn leave(&self, frame: Vec<u8>, parsed: &Parsed, dst: &Addr, (sent, left): (Verdict, Verdict)) -> Outcome {
        let (action, macs) = match (self.next_hop)(dst) {
            NextHop::Back { src_mac, dst_mac } => (Action::Tx, [dst_mac, src_mac]),
            NextHop::Other { src_mac, dst_mac } => (Action::Redirect, [dst_mac, src_mac]),
            NextHop::Kernel => return Outcome { action: Action::Pass, verdict: left, frame },
        };
        // The tags go: what is left of the header is the addresses and the last ethertype.
        let frame = [&macs.concat()[..], &frame[parsed.ip - 2..]].concat();
        Outcome { action, verdict: sent, frame }
    }

    fn count(&mut self, frontend: u32, backend: u32, parsed: &Parsed, from_client: bool) {
        for traffic in
            [self.frontend_traffic.entry(frontend).or_default(), self.backend_traffic.entry(backend).or_default()]
        {
            let (packets, bytes) = if from_client {
                (&mut traffic.rx_packets, &mut traffic.rx_bytes)
            } else {
                (&mut traffic.tx_packets, &mut traffic.tx_bytes)
            };
            *packets += 1;
            *bytes += parsed.length as u64;
        }
    }

    fn echoes(&self, dst: &Addr) -> bool {
        self.maps.vips.get(dst).is_some_and(|flags| flags & vip_flags::ECHO != 0)
    }
}
