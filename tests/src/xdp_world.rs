//! A rig whose maps hold something: frontends, backends and rings as the agent would write them, and a look at the flow table. Says
//! nothing about what the program ought to do with them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use xdp_ebpf::{
    Addr, AddrFilter, Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Pool, ReplyBucket, Ring,
    SourceKey, Traffic, Vip, WAYS, backend_state, hash, map, meta, tag, tick_shift, verdict::Verdict,
};

use crate::xdp_run::{Rig, Run, Sizes, stay_on_this_cpu};

pub const SEED: u64 = 0x5EED_0F7E_57AB_1E55;
pub const PORT_MIN: u16 = 20_000;

pub struct World {
    pub rig: Rig,
    pub config: &'static mut Config,
    pub filter: &'static mut AddrFilter,
    pub pools: &'static mut [Pool],
    pub ring_slots: &'static mut [u32],
    pub backends: &'static mut [Backend],
    pub frontend_info: &'static mut [FrontendInfo],
    pub buckets: &'static mut [FlowBucket],
    pub flows: &'static mut [Flow],
    pub replies: &'static mut [ReplyBucket],
    next_slot: u32,
}

/// An address as the ABI has it.
pub fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(v4) => xdp_ebpf::mapped_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The other way round.
pub fn ip(addr: &Addr) -> IpAddr {
    std::net::Ipv6Addr::from(*addr).to_canonical()
}

/// A record with its word, as a test reads it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub index: usize,
    pub flow: Flow,
    pub state: u8,
}

impl World {
    /// An empty world with `buckets` flow buckets, whose configuration is valid. From now on this thread stays where it is.
    pub fn new(label: &str, buckets: u32) -> Result<Self> {
        stay_on_this_cpu();
        Self::load(label, Sizes { flow_buckets: buckets, ..Sizes::default() }, ingress_agent::object::PROGRAM)
    }

    /// The same with other sizes and another build of the programs.
    pub fn load(label: &str, sizes: Sizes, object: &[u8]) -> Result<Self> {
        let rig = Rig::new(label, sizes, object)?;
        let buckets = sizes.flow_buckets as usize;
        let replies = buckets * xdp_ebpf::REPLY_FACTOR as usize;
        let world = Self {
            config: &mut rig.array::<Config>(map::CONFIG, 1)?[0],
            filter: &mut rig.array::<AddrFilter>(map::ADDR_FILTER, 1)?[0],
            pools: rig.array(map::POOLS, 1024)?,
            ring_slots: rig.array::<[u32; 1024]>(map::RINGS, sizes.ring_pages as usize)?.as_flattened_mut(),
            backends: rig.array(map::BACKENDS, sizes.backends as usize)?,
            frontend_info: rig.array(map::FRONTEND_INFO, 1024)?,
            buckets: rig.array(map::FLOW_INDEX, buckets)?,
            flows: rig.array(map::FLOWS, buckets * WAYS)?,
            replies: rig.array(map::REPLY_INDEX, replies)?,
            next_slot: 0,
            rig,
        };
        *world.config = Config {
            seed: SEED,
            flow_mask: sizes.flow_buckets - 1,
            reply_mask: replies as u32 - 1,
            tick_shift: tick_shift(hz()),
            udp_idle: 30,
            port_min: u32::from(PORT_MIN),
            port_count: 10_000,
            dropping: 0,
        };
        Ok(world)
    }

    /// Lets packets to (XDP) or from (TC) this address through the filter.
    pub fn ours(&mut self, address: IpAddr) {
        let bit = hash::addr_filter_bit(&addr(address)) as usize;
        self.filter.words[bit / 64] |= 1 << (bit % 64);
    }

    /// Says that some frontend has this port (host order).
    pub fn frontend_port(&mut self, port: u16) {
        self.filter.ports[usize::from(port) / 64] |= 1 << (port % 64);
    }

    /// A VIP or SNAT address with its [`xdp_ebpf::vip_flags`].
    pub fn vip(&mut self, address: IpAddr, flags: u32) -> Result<()> {
        self.ours(address);
        self.rig.set(map::VIPS, &addr(address), &Vip { flags, router: 0 })
    }

    /// A frontend whose pool has its own number.
    pub fn frontend(&mut self, id: u32, proto: u8, at: SocketAddr, flags: u32, snat: IpAddr) -> Result<()> {
        self.vip(at.ip(), xdp_ebpf::vip_flags::ECHO)?;
        let key = FrontendKey { addr: addr(at.ip()), port: at.port().to_be_bytes(), proto, pad: 0 };
        self.frontend_info[id as usize] = FrontendInfo { addr: key.addr, port: key.port, proto, pad: [0; 5] };
        self.frontend_port(at.port());
        self.rig.set(map::FRONTENDS, &key, &Frontend { id, pool: id, flags, affinity: 0, snat: addr(snat) })
    }

    /// Admits a range of clients, `198.51.100.0/24`, to a frontend that asks.
    pub fn source(&self, frontend: u32, range: &str) -> Result<()> {
        self.rig.set(map::SOURCES, &self.source_key(frontend, range)?, &1u32)
    }

    pub fn source_key(&self, frontend: u32, range: &str) -> Result<SourceKey> {
        let range: ipnet::IpNet = range.parse()?;
        Ok(SourceKey::new(frontend, addr(range.addr()), u32::from(range.prefix_len())))
    }

    pub fn backend(&mut self, id: u32, at: SocketAddr, forwarding: u8) {
        let state = backend_state::READY;
        self.backends[id as usize] =
            Backend { addr: addr(at.ip()), port: at.port().to_be_bytes(), forwarding, state, epoch: 1 };
    }

    /// Lays a table out in the arena.
    pub fn ring(&mut self, slots: &[u32]) -> Ring {
        let at = self.next_slot as usize;
        self.ring_slots[at..at + slots.len()].copy_from_slice(slots);
        self.next_slot += slots.len() as u32;
        Ring::new(at as u32, slots.len() as u32)
    }

    /// Makes `slots` a pool's current table, without a previous one.
    pub fn pool(&mut self, id: u32, slots: &[u32]) {
        let current = self.ring(slots);
        self.pools[id as usize] = Pool { current, previous: Ring::default() };
    }

    /// Every record in the flow table.
    pub fn seen(&self) -> Vec<Seen> {
        let ways = self.buckets.iter().enumerate().flat_map(|(b, bucket)| (0..WAYS).map(move |w| (b, w, bucket)));
        ways.filter(|(_, w, bucket)| bucket.tag[*w] >= tag::FIRST)
            .map(|(b, w, bucket)| {
                let index = b * WAYS + w;
                Seen { index, flow: self.flows[index], state: meta::state(bucket.meta[w]) }
            })
            .collect()
    }

    /// Makes a record look as if its last packet had come `ticks` ago.
    pub fn age(&mut self, index: usize, ticks: u32) {
        let word = &mut self.buckets[index / WAYS].meta[index % WAYS];
        *word = meta::new(word.wrapping_sub(ticks), meta::state(*word), meta::proto(*word));
    }

    pub fn set_state(&mut self, index: usize, state: u8) {
        let word = &mut self.buckets[index / WAYS].meta[index % WAYS];
        *word = meta::new(*word, state, meta::proto(*word));
    }

    /// Forgets all flows.
    pub fn clear_flows(&mut self) {
        self.buckets.fill(FlowBucket::default());
        self.flows.fill(Flow::default());
        self.replies.fill(ReplyBucket::default());
    }

    /// Runs the ingress program and tells which counters rose.
    pub fn ingress(&self, packet: &[u8]) -> Result<(Run, Vec<Verdict>)> {
        self.counted(|| self.rig.ingress(packet))
    }

    /// The same for the egress program.
    pub fn egress(&self, packet: &[u8]) -> Result<(Run, Vec<Verdict>)> {
        self.counted(|| self.rig.egress(packet))
    }

    fn counted(&self, run: impl FnOnce() -> Result<Run>) -> Result<(Run, Vec<Verdict>)> {
        let before = self.rig.verdicts()?;
        let run = run()?;
        let after = self.rig.verdicts()?;
        let rose = |v: &&Verdict| std::iter::repeat_n(**v, (after[**v as usize] - before[**v as usize]) as usize);
        Ok((run, Verdict::ALL.iter().flat_map(|v| rose(&v)).collect()))
    }

    /// The sum over the CPUs of a traffic counter.
    pub fn traffic(&self, map: &str, id: u32) -> Result<Traffic> {
        Ok(self.rig.per_cpu::<Traffic>(map, id)?.iter().fold(Traffic::default(), |a, b| Traffic {
            rx_packets: a.rx_packets + b.rx_packets,
            rx_bytes: a.rx_bytes + b.rx_bytes,
            tx_packets: a.tx_packets + b.tx_packets,
            tx_bytes: a.tx_bytes + b.tx_bytes,
            new_flows: a.new_flows + b.new_flows,
        }))
    }
}

/// Jiffies a second: the coarse clock's resolution is one jiffy.
fn hz() -> u32 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for the answer.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut ts) };
    (1_000_000_000 / ts.tv_nsec.max(1)) as u32
}
