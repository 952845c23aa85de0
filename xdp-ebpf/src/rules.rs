//! The rules of the packet path in words and constants. The programs in `src/program` and the plain model in the tests are both
//! written from this page; a question that it leaves open is a defect of the page.
//!
//! # What is looked at
//! 1. Ethernet (14 bytes, else `PassMalformed`), up to [`VLAN_TAGS`] tags of type 0x8100 or 0x88a8 (a third: `PassHeaders`; cut
//!    short: `PassMalformed`). Neither IPv4 nor IPv6: `PassEtherType`, but see *who answers* about ARP.
//! 2. The fixed IP header (20 or 40 bytes, else `PassMalformed`). Destination not in `ADDR_FILTER`: `PassNotOurs`, whatever the
//!    rest holds. A group bit in the destination MAC: `PassMalformed` (RFC 1122 §3.3.6), unless the destination is a group's address
//!    (`224.0.0.0/4`, `ff00::/8`): such a packet goes through 2 and 3, and then see *who answers*. Wrong version, IHL below 5, a total
//!    length below the header or above what arrived: `PassMalformed`.
//! 3. IPv4: more fragments or an offset: `PassFragment`. Options are skipped. IPv6: hop-by-hop (0) and destination options (60)
//!    are skipped, up to [`IPV6_EXTENSIONS`] headers (another: `PassHeaders`; past the payload: `PassMalformed`); a routing
//!    header (43): `PassHeaders`; a fragment header (44): `PassFragment`.
//! 4. The IP payload holds at least 20 bytes for TCP, 8 for UDP and ICMP (1 in IPv4, 58 in IPv6), else `PassMalformed`. Another
//!    protocol: `PassProtocol` if the destination is in `VIPS`, else `PassNotOurs`. Checksums are not verified: they are
//!    updated incrementally, so a wrong one stays wrong.
//!
//! # From a client (TCP and UDP, the destination is in `FRONTENDS`)
//! - `L7`: `DropLimited` while the client's time in `DROPPED` is not over, whatever the packet (where `Config::dropping` is 0 nobody is asked);
//!   else `PassL7`, but see *whose connection it is*. TTL or hop limit ≤ 1: `PassTtl`.
//! - The *own* record: in the bucket `hash & flow_mask` of [`hash::tuple`](crate::hash::tuple)`(seed, client, vip, client port,
//!   vip port, proto)`, the first way with that [`tag`](crate::hash::tag), if its record has the same client, client port and
//!   frontend. It is *good* while its backend's `epoch` is the record's and its `state` is not `GONE`.
//! - TCP with SYN and without ACK *opens*. UDP opens if the own record is not good or was idle for more than `udp_idle` ticks.
//!   All else with a good own record goes by it. What remains is a *miss*.
//! - `SOURCES`: a packet that opens, and a miss, of a client whose address is in none of the frontend's ranges: `DropSource`. A
//!   flow that has its record goes on whatever the ranges become.
//! - The choice: slot [`hash::slot`](crate::hash::slot)`(h, len)` of a ring, `h` being the hash above, or the one with client
//!   port 0 under `CLIENT_IP_AFFINITY`. A packet that opens takes the current ring. A TCP miss notes `FlowMiss` and takes the
//!   previous ring if it is not empty and names a backend that is not `GONE` (note `PreviousTable`), else the current one. An
//!   empty ring, id 0, or a `GONE` backend: `PassNoBackend`.
//! - Under `CLIENT_IP_AFFINITY` with a time in the frontend's `affinity`, the client's entry in `AFFINITY` comes before the rings, if it
//!   is of the frontend's pool and of its backend's `epoch`. A packet that opens takes it if the backend is `READY` and the entry was
//!   used at most so many ticks ago; if it is older, `h` is the hash above, so that the client is spread anew. Either way
//!   the entry then holds the choice and the present tick. A miss takes it while the backend is not `GONE`, whatever its age,
//!   and leaves it as it is.
//! - An opening packet whose own record is good and names the chosen backend keeps the record and its port; state `CLOSING`
//!   becomes `NEW`, and so does any state of an idle UDP flow. Else a record is made (note `FlowNew`), except for a TCP miss
//!   with RST, which goes to the chosen backend by the first port of its order, without a record and without probing.
//! - States: made as `NEW` (`CLOSING` if FIN is set). A client's packet turns `REPLIED` into `ESTABLISHED`, a backend's turns
//!   `NEW` into `REPLIED`; FIN or RST from either side gives `CLOSING`.
//!
//! # Making a record
//! - The way: the own record's if there is one; else, counted from [`first_way`](crate::hash::first_way) on and round, the first
//!   `FREE` one; else the first [`dead`] one; else, of the lowest [`flow_rank`], the one idle for longest in units of
//!   [`IDLE_UNIT`] ticks (the first of equals): note `FlowEvicted`, and `FlowEvictedEstablished` too if it was `ESTABLISHED`.
//!   A way that another CPU is writing is passed over; if none is left or the compare-and-swap is lost:
//!   `DropContended`. The own record's old entry in `REPLY_INDEX` is freed at once; that of another flow, which is *left
//!   behind*, when the next record is made on this CPU, before its port is sought, or when this one finds no port.
//! - The source: the frontend's `snat` (`nat`) or the client (`local`). The port: [`PORT_PROBES`] candidates
//!   [`hash::port`](crate::hash::port)`(h, i)`; in `local` candidate 0 is the client's own and `i` counts from there. A
//!   candidate is *free* if, in `nat`, `FRONTENDS` has no (source, candidate, proto), and in the bucket of
//!   [`tuple`](crate::hash::tuple)`(seed + REPLY_SEED, backend, source, backend port, candidate, proto)` the tag is absent and
//!   an entry is empty. The first free one is taken. Without any, the first whose tag is there but whose flow is [`dead`] (that
//!   flow is forgotten then) or has its entry elsewhere (the key was left behind); then the first whose flow is `CLOSING` for
//!   [`CLOSING_REUSE`] ticks or more; else `DropNoPort`. Each candidate that is not free notes `PortProbe`, once.
//!
//! # To the backend
//! - `local`: destination address and port (and source port if it is not the client's) are rewritten; `ForwardLocal`, PASS.
//! - `nat`: source and destination are rewritten and the TTL is decremented. The next hop comes from `bpf_fib_lookup` for the
//!   rewritten packet, with two bits of the client's side port in place of that port; on each CPU an answer for traffic of
//!   class 0 is kept for [`HOP_AGE`]. Out by the ingress interface: `XDP_TX`; by one in `DEVICES`: redirect; both `ForwardNat`,
//!   with VLAN tags removed. No next hop, or a device that is not in `DEVICES`: `ForwardNatPass`, tags and MACs as they came.
//! - Longer than the next hop's MTU: with DF or IPv6, and not longer than the ingress interface's own MTU (then it is an
//!   aggregate, which the kernel will segment): the original goes back as the payload of an ICMP error, [`QUOTE_V4`] or
//!   [`QUOTE_V6`] bytes of it, from its destination address, TTL 64, tags kept, MACs swapped: `PacketTooBig`, TX. Else
//!   `ForwardNatPass`.
//! - UDP checksum 0 stays 0; a computed 0 becomes 0xffff (RFC 768).
//! - `Forward*` and `Reply*` count in `FRONTEND_TRAFFIC` and `BACKEND_TRAFFIC`; nothing else does (but `new_flows` counts
//!   records).
//!
//! # From a backend (XDP: the destination is not in `FRONTENDS`; TC egress: the source is in `ADDR_FILTER`)
//! - The entry of `REPLY_INDEX` for `tuple(seed + REPLY_SEED, source, destination, source port, destination port, proto)`,
//!   whose record is live, good and has the same source, port, backend address, backend port and protocol. None: at XDP
//!   `PassNoFrontend` if the destination is in `VIPS` (or `HandOver`, see below), else `PassNotOurs`; at TC nothing is counted.
//! - XDP: TTL ≤ 1: `PassTtl`. Source becomes the frontend's address and port, destination the client's; then as above:
//!   `ReplyNat`, `ReplyNatPass`, `PacketTooBig`. TC, for a flow in `local`: the same rewrite without TTL and next hop:
//!   `ReplyLocal`.
//!
//! # ICMP
//! - Destination not in `VIPS` (the agent puts VIPs and SNAT addresses there): `PassNotOurs`.
//! - Echo request (8 or 128, code 0), flag `ECHO`: addresses and MACs swapped, TTL 64, tags kept: `Echo`, TX.
//! - Errors (3, 11, 12; ICMPv6 1 to 4), in this order where several hold: a quoted fixed header cut short: `PassMalformed`;
//!   another version than the outer one: `PassIcmpUnrelated`; a quoted IHL below 5: `PassMalformed`; a quoted fragment offset,
//!   or a protocol (IPv6: next header) other than TCP and UDP: `PassIcmpUnrelated`; less than the quoted header, options
//!   included, and 8 bytes: `PassMalformed`; a quoted source other than the outer destination: `PassIcmpUnrelated`.
//!   Packet-too-big below [`MTU_MIN_V4`] or [`MTU_MIN_V6`]: `PassPtbTooSmall`.
//! - The quoted source is a frontend: the quoted packet is our reply to a client. Its flow's record (own and good, as above,
//!   with the quoted destination as client) gives: quoted source becomes the backend, quoted destination the record's source
//!   and port, outer destination the backend, outer source in `nat` the record's source (`local`: kept, PASS, TTL as it came):
//!   `IcmpForward`. An `L7` frontend: `PassL7`.
//! - Else it is a packet of ours to a backend: the entry in `REPLY_INDEX` gives: quoted source becomes the client, quoted
//!   destination the frontend, outer destination the client, outer source the frontend's address: `IcmpReply`.
//! - No record: `PassIcmpUnrelated`. The quoted IPv4 header checksum and, if it is quoted, the TCP or UDP checksum are updated
//!   too. TTL ≤ 1: `PassTtl`; in `nat` it is decremented and the packet goes out as above; where that cannot be, it is passed
//!   rewritten, under the same verdict. `seen` and states stay.
//! - All else: `PassProtocol`.
//!
//! # Who answers for a VIP
//! The kernel does, wherever the address is on an interface, also when the agent that put it there is dead or stuck. So that no two
//! nodes answer, the program keeps from the kernel what asks for an address that another node holds. It makes no answers.
//! - An address is held *elsewhere* if its router (`Vip::router`, not 0) has an `elsewhere_until` in the future, or is `BACKUP` while
//!   the heartbeat is fresh. The heartbeat is *fresh* for `fresh_for` from `at` on.
//! - An ARP request (RFC 826; Ethernet, IPv4) whose target is held elsewhere: `DropElsewhere`. All other ARP: `PassEtherType`.
//! - A neighbour solicitation (RFC 4861 §4.3; 24 bytes at least, code 0) whose target is held elsewhere, to whatever address:
//!   `DropElsewhere`. Another to a group: `PassNotOurs`; to a VIP: as said under ICMP.
//! - An advert of VRRP (protocol 112): version 2 (IPv4) or 3, type 1, TTL or hop limit 255, a VRID and an interval that are not 0, at least
//!   one address, and as long as its count says; one of its first [`ADVERT_ADDRESSES`] addresses is in `VIPS` with this very
//!   router. So another router of the same VRID, with other addresses, is nobody of ours. While the heartbeat is fresh and the role is not
//!   `UNKNOWN` it is the agent's business. Else `elsewhere_until` becomes [`ADVERTS_MISSED`] of its intervals, but not less than [`FENCE_LEAST`], from now (note `Fenced`, unless it was
//!   in the future), and so does `other_until`, with the sender's MAC in `other`, and `hand_over_until` if it is less. A priority of 0 says that the node leaves: at most one interval remains then, in which whoever follows will speak.
//!   Checksums are not verified here either. Every advert passes, as `PassNotOurs` where it came to a group's address.
//! - All else to a group: `PassNotOurs`.
//!
//! Packets *for* a VIP are forwarded all the same: they come from clients who have not yet heard of the move.
//!
//! # Whose connection it is
//! Connections that end in a proxy stay where they are when their VIP moves between living nodes; and a node whose agent is silent must
//! not reset those of the node that took over. At L4 a backend may answer one node what the other forwarded: neighbours do not
//! hear of a move all in the same moment, and young flows are not shared: for some seconds after the move, until they were, a client's
//! packet of one goes to the node that chose its endpoint and port. So a packet that this node does not know is sent on to the other one, by the LAN that both share for their adverts: out by
//! the ingress interface, tags and all above Ethernet as it came but for the TTL, from the MAC that it came to and to `Router::other`.
//! `HandOver`, TX, where all of this holds (and the client is not dropped, see above):
//! - `Heartbeat::hand_over_until` is not 0, and the `other_until` of the VIP's router (not 0) is in the future;
//! - it is TCP for an `L7` frontend without SYN; or TCP for another frontend, that is not SYN without ACK and has no record of its own here, while `flows_known` milliseconds before
//!   `other_until` are in the future as well; or, as long, an answer whose record is `CLOSING` since [`CLOSING_REUSE`] ticks or more, and may have given its port up; or, for a VIP and no frontend, an answer without a record (above) that is no TCP with SYN and without ACK: what opens a connection opens it here;
//! - it did not come from the MAC in `other`: what that node does not know either is nobody's, and goes to this kernel;
//! - TTL or hop limit above 1. It is decremented, so that nodes that name each other in a ring come to an end;
//! - no socket of this node has the connection, or takes the datagram. A request for a connection counts (`TCP_NEW_SYN_RECV`). `TIME_WAIT`
//!   does not: the client's port was free again when this node had ended the connection, and is in use for one to the other node as soon as not. Nor does a listener, unless the packet brings a SYN cookie of it.
//!
//! The other node needs no rule of its own: its kernel has the socket, or it has the flow, and answers. The node that gave the VIP up goes by
//! the same rules, so that what still comes to it is not lost, and a second move while the first is under way breaks nothing.

use crate::{IPPROTO_UDP, flow_state, meta};

pub const VLAN_TAGS: usize = 2;
pub const IPV6_EXTENSIONS: usize = 4;
/// Source ports tried for a new flow.
pub const PORT_PROBES: u32 = 16;

/// Ticks (of 1 to 2 seconds) without a packet after which a TCP flow is dead, by state.
pub const DEAD_NEW: u32 = 60;
pub const DEAD_REPLIED: u32 = 60;
/// About two hours and a quarter, as conntrack-based balancers have it.
pub const DEAD_ESTABLISHED: u32 = 8000;
/// `TIME_WAIT` of the usual backend.
pub const DEAD_CLOSING: u32 = 60;
/// A closing flow's port may be used again this early if there is no other.
pub const CLOSING_REUSE: u32 = 2;

/// Eviction tells idle flows apart by this many ticks, a power of two. Of flows that are about equally old it so takes the one
/// whose record is on its way from memory already; to take another for a second's difference costs 30 ns in each insertion.
pub const IDLE_UNIT: u32 = 4;

/// The kernel's answer about a next hop is kept for at most two units of 2^-4 of a tick: a quarter of a second.
pub const HOP_AGE: u32 = 4;

/// Adverts that may be lost before a node that held addresses counts as gone. RFC 9568 §6.1 waits for three and a part of a fourth.
pub const ADVERTS_MISSED: u64 = 4;
/// So long the fence stands at least (nanoseconds), however short the intervals: the other node's thread may be late by more than a few of
/// them on a busy machine, and two answers are worse than a second without one where that node dies while this one's agent is dead.
pub const FENCE_LEAST: u64 = 1_000_000_000;
/// Addresses of an advert that are looked at. In IPv6 the first is link-local and no VIP.
pub const ADVERT_ADDRESSES: usize = 8;
pub const IPPROTO_VRRP: u8 = 112;

/// Bytes of the original that a packet-too-big error quotes: the longest IPv4 header and 8 bytes; an IPv6 header with room for
/// extension headers.
pub const QUOTE_V4: usize = 68;
pub const QUOTE_V6: usize = 256;
/// RFC 791: every host forwards 68 bytes.
pub const MTU_MIN_V4: u16 = 68;
/// RFC 8201 §4: smaller reports are discarded.
pub const MTU_MIN_V6: u32 = 1280;

/// The limits of the four states, each in 16 bits at its number: a shift is quicker than the branches of a `match`, and eviction
/// asks eight times.
const DEAD: u64 = {
    let mut all = (DEAD_NEW as u64) << (16 * flow_state::NEW);
    all |= (DEAD_REPLIED as u64) << (16 * flow_state::REPLIED);
    all |= (DEAD_ESTABLISHED as u64) << (16 * flow_state::ESTABLISHED);
    all | (DEAD_CLOSING as u64) << (16 * flow_state::CLOSING)
};

/// Whether a flow with this [`meta`] word may be forgotten at `now` (ticks).
#[inline(always)]
pub const fn dead(word: u32, now: u32, udp_idle: u32) -> bool {
    let limit = (DEAD >> (16 * (meta::state(word) & 3))) as u32 & 0xffff;
    meta::age(word, now) > if meta::proto(word) == IPPROTO_UDP { udp_idle } else { limit }
}

/// What eviction takes first: the lowest. A flood of new flows recycles its own records before it touches an established one.
/// `CLOSING` 0, `NEW` 1, `REPLIED` 2, `ESTABLISHED` 3.
#[inline(always)]
pub const fn flow_rank(word: u32) -> u32 {
    (meta::state(word) as u32 + 1) & 3
}
const _: () = assert!(flow_state::NEW == 0 && flow_state::REPLIED == 1);
const _: () = assert!(flow_state::ESTABLISHED == 2 && flow_state::CLOSING == 3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IPPROTO_TCP;

    #[test]
    fn a_packet_after_the_clock_was_read_makes_no_flow_old() {
        for (seen, now) in [(7, 6), (0, u32::MAX), (0x1_0000, 0xffff), (0x1234_00ff, 0x1234_0000)] {
            for (proto, state) in [(IPPROTO_TCP, flow_state::NEW), (IPPROTO_UDP, flow_state::ESTABLISHED)] {
                let word = meta::new(seen, state, proto);
                assert_eq!((meta::age(word, now), dead(word, now, 30)), (0, false), "seen at {seen}, now {now}");
            }
        }
        let silent = meta::new(10, flow_state::ESTABLISHED, IPPROTO_TCP);
        assert!(!dead(silent, 10 + DEAD_ESTABLISHED, 30) && dead(silent, 11 + DEAD_ESTABLISHED, 30));
    }
}
