//! Where a rewritten packet goes: the kernel's routes and neighbours tell, the packet leaves without the kernel touching it. What
//! the kernel said is kept for [`HOP_AGE`](xdp_ebpf::rules::HOP_AGE): asking it costs more than all else together.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams, xdp_action, xdp_md,
};
use xdp_ebpf::rules::HOP_AGE;
use xdp_ebpf::verdict::Verdict;

use crate::family::Family;
use crate::maps::{self, Address};
use crate::packet::{Buffer, Frame, Window};
use crate::verdict;

/// The kernel's `struct bpf_fib_lookup`, flat.
#[repr(C)]
pub struct Fib {
    pub family: u8,
    proto: u8,
    sport: u16,
    dport: u16,
    /// In: length for the check against the next hop's MTU. Out: that MTU.
    len: u16,
    /// In: ingress. Out: egress.
    ifindex: u32,
    /// IPv4: type of service in the first byte. IPv6: flow information.
    pub class: u32,
    /// IPv4 in the first four bytes.
    pub src: [u64; 2],
    pub dst: [u64; 2],
    vlan: u32,
    macs: Macs,
}
const _: () = assert!(size_of::<Fib>() == size_of::<FibParams>() && size_of::<Fib>() == 64);

/// Source MAC, then destination MAC. Words of their own and copied one by one: of a copied array LLVM 22 loses the end here (it
/// splits the block in the midst of the copy).
#[repr(C)]
pub struct Macs {
    first: u32,
    middle: u32,
    last: u32,
}

/// The kernel's last answer to a question, in one cache line of this CPU's.
#[repr(C, align(64))]
pub struct Kept {
    src: Address,
    dst: Address,
    macs: Macs,
    ingress: u32,
    egress: u32,
    /// Time of the answer in units of [`HOP_AGE`]; 0 is none.
    stamp: u32,
    mtu: u16,
    port: u16,
    proto: u8,
    path: u8,
    v4: bool,
    pad: u8,
}
const _: () = assert!(size_of::<Kept>() == 64);

/// Entries of [`Kept`] on each CPU.
pub const KEPT: u32 = 4096;

/// What the way of a packet depends on.
pub struct Question {
    pub src: Address,
    pub dst: Address,
    pub proto: u8,
    /// The port on the server's side, as it lies in the packet; rules may name it.
    pub port: u16,
    /// Whether that is the destination port.
    pub to_server: bool,
    /// The client's side: two bits of it choose among equal paths.
    pub client_port: u16,
}

#[derive(Clone, Copy)]
pub enum Hop {
    /// [`leave`] may send it.
    Found(&'static Kept),
    /// The kernel knows what to do: unresolved neighbour, local or no route, forwarding off.
    Kernel,
    /// Longer than this MTU.
    TooBig(u16),
}

/// The way of a packet with header `ip` after its rewrite.
#[inline(always)]
pub fn find<F: Family>(frame: Frame, ip: F::Header, jiffies: u64, tick_shift: u32, q: &Question) -> Hop {
    let path = (u16::from_be(q.client_port) & 3) as u8;
    let at = F::bit(q.dst) ^ u32::from(q.port) ^ u32::from(path) << 4;
    let Some(kept) = maps::kept(at & (KEPT - 1)) else { return Hop::Kernel };
    // Odd, so that it is never the 0 of an empty entry.
    let stamp = (jiffies >> (tick_shift.saturating_sub(HOP_AGE) & 31)) as u32 | 1;
    let class = F::class(ip);
    let fresh = kept.stamp == stamp
        && class == 0
        && kept.dst == q.dst
        && kept.src == q.src
        && kept.ingress == frame.ingress()
        && kept.port == q.port
        && kept.proto == q.proto
        && kept.path == path;
    if !fresh {
        let Some(fib) = maps::fib() else { return Hop::Kernel };
        let port = u16::from(path).to_be();
        // The rest is for answers.
        fib.proto = q.proto;
        fib.sport = if q.to_server { port } else { q.port };
        fib.dport = if q.to_server { q.port } else { port };
        fib.len = 0;
        fib.ifindex = frame.ingress();
        fib.class = class;
        F::ask(fib, q.src, q.dst);
        let rc = frame.fib_lookup(fib);
        if rc == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
            return Hop::TooBig(fib.len);
        }
        if rc != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            kept.stamp = 0;
            return Hop::Kernel;
        }
        kept.src = q.src;
        kept.dst = q.dst;
        kept.macs.first = fib.macs.first;
        kept.macs.middle = fib.macs.middle;
        kept.macs.last = fib.macs.last;
        kept.ingress = frame.ingress();
        kept.egress = fib.ifindex;
        // An answer for a class of traffic is not kept.
        kept.stamp = if class == 0 { stamp } else { 0 };
        kept.mtu = fib.len;
        kept.port = q.port;
        kept.proto = q.proto;
        kept.path = path;
        kept.v4 = F::V4;
    }
    if F::total(ip) > u32::from(kept.mtu) { Hop::TooBig(kept.mtu) } else { Hop::Found(kept) }
}

/// Sends the packet to the hop found, without its VLAN tags: the route named a device, and a tag belongs to the one that it came by.
/// `None` where the device takes no redirected packets; nothing was touched then.
#[inline(always)]
pub fn leave(frame: Frame, eth: Window<14>, tags: u32, hop: &Kept) -> Option<u32> {
    let action = if hop.egress == frame.ingress() {
        xdp_action::XDP_TX
    } else {
        let action = maps::redirect(hop.egress);
        if action != xdp_action::XDP_REDIRECT {
            return None;
        }
        action
    };
    if tags != 0 {
        return Some(untag(frame.ctx(), tags, hop, action));
    }
    address(eth, hop);
    Some(action)
}

#[inline(always)]
fn address(eth: Window<14>, hop: &Kept) {
    let [a, b, c, d] = hop.macs.middle.to_ne_bytes();
    eth.set_u16::<0>(u16::from_ne_bytes([c, d]));
    eth.set_u32::<2>(hop.macs.last);
    eth.set_u32::<6>(hop.macs.first);
    eth.set_u16::<10>(u16::from_ne_bytes([a, b]));
}

#[inline(never)]
fn untag(ctx: *mut xdp_md, tags: u32, hop: &Kept, action: u32) -> u32 {
    let frame = Frame::new(ctx);
    if !frame.adjust_head(if tags == 1 { 4 } else { 8 }) {
        return verdict::drop(Verdict::DropInternal);
    }
    let Some(eth) = frame.window::<14>(frame.start()) else { return verdict::drop(Verdict::DropInternal) };
    address(eth, hop);
    eth.set_u16::<12>(if hop.v4 { 0x0800u16 } else { 0x86dd }.to_be());
    action
}
