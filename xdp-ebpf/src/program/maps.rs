//! The maps as the programs see them. With `packet.rs` and `words.rs` the only file that says `unsafe`. Values that the ABI writes with byte
//! arrays are seen here through types of the same layout made of words, so that the compiler loads words.

use core::arch::asm;
use core::ptr::from_ref;

use crate::fence::{HeartbeatView, RouterView};
use crate::insert::Opening;
use crate::next_hop::{Fib, KEPT, Kept};
use crate::words::{Entry, Word};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem, bpf_redirect_map};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray};
use xdp_ebpf::affinity::{Affinity, AffinityKey};
use xdp_ebpf::map::DROPPED_MOST;
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{
    AddrFilter, Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Pool, REPLY_FACTOR,
    ReplyBucket, RingPage, SOURCES_MOST, SourceKey, Traffic, Vip, WAYS,
};

/// The agent maps these arrays into its memory.
const MMAPABLE: u32 = 1 << 10;

// Sizes here serve tests; the agent sets its own when it loads the object.
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, MMAPABLE);
#[map]
static ADDR_FILTER: Array<AddrFilter> = Array::with_max_entries(1, MMAPABLE);
#[map]
static VIPS: HashMap<Address, Vip> = HashMap::with_max_entries(1024, 0);
#[map]
static ROUTERS: Array<RouterView> = Array::with_max_entries(xdp_ebpf::ROUTERS, MMAPABLE);
#[map]
static HEARTBEAT: Array<HeartbeatView> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FRONTENDS: HashMap<Key, FrontendView> = HashMap::with_max_entries(1024, 0);
/// The key's number of bits is said apart by the type; together they are a [`SourceKey`].
#[map]
static SOURCES: LpmTrie<[u8; size_of::<SourceKey>() - 4], u32> = LpmTrie::with_max_entries(SOURCES_MOST, 0);
#[map]
static DROPPED: HashMap<Address, u64> = HashMap::with_max_entries(DROPPED_MOST, BPF_F_NO_PREALLOC);
#[map]
static AFFINITY: LruHashMap<AffinityView, Affinity> = LruHashMap::with_max_entries(1024, 0);
#[map]
static FRONTEND_INFO: Array<FrontendInfoView> = Array::with_max_entries(1024, MMAPABLE);
#[map]
static POOLS: Array<[u64; 2]> = Array::with_max_entries(1024, MMAPABLE);
#[map]
static RINGS: Array<RingPage> = Array::with_max_entries(64, MMAPABLE);
#[map]
static BACKENDS: Array<BackendView> = Array::with_max_entries(1024, MMAPABLE);
#[map]
static FLOW_INDEX: Array<Bucket> = Array::with_max_entries(FLOW_BUCKETS, MMAPABLE);
#[map]
static FLOWS: Array<Record> = Array::with_max_entries(FLOW_BUCKETS * WAYS as u32, MMAPABLE);
#[map]
static REPLY_INDEX: Array<Replies> = Array::with_max_entries(FLOW_BUCKETS * REPLY_FACTOR, MMAPABLE);
#[map]
static DEVICES: DevMapHash = DevMapHash::with_max_entries(64, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);
#[map]
static FRONTEND_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1024, 0);
#[map]
static BACKEND_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1024, 0);

#[map]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);
#[map]
static NEXT_HOP: PerCpuArray<Fib> = PerCpuArray::with_max_entries(1, 0);
#[map]
static NEXT_HOPS: PerCpuArray<Kept> = PerCpuArray::with_max_entries(KEPT, 0);

const FLOW_BUCKETS: u32 = 128;

/// An [`Addr`](xdp_ebpf::Addr) as two words in memory order.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    pub high: u64,
    pub low: u64,
}

/// [`FrontendKey`].
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
pub struct Key {
    pub addr: Address,
    pub port: u16,
    pub proto: u8,
    pub pad: u8,
}
const _: () = assert!(size_of::<Key>() == size_of::<FrontendKey>());

/// [`Frontend`].
#[repr(C)]
pub struct FrontendView {
    pub id: u32,
    pub pool: u32,
    pub flags: u32,
    pub affinity: u32,
    pub snat: Address,
}
const _: () = assert!(size_of::<FrontendView>() == size_of::<Frontend>());

/// [`SourceKey`].
#[repr(C, packed(4))]
struct SourceView {
    bits: u32,
    frontend: u32,
    addr: Address,
}
const _: () = assert!(size_of::<SourceView>() == size_of::<SourceKey>());

/// [`AffinityKey`].
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
pub struct AffinityView {
    pub frontend: u32,
    pub client: Address,
}
const _: () = assert!(size_of::<AffinityView>() == size_of::<AffinityKey>());

/// [`FrontendInfo`].
#[repr(C)]
pub struct FrontendInfoView {
    pub addr: Address,
    pub port: u16,
    pub proto: u8,
    pad: [u8; 5],
}
const _: () = assert!(size_of::<FrontendInfoView>() == size_of::<FrontendInfo>());

/// [`Backend`].
#[repr(C)]
pub struct BackendView {
    pub addr: Address,
    pub port: u16,
    pub forwarding: u8,
    pub state: u8,
    pub epoch: u32,
}
const _: () = assert!(size_of::<BackendView>() == size_of::<Backend>());

/// [`Flow`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record {
    pub client: Address,
    pub frontend: u32,
    pub client_port: u16,
    pub port: u16,
    pub backend: u32,
    pub epoch: u32,
    pub source: Address,
    pub reply: u32,
    pub opened: u32,
    /// `synced` and what pads it.
    pub pad: u64,
}
const _: () = assert!(size_of::<Record>() == size_of::<Flow>());

/// [`FlowBucket`].
#[repr(C)]
pub struct Bucket {
    pub tag: [Word; WAYS],
    pub meta: [Word; WAYS],
}
const _: () = assert!(size_of::<Bucket>() == size_of::<FlowBucket>());

/// [`ReplyBucket`].
#[repr(C)]
pub struct Replies {
    pub entry: [Entry; WAYS],
}
const _: () = assert!(size_of::<Replies>() == size_of::<ReplyBucket>());

/// What `bpf_map_lookup_elem` returns, as a reference. Values of arrays live as long as the program; of hashes, until the
/// program's end (RCU).
macro_rules! look_up {
    ($map:ident, $t:ty, $key:expr) => {{
        let key = $key;
        // SAFETY: the map's definition has this key and value; the pointer is valid until the program ends.
        unsafe { bpf_map_lookup_elem((&raw const $map).cast_mut().cast(), from_ref(&key).cast()).cast::<$t>().as_mut() }
    }};
}

#[inline(always)]
pub fn config() -> Option<&'static Config> {
    look_up!(CONFIG, Config, 0u32).map(|v| &*v)
}

/// Whether the bit of an address is set in `ADDR_FILTER`.
#[inline(always)]
pub fn maybe_ours(bit: u32) -> bool {
    look_up!(ADDR_FILTER, AddrFilter, 0u32)
        .and_then(|f| f.words.get((bit >> 6) as usize & 1023))
        .is_some_and(|word| word >> (bit & 63) & 1 != 0)
}

/// Whether some frontend has this port (host order).
#[inline(always)]
pub fn maybe_frontend(port: u16) -> bool {
    look_up!(ADDR_FILTER, AddrFilter, 0u32)
        .and_then(|f| f.ports.get(port as usize >> 6))
        .is_some_and(|word| word >> (port & 63) & 1 != 0)
}

/// The flags of an address in `VIPS`.
#[inline(always)]
pub fn vip(addr: Address) -> Option<u32> {
    look_up!(VIPS, Vip, addr).map(|v| v.flags)
}

/// The router of an address in `VIPS`; 0 where there is none.
#[inline(always)]
pub fn router_of(addr: Address) -> u32 {
    look_up!(VIPS, Vip, addr).map_or(0, |v| v.router)
}

#[inline(always)]
pub fn router(id: u32) -> Option<&'static RouterView> {
    look_up!(ROUTERS, RouterView, id).map(|v| &*v)
}

#[inline(always)]
pub fn heartbeat() -> Option<&'static HeartbeatView> {
    look_up!(HEARTBEAT, HeartbeatView, 0u32).map(|v| &*v)
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn nanoseconds() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub fn frontend(key: Key) -> Option<&'static FrontendView> {
    look_up!(FRONTENDS, FrontendView, key).map(|v| &*v)
}

/// Whether a frontend with ranges admits this client.
#[inline(always)]
pub fn admits(frontend: u32, client: Address) -> bool {
    look_up!(SOURCES, u32, SourceView { bits: SourceKey::ALL_BITS, frontend, addr: client }).is_some()
}

/// Until when a client is dropped; 0 for one that is not.
#[inline(always)]
pub fn dropped_until(client: Address) -> u64 {
    look_up!(DROPPED, u64, client).map_or(0, |until| *until)
}

/// The endpoint that a client had last.
#[inline(always)]
pub fn affinity(key: AffinityView) -> Option<&'static mut Affinity> {
    look_up!(AFFINITY, Affinity, key)
}

/// From now on the client has this one. Where the map cannot take it, the client goes by its hash.
#[inline(always)]
pub fn remember(key: AffinityView, value: Affinity) {
    // SAFETY: the map's definition has this key and value, which live until the call has returned.
    unsafe {
        bpf_map_update_elem((&raw const AFFINITY).cast_mut().cast(), from_ref(&key).cast(), from_ref(&value).cast(), 0)
    };
}

#[inline(always)]
pub fn frontend_info(id: u32) -> Option<&'static FrontendInfoView> {
    look_up!(FRONTEND_INFO, FrontendInfoView, id).map(|v| &*v)
}

/// The rings of a pool, current and previous, as `offset << 32 | len`.
#[inline(always)]
pub fn rings(pool: u32) -> Option<(u64, u64)> {
    let [current, previous] = look_up!(POOLS, [u64; 2], pool)?;
    // SAFETY: aligned words of a map's value; the agent replaces each with one store.
    unsafe { Some((core::ptr::read_volatile(current), core::ptr::read_volatile(previous))) }
}

/// A slot of the arena in `RINGS`; 0 where there is none.
#[inline(always)]
pub fn ring_slot(at: u32) -> u32 {
    look_up!(RINGS, RingPage, at >> 10).and_then(|page| page.slots.get(at as usize & 1023)).map_or(0, |id| *id)
}

#[inline(always)]
pub fn backend(id: u32) -> Option<&'static BackendView> {
    look_up!(BACKENDS, BackendView, id).map(|v| &*v)
}

#[inline(always)]
pub fn bucket(at: u32) -> Option<&'static Bucket> {
    look_up!(FLOW_INDEX, Bucket, at).map(|v| &*v)
}

#[inline(always)]
pub fn record(flow: u32) -> Option<&'static mut Record> {
    look_up!(FLOWS, Record, flow)
}

#[inline(always)]
pub fn replies(at: u32) -> Option<&'static Replies> {
    look_up!(REPLY_INDEX, Replies, at).map(|v| &*v)
}

/// Asks for the lines of memory of a flow's bucket and record. Nobody waits for these loads, so they run beside each other;
/// where the values are needed, one after the other, each would cost a memory access. All addresses are known before: a CPU
/// goes on for some 200 instructions behind a load that is under way, not more.
#[inline(always)]
pub fn fetch(at: u32, flow: u32) {
    if let Some(bucket) = bucket(at) {
        bucket.tag[0].load();
    }
    if let Some(record) = record(flow) {
        // SAFETY: an aligned word of a map's value.
        unsafe { (&raw const record.reply).read_volatile() };
    }
}

/// The same for a line of `REPLY_INDEX`.
#[inline(always)]
pub fn fetch_replies(at: u32) {
    if let Some(replies) = replies(at) {
        replies.entry[0].load();
    }
}

/// This CPU's workplace for a packet that opens a flow. On no stack, because the programs' frames together have 512 bytes, and
/// because global functions, which the verifier walks once and not at every call, take no richer argument than a number.
#[inline(always)]
pub fn opening() -> Option<&'static mut Opening> {
    look_up!(OPENING, Opening, 0u32)
}

/// This CPU's place for a next hop's look-up, for the same reason.
#[inline(always)]
pub fn fib() -> Option<&'static mut Fib> {
    look_up!(NEXT_HOP, Fib, 0u32)
}

/// This CPU's memory of next hops.
#[inline(always)]
pub fn kept(at: u32) -> Option<&'static mut Kept> {
    look_up!(NEXT_HOPS, Kept, at)
}

/// A number below 2^n, `MASK` being 2^n - 1, that the verifier takes for unknown: otherwise it would walk the rest of the program
/// once for each value. `noise` is any word whose value it doesn't know.
#[inline(always)]
pub fn forget<const MASK: u32>(value: u32, noise: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("{value} ^= {noise}", "{value} ^= {noise}", value = inout(reg) value, noise = in(reg) u64::from(noise), options(pure, nomem, nostack))
    };
    value as u32 & MASK
}

#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: a helper without arguments; the verifier replaces it by a load.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper on a map of the right type; the flags are what it returns for a missing device.
    unsafe { bpf_redirect_map((&raw const DEVICES).cast_mut().cast(), u64::from(ifindex), 2) as u32 }
}

#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(n) = look_up!(VERDICTS, u64, verdict as u32) {
        *n += 1;
    }
}

/// Both traffic counters of a packet, or `None` where the agent gave no such ids.
#[inline(always)]
pub fn traffic(frontend: u32, backend: u32, add: impl Fn(&mut Traffic)) {
    if let Some(t) = look_up!(FRONTEND_TRAFFIC, Traffic, frontend) {
        add(t);
    }
    if let Some(t) = look_up!(BACKEND_TRAFFIC, Traffic, backend) {
        add(t);
    }
}
const _: () = assert!(size_of::<Pool>() == 16);
