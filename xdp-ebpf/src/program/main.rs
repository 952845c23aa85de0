//! The packet programs: XDP on ingress, TC on egress. They never allocate, never loop without a bound and never drop a packet
//! because a fast path does not apply.
#![no_std]
#![no_main]
#![expect(unreachable_pub, reason = "a program has no outside; `pub` here means visible to its other files")]

mod maps;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// XDP on ingress of every attached interface.
#[xdp(frags)]
pub fn sluicegate_ingress(_ctx: XdpContext) -> u32 {
    maps::touch();
    xdp_action::XDP_PASS
}

/// TC (tcx) on egress of every attached interface.
#[classifier]
pub fn sluicegate_egress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
