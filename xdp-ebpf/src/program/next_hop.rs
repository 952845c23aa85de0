//! Where a rewritten packet goes: the kernel's routes and neighbours tell, the packet leaves without the kernel touching it.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams, xdp_action, xdp_md,
};
use xdp_ebpf::verdict::Verdict;

use crate::family::Family;
use crate::maps::{self, Address};
use crate::packet::{Buffer, Frame, Window};
use crate::verdict;

/// The kernel's `struct bpf_fib_lookup`, flat.
#[repr(C)]
#[derive(Default)]
pub struct Fib {
    pub family: u8,
    pub proto: u8,
    pub sport: u16,
    pub dport: u16,
    /// In: length for the check against the next hop's MTU. Out: that MTU.
    pub len: u16,
    /// In: ingress. Out: egress.
    pub ifindex: u32,
    /// IPv4: type of service in the first byte. IPv6: flow information.
    pub class: u32,
    /// IPv4 in the first four bytes.
    pub src: [u64; 2],
    pub dst: [u64; 2],
    vlan: u32,
    /// Source MAC, then destination MAC.
    macs: [u16; 6],
}
const _: () = assert!(size_of::<Fib>() == size_of::<FibParams>() && size_of::<Fib>() == 64);

impl Fib {
    /// Ports as they will lie in the packet.
    #[inline(always)]
    pub fn new(proto: u8, sport: u16, dport: u16) -> Self {
        Self { proto, sport, dport, ..Self::default() }
    }
}

#[derive(Clone, Copy)]
pub enum Hop {
    /// [`leave`] may send it.
    Found,
    /// The kernel knows what to do: unresolved neighbour, local or no route, forwarding off.
    Kernel,
    /// Longer than this MTU.
    TooBig(u16),
}

/// Asks for the way of a packet with header `ip` after its rewrite.
#[inline(always)]
pub fn find<F: Family>(frame: Frame, ip: F::Header, fib: &mut Fib, src: Address, dst: Address) -> Hop {
    F::ask(ip, fib, src, dst);
    fib.ifindex = frame.ingress();
    fib.len = F::total(ip) as u16;
    match frame.fib_lookup(fib) {
        rc if rc == i64::from(BPF_FIB_LKUP_RET_SUCCESS) => Hop::Found,
        rc if rc == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) => Hop::TooBig(fib.len),
        _ => Hop::Kernel,
    }
}

/// Sends the packet to the hop found, without its VLAN tags: the route named a device, and a tag belongs to the one that it came by.
/// `None` where the device takes no redirected packets; nothing was touched then.
#[inline(always)]
pub fn leave(frame: Frame, eth: Window<14>, tags: u32, fib: &Fib) -> Option<u32> {
    let action = if fib.ifindex == frame.ingress() {
        xdp_action::XDP_TX
    } else {
        let action = maps::redirect(fib.ifindex);
        if action != xdp_action::XDP_REDIRECT {
            return None;
        }
        action
    };
    if tags != 0 {
        return Some(untag(frame.ctx(), tags, fib, action));
    }
    address(eth, fib);
    Some(action)
}

#[inline(always)]
fn address(eth: Window<14>, fib: &Fib) {
    eth.set_u16::<0>(fib.macs[3]);
    eth.set_u16::<2>(fib.macs[4]);
    eth.set_u16::<4>(fib.macs[5]);
    eth.set_u16::<6>(fib.macs[0]);
    eth.set_u16::<8>(fib.macs[1]);
    eth.set_u16::<10>(fib.macs[2]);
}

#[inline(never)]
fn untag(ctx: *mut xdp_md, tags: u32, fib: &Fib, action: u32) -> u32 {
    let frame = Frame::new(ctx);
    if !frame.adjust_head(if tags == 1 { 4 } else { 8 }) {
        return verdict::drop(Verdict::DropInternal);
    }
    let Some(eth) = frame.window::<14>(frame.start()) else { return verdict::drop(Verdict::DropInternal) };
    address(eth, fib);
    eth.set_u16::<12>(if fib.family == 2 { 0x0800u16 } else { 0x86dd }.to_be());
    action
}
