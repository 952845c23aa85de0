//! The ABI's part about who answers for a VIP: virtual routers, who held or takes their addresses, and the sign of life of the agent's
//! election. By the conventions of the library's page; what the program makes of it is in `rules`.

/// Entries of `ROUTERS`: one for each VRID, of IPv4 and of IPv6. A VRID is at least 1, so that index 0 is nobody's.
pub const ROUTERS: u32 = 512;

/// Index into `ROUTERS`.
pub const fn router(vrid: u8, v6: bool) -> u32 {
    vrid as u32 | (v6 as u32) << 8
}

/// Value of `ROUTERS`: a virtual router (RFC 9568) of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// [`router_role`], by the agent.
    pub role: u32,
    /// So many milliseconds before `other_until` the time ends in which that node may have L4 flows of which it has not told this one.
    /// Stored before `other_until`.
    pub flows_known: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds: until then another node holds its addresses, as far as the program has seen while the agent
    /// was silent. 0: none was seen. The agent stores 0 when it takes the addresses.
    pub elsewhere_until: u64,
    /// The link-layer address ([`mac_word`]) of the node that gave the addresses to this one, or took them from it, by the agent; while
    /// the agent is silent, of the node that holds them now, by the program.
    pub other: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds: until then that node has connections that this one does not know. Stored after `other`; 0: none.
    pub other_until: u64,
}
const _: () = assert!(size_of::<Router>() == 32);

/// A link-layer address as one word: its six bytes as they lie in a frame, then zeros.
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}

pub mod router_role {
    /// The agent has not said, or has begun anew and does not know yet.
    pub const UNKNOWN: u32 = 0;
    /// This node holds the addresses.
    pub const ACTIVE: u32 = 1;
    /// Another does, as long as the agent is there to say so.
    pub const BACKUP: u32 = 2;
}

/// Value of `HEARTBEAT`: the sign of life of the agent's election.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// `CLOCK_MONOTONIC`, nanoseconds. 0: never.
    pub at: u64,
    /// For how many nanoseconds it counts.
    pub fresh_for: u64,
    /// The latest `other_until` of all routers, 0 when all are over: it spares every packet for the proxy the question.
    pub hand_over_until: u64,
}
const _: () = assert!(size_of::<Heartbeat>() == 24);
