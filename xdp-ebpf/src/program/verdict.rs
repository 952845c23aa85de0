//! Counting why a packet goes where it goes.

use aya_ebpf::bindings::xdp_action;
use xdp_ebpf::verdict::Verdict;

use crate::maps;

/// Leaves the packet to the kernel.
#[inline(always)]
pub fn pass(why: Verdict) -> u32 {
    maps::count(why);
    xdp_action::XDP_PASS
}

/// Sends the packet back out of the interface that it came in by.
#[inline(always)]
pub fn tx(why: Verdict) -> u32 {
    maps::count(why);
    xdp_action::XDP_TX
}

/// Only for packets that can go nowhere: passing them would do harm.
#[inline(always)]
pub fn drop(why: Verdict) -> u32 {
    maps::count(why);
    xdp_action::XDP_DROP
}
