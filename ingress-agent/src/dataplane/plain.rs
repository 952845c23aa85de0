//! Which types may be copied between this process and a BPF map as bytes. The only place that vouches for the ABI's layout; it
//! must never list a type with padding, a pointer or an invalid bit pattern.

use xdp_ebpf::affinity::{Affinity, AffinityKey};
use xdp_ebpf::{
    Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Heartbeat, Pool, ReplyBucket, Router,
    Traffic, Vip,
};

/// A type without padding for which every bit pattern is a value.
///
/// # Safety
/// Both claims must hold: the type is read from memory that BPF programs write.
pub(super) unsafe trait Plain: Copy + Send + 'static {}

macro_rules! plain {
    ($($t:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` of integers and byte arrays with explicit padding; xdp-ebpf asserts the size of each.
            unsafe impl Plain for $t {}
        )+
    };
}

plain!(u32, u64, [u8; 16], Backend, Config, Flow, FlowBucket, Frontend, FrontendInfo, FrontendKey, Pool);
plain!(Affinity, AffinityKey, Heartbeat, ReplyBucket, Router, Traffic, Vip);

/// A key or value of the ABI, as aya wants it: neither its trait nor the ABI's types are this crate's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Abi<T: Plain>(pub(super) T);

// SAFETY: transparent over a `Plain` type, which promises what `Pod` asks.
unsafe impl<T: Plain> aya::Pod for Abi<T> {}
