//! Bench only, never shipped: `BPF_PROG_TEST_RUN` repeats a program on the packet as it left it, so that a program that rewrites
//! would be measured on its own output. This one puts the packet back, gives it the next client, and calls the program under test.
#![no_std]
#![no_main]
#![expect(unreachable_pub, reason = "a program has no outside")]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::bench::{HEADER, Plan, client, place};

#[map]
static BENCH_PLAN: Array<Plan> = Array::with_max_entries(1, 0);
#[map]
static BENCH_UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Restores the packet and goes on to the program under test.
#[xdp(frags)]
pub fn bench_prepare(ctx: XdpContext) -> u32 {
    let Some(plan) = BENCH_PLAN.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the only entry of the map; the test runs on one CPU.
    let plan = unsafe { &mut *plan };
    let (data, end) = (ctx.data(), ctx.data_end());
    if end.wrapping_sub(data) != plan.len as usize || data + HEADER > end {
        return xdp_action::XDP_ABORTED;
    }
    for (i, word) in plan.header.iter().enumerate() {
        // SAFETY: within the `HEADER` bytes that were compared with the end; BPF stores need no alignment.
        unsafe { *((data + i * 8) as *mut u64) = *word };
    }
    let (add, port) = client(plan.flows, plan.runs);
    plan.runs += 1;
    let (address_at, port_at) = match plan.place {
        place::V4 => (28, 34),
        place::V6 => (36, 54),
        // What is measured has the same number of stores.
        _ => (76, 78),
    };
    for (at, value) in [(address_at, add), (port_at, port)] {
        let to = data + at;
        if to + 2 > end {
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: compared with the end just now.
        unsafe { *(to as *mut u16) = value.to_be() };
    }
    // SAFETY: returns only if the entry is empty; nothing of this frame is needed after it.
    let _ = unsafe { BENCH_UNDER_TEST.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// What the measured programs are compared with: it only answers.
#[xdp(frags)]
pub fn bench_base(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
