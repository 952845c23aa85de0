//! The ABI between the packet programs and the agent: map names, keys and values, and the pure functions that
//! both sides must compute alike (hashes, Maglev, checksums).
//!
//! Conventions, so that no reader has to ask: an address is 16 bytes in network order, IPv4 as IPv4-mapped IPv6
//! (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2); a port is 2 bytes in network order; every other integer is native-endian.
//! No struct has implicit padding, and the size of each is asserted below it. Index 0 is never a valid
//! frontend, pool or backend, so zeroed memory means "nothing".
//!
//! This library never allocates, never panics on packet bytes and imports nothing: the BPF target, the agent and
//! the tests compile the same text. Changing any layout here means raising [`SCHEMA`].
#![no_std]
#![forbid(unsafe_code)]

pub mod affinity;
pub mod bench;
pub mod checksum;
pub mod fence;
pub mod hash;
pub mod maglev;
pub mod map;
pub mod rules;
pub mod verdict;

#[cfg(test)]
extern crate std;

pub use fence::{Heartbeat, ROUTERS, Router, mac_word, router, router_role};

/// Version of everything in this file, in [`affinity`] and in `fence`. Pinned maps live in a directory named after it; an agent adopts pins of its
/// own schema only.
pub const SCHEMA: u32 = 6;

/// IPv4-mapped or IPv6 address, network order.
pub type Addr = [u8; 16];
/// Port, network order.
pub type Port = [u8; 2];

pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;

/// Names of the programs in the object file.
pub mod program {
    /// XDP, on ingress of every attached interface.
    pub const INGRESS: &str = "sluicegate_ingress";
    /// TC (tcx), on egress of every attached interface: turns replies of `local` backends back into the VIP's.
    pub const EGRESS: &str = "sluicegate_egress";
}

/// Node-wide settings of the data plane. One entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Seed of [`hash::tuple`] for clients' packets. The same on every edge node of a cluster, and secret: whoever
    /// knows it can aim at one bucket.
    pub seed: u64,
    /// Number of buckets in `FLOW_INDEX`, less one (a power of two less one).
    pub flow_mask: u32,
    /// Number of buckets in `REPLY_INDEX`, less one (a power of two less one).
    pub reply_mask: u32,
    /// A tick is `jiffies >> tick_shift`: [`tick_shift`] of the kernel's HZ (`CLOCK_MONOTONIC_COARSE`'s resolution tells it).
    pub tick_shift: u32,
    /// Ticks after which an idle UDP flow is chosen anew.
    pub udp_idle: u32,
    /// Source ports that `nat` may use: `port_min <= p < port_min + port_count`, host order. `port_count` is at least 1, and
    /// `port_min + port_count <= 65536`.
    pub port_min: u32,
    pub port_count: u32,
    /// 0: nobody is in `DROPPED`. It spares every packet for the proxy the look-up there.
    pub dropping: u64,
}
const _: () = assert!(size_of::<Config>() == 40);

/// The shift that makes ticks of one to two seconds from jiffies.
pub const fn tick_shift(hz: u32) -> u32 {
    let mut shift = 0;
    while shift < 16 && 1 << shift < hz {
        shift += 1;
    }
    shift
}

/// Bits in [`AddrFilter`].
pub const ADDR_FILTER_BITS: u32 = 65_536;

/// What spares a look into the hash maps. A set bit means "look closer". The agent sets a bit before the maps name the address or
/// the port, and clears it after they forgot it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrFilter {
    /// A one-hash Bloom filter over VIPs, SNAT addresses and `local` backends ([`hash::addr_filter_bit`]).
    pub words: [u64; (ADDR_FILTER_BITS / 64) as usize],
    /// Ports of frontends, whatever their address and protocol: bit `port % 64` of word `port / 64`, host order.
    pub ports: [u64; 1024],
}
const _: () = assert!(size_of::<AddrFilter>() == 16_384);

/// Value of `VIPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// [`vip_flags`].
    pub flags: u32,
    /// Index into `ROUTERS` of the virtual router that holds it, or 0: nobody else would.
    pub router: u32,
}
const _: () = assert!(size_of::<Vip>() == 8);

pub mod vip_flags {
    /// XDP answers ICMP and ICMPv6 echo requests.
    pub const ECHO: u32 = 1;
}

/// Key of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    pub addr: Addr,
    pub port: Port,
    /// [`IPPROTO_TCP`] or [`IPPROTO_UDP`].
    pub proto: u8,
    pub pad: u8,
}
const _: () = assert!(size_of::<FrontendKey>() == 20);

/// Value of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// 1 or more. Not given to another frontend before the flows that name it were swept.
    pub id: u32,
    /// Index into `POOLS`; 0 for an L7 frontend.
    pub pool: u32,
    /// [`frontend_flags`].
    pub flags: u32,
    /// Ticks after its last new flow for which a client keeps the endpoint that it has in `AFFINITY`; 0: none has any there. Only
    /// with `CLIENT_IP_AFFINITY`.
    pub affinity: u32,
    /// Source address for `nat`: the VIP itself unless configured otherwise. All zero where there is no pool.
    pub snat: Addr,
}
const _: () = assert!(size_of::<Frontend>() == 32);

pub mod frontend_flags {
    /// PASS to the proxy on this node.
    pub const L7: u32 = 1;
    /// Leave the client's port out of the Maglev hash (`sessionAffinity: ClientIP`).
    pub const CLIENT_IP_AFFINITY: u32 = 2;
    /// Only clients in one of the ranges in `SOURCES` may open a flow (`loadBalancerSourceRanges`).
    pub const SOURCES: u32 = 4;
}

/// Ranges that `SOURCES` can hold.
pub const SOURCES_MOST: u32 = 1 << 20;

/// Key of `SOURCES`: as the kernel's tries want it, the number of bits that count, then the bits in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    /// 32 for the frontend and those of the address: 96 more for a range of IPv4 than its prefix says.
    pub bits: u32,
    /// Its id.
    pub frontend: u32,
    pub addr: Addr,
}
const _: () = assert!(size_of::<SourceKey>() == 24);

impl SourceKey {
    /// Bits of the frontend's id, which come before those of the address and always count.
    pub const ID_BITS: u32 = 32;
    /// Bits before those of an IPv4 address in an [`Addr`].
    pub const MAPPED_BITS: u32 = 96;
    /// All: what a look-up for one client asks with.
    pub const ALL_BITS: u32 = 160;

    /// The range of `addr` and `prefix` bits, counted as in its own family.
    pub const fn new(frontend: u32, addr: Addr, prefix: u32) -> Self {
        let mapped = if is_v4(&addr) { Self::MAPPED_BITS } else { 0 };
        Self { bits: Self::ID_BITS + mapped + prefix, frontend, addr }
    }
}

/// Value of `FRONTEND_INFO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontendInfo {
    pub addr: Addr,
    pub port: Port,
    pub proto: u8,
    pub pad: [u8; 5],
}
const _: () = assert!(size_of::<FrontendInfo>() == 24);

/// A range of `RINGS`: `offset << 32 | len`. One aligned 8-byte store swaps a pool's table atomically.
/// `len` 0 means no backend takes new flows.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring(pub u64);

impl Ring {
    pub const fn new(offset: u32, len: u32) -> Self {
        Self((offset as u64) << 32 | len as u64)
    }
    pub const fn offset(self) -> u32 {
        (self.0 >> 32) as u32
    }
    pub const fn len(self) -> u32 {
        self.0 as u32
    }
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Value of `POOLS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub current: Ring,
    /// The table before the last change. While it is not empty, a packet that opens nothing and has no flow record goes
    /// by this one: its flow began under it. The agent empties it after the grace time, then frees the range.
    pub previous: Ring,
}
const _: () = assert!(size_of::<Pool>() == 16);

/// Slots in a [`RingPage`].
pub const RING_PAGE_SLOTS: u32 = 1024;

/// Value of `RINGS`: slot `n` of the arena is `slots[n % RING_PAGE_SLOTS]` of page `n / RING_PAGE_SLOTS`; mapped into memory the
/// pages are one array of `u32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPage {
    pub slots: [u32; RING_PAGE_SLOTS as usize],
}
const _: () = assert!(size_of::<RingPage>() == 4096);

/// Value of `BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    pub addr: Addr,
    pub port: Port,
    /// [`forwarding`].
    pub forwarding: u8,
    /// [`backend_state`].
    pub state: u8,
    /// Raised whenever the slot is given to another endpoint; a flow of an older epoch is a miss.
    pub epoch: u32,
}
const _: () = assert!(size_of::<Backend>() == 24);

pub mod forwarding {
    /// DNAT and SNAT in XDP, replies come back to this node.
    pub const NAT: u8 = 1;
    /// DNAT in XDP, PASS to the kernel, the reply's source is rewritten at TC egress.
    pub const LOCAL: u8 = 2;
}

pub mod backend_state {
    /// The slot is free or its endpoint is gone: flows to it are misses.
    pub const GONE: u8 = 0;
    pub const READY: u8 = 1;
    /// Keeps its flows, gets no new one (it is in no table).
    pub const DRAINING: u8 = 2;
}

/// Ways of a bucket in `FLOW_INDEX` and `REPLY_INDEX`.
pub const WAYS: usize = 8;

/// One cache line of `FLOW_INDEX`.
///
/// Protocol: a tag is [`tag::FREE`], [`tag::BUSY`] (one CPU is writing the record) or at least [`tag::FIRST`]. A writer
/// takes a way with compare-and-swap to BUSY, writes the record, then stores the new tag. A reader compares the tag, reads
/// the record, compares the full key, and reads the tag again; any difference is a miss.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowBucket {
    pub tag: [u32; WAYS],
    /// [`meta`]: when the last packet in either direction came, the state and the protocol. Here and not in the record, so
    /// that eviction reads one line. A plain store; a lost update costs nothing that matters.
    pub meta: [u32; WAYS],
}
const _: () = assert!(size_of::<FlowBucket>() == 64);

pub mod tag {
    pub const FREE: u32 = 0;
    pub const BUSY: u32 = 1;
    /// The lowest value of a real tag.
    pub const FIRST: u32 = 2;
}

/// The word of a flow in [`FlowBucket::meta`]: tick of the last packet (16 bits, refreshed when it changes), [`flow_state`]
/// (8 bits), IP protocol (8 bits).
pub mod meta {
    #[inline(always)]
    pub const fn new(now: u32, state: u8, proto: u8) -> u32 {
        (now & 0xffff) | (state as u32) << 16 | (proto as u32) << 24
    }
    #[inline(always)]
    pub const fn state(word: u32) -> u8 {
        (word >> 16) as u8
    }
    #[inline(always)]
    pub const fn proto(word: u32) -> u8 {
        (word >> 24) as u8
    }
    /// Ticks since the last packet, below 65,280. Whoever looks may have read the clock before another CPU wrote the word: a packet of
    /// the tick that began meanwhile is young, not 65,535 ticks old. Silent flows are forgotten long before.
    #[inline(always)]
    pub const fn age(word: u32, now: u32) -> u32 {
        let age = now.wrapping_sub(word) & 0xffff;
        if age < 0xff00 { age } else { 0 }
    }
}

/// A flow record: one cache line, found by the client's tuple through `FLOW_INDEX` and by the reply's through
/// `REPLY_INDEX`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub client: Addr,
    pub frontend: u32,
    pub client_port: Port,
    /// The source port that the backend sees (`nat`: chosen from the range; `local`: the client's unless taken).
    pub port: Port,
    pub backend: u32,
    /// [`Backend::epoch`] when the flow was made.
    pub epoch: u32,
    /// The source address that the backend sees: the frontend's `snat`, or the client in `local`.
    pub source: Addr,
    /// Index of this flow's entry in `REPLY_INDEX` (`bucket * 8 + way`), so that an eviction can free it.
    pub reply: u32,
    /// Low 32 bits of jiffies when the flow was made.
    pub opened: u32,
    /// 0: made for a packet of this node. Else another edge has told of the flow, and the [`meta`] word that was written with it: while
    /// the flow's word is still this one, no packet of it came here. Written by the agent only; the programs clear it.
    pub synced: u32,
    /// Explicit, so that the struct has no hidden bytes.
    pub pad: u32,
}
const _: () = assert!(size_of::<Flow>() == 64);

/// What eviction goes by ([`rules::flow_rank`]) and how long a silent flow lives ([`rules::dead`]).
pub mod flow_state {
    /// Only the opening packet was seen.
    pub const NEW: u8 = 0;
    /// The backend answered.
    pub const REPLIED: u8 = 1;
    /// The client went on after the answer.
    pub const ESTABLISHED: u8 = 2;
    /// FIN or RST was seen; the record lives on for the last packets.
    pub const CLOSING: u8 = 3;
}

/// One way of [`ReplyBucket`], stored with one 8-byte write. `tag` 0 is free.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyEntry {
    pub tag: u32,
    /// Index into `FLOWS`.
    pub flow: u32,
}

/// Buckets in `REPLY_INDEX` for each in `FLOW_INDEX`.
pub const REPLY_FACTOR: u32 = 2;

/// One cache line of `REPLY_INDEX`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyBucket {
    pub entry: [ReplyEntry; WAYS],
}
const _: () = assert!(size_of::<ReplyBucket>() == 64);

/// Per-CPU counters. Units: packets, and bytes of layer 3 upwards without the Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From clients.
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// Replies to clients.
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Flow records made.
    pub new_flows: u64,
}
const _: () = assert!(size_of::<Traffic>() == 40);

/// Maps an IPv4 address (network order) into [`Addr`].
pub const fn mapped_v4(v4: [u8; 4]) -> Addr {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Whether an [`Addr`] is an IPv4-mapped one.
#[inline(always)]
pub const fn is_v4(addr: &Addr) -> bool {
    u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]]) == 0
        && u32::from_be_bytes([addr[8], addr[9], addr[10], addr[11]]) == 0xffff
}
