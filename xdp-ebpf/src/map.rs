//! Names of the maps, as in the object file and under bpffs; what each holds, who reads it and why it has that shape.

/// `ARRAY[1]` of [`Config`](crate::Config). Written by the agent at start, read on every packet that is ours.
pub const CONFIG: &str = "CONFIG";
/// `ARRAY[1]` of [`AddrFilter`](crate::AddrFilter): one bit per hashed address that XDP or TC may have to touch.
/// The first look-up of every packet (inlined, about 2 ns), so that foreign traffic pays nearly nothing. And one bit per port
/// that a frontend has, so that a new flow's source port is hardly ever looked for in `FRONTENDS`.
pub const ADDR_FILTER: &str = "ADDR_FILTER";
/// `HASH` of [`Addr`](crate::Addr) to [`Vip`](crate::Vip): all VIPs and SNAT addresses. Tells which of them answer echo
/// requests, and whose ICMP errors we follow. Read for ICMP and for packets without a frontend only.
pub const VIPS: &str = "VIPS";
/// `ARRAY` of [`Router`](crate::Router) by [`router`](crate::router): whether another node holds a virtual router's addresses, and
/// which one held them before. Read for ARP requests and neighbour solicitations, and during a hand-over for packets to the proxy;
/// written by adverts while the agent is silent.
pub const ROUTERS: &str = "ROUTERS";
/// `ARRAY[1]` of [`Heartbeat`](crate::Heartbeat), written by the agent's election, read for adverts and for packets to the proxy.
pub const HEARTBEAT: &str = "HEARTBEAT";
/// `HASH` of [`FrontendKey`](crate::FrontendKey) to [`Frontend`](crate::Frontend). The one kernel hash look-up
/// on the forwarding path.
pub const FRONTENDS: &str = "FRONTENDS";
/// `LPM_TRIE` of [`SourceKey`](crate::SourceKey) to 1: the clients that frontends with the flag `SOURCES` admit. Read when a
/// flow opens, never for one that has its record. Grows with what is in it; its bound is [`SOURCES_MOST`](crate::SOURCES_MOST).
pub const SOURCES: &str = "SOURCES";
/// `HASH` of a client's [`Addr`](crate::Addr) to a `u64`: until when (`CLOCK_MONOTONIC`, nanoseconds) it is dropped at the ports of the proxy, since it
/// went on exceeding limits. Written by the agent only, and read for packets to the proxy while [`Config::dropping`](crate::Config::dropping) says that anybody is in it. An
/// entry ends by its time, whether or not an agent is there to remove it. Not preallocated: of its [`DROPPED_MOST`] places only those in use take memory.
pub const DROPPED: &str = "DROPPED";
/// Clients that [`DROPPED`] can hold.
pub const DROPPED_MOST: u32 = 65_536;
/// `LRU_HASH` of [`AffinityKey`](crate::affinity::AffinityKey) to [`Affinity`](crate::affinity::Affinity): the endpoints that clients of frontends with
/// a timeout have. Read and written when a flow of theirs opens, and never otherwise; a client that is forgotten for lack of space
/// goes by its hash again.
pub const AFFINITY: &str = "AFFINITY";
/// `ARRAY` of [`FrontendInfo`](crate::FrontendInfo) by frontend id: what a reply is rewritten back to.
pub const FRONTEND_INFO: &str = "FRONTEND_INFO";
/// `ARRAY` of [`Pool`](crate::Pool) by pool id: where its current and previous Maglev table lie in `RINGS`.
pub const POOLS: &str = "POOLS";
/// `ARRAY` of [`RingPage`](crate::RingPage): together one flat arena of `u32` backend ids, in which every pool's Maglev
/// table is a contiguous range. Pages, because the kernel rounds each value of an array up to 8 bytes.
pub const RINGS: &str = "RINGS";
/// `ARRAY` of [`Backend`](crate::Backend) by backend id.
pub const BACKENDS: &str = "BACKENDS";
/// `ARRAY` of [`FlowBucket`](crate::FlowBucket): tags and ages of the flow table, eight ways a cache line.
pub const FLOW_INDEX: &str = "FLOW_INDEX";
/// `ARRAY` of [`Flow`](crate::Flow): record `bucket * 8 + way` belongs to that way of `FLOW_INDEX`.
pub const FLOWS: &str = "FLOWS";
/// `ARRAY` of [`ReplyBucket`](crate::ReplyBucket), [`REPLY_FACTOR`](crate::REPLY_FACTOR) times as many as in `FLOW_INDEX` (a full bucket costs a flow its port):
/// from the hash of a reply's tuple to its flow record.
pub const REPLY_INDEX: &str = "REPLY_INDEX";
/// `DEVMAP_HASH` by ifindex: devices that XDP may redirect to. A missing one means PASS to the kernel.
pub const DEVICES: &str = "DEVICES";
/// `PERCPU_ARRAY` of `u64` by [`Verdict`](crate::verdict::Verdict).
pub const VERDICTS: &str = "VERDICTS";
/// `PERCPU_ARRAY` of [`Traffic`](crate::Traffic) by frontend id (client to backend in `rx`, replies in `tx`).
pub const FRONTEND_TRAFFIC: &str = "FRONTEND_TRAFFIC";
/// `PERCPU_ARRAY` of [`Traffic`](crate::Traffic) by backend id.
pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
/// `PERCPU_ARRAY[1]`: the program's own workplace. Not for the agent.
pub const OPENING: &str = "OPENING";
/// `PERCPU_ARRAY[1]`: likewise.
pub const NEXT_HOP: &str = "NEXT_HOP";
/// `PERCPU_ARRAY`: the kernel's last answers about next hops. Not for the agent.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
