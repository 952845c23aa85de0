//! The ABI's part about who answers for a VIP: virtual routers, and the sign of life of the agent's election. By the conventions of the
//! library's page; what the program makes of it is in `rules`.

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
    /// Explicit, so that the struct has no hidden bytes.
    pub pad: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds: until then another node holds its addresses, as far as the program has seen while the agent
    /// was silent. 0: none was seen. The agent stores 0 when it takes the addresses.
    pub elsewhere_until: u64,
}
const _: () = assert!(size_of::<Router>() == 16);

pub mod router_role {
    /// The agent has not said.
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
}
const _: () = assert!(size_of::<Heartbeat>() == 16);
