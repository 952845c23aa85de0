//! Whose connection it is: while a VIP moves between two nodes, what belongs to connections that this one does not know goes on to the
//! other. Global functions, as in `fence`, off the way of packets that are known.

use aya_ebpf::bindings::xdp_md;
use xdp_ebpf::IPPROTO_TCP;
use xdp_ebpf::verdict::Verdict;

use crate::family::{Family, V4, V6};
use crate::maps;
use crate::packet::{Buffer, Frame, Window};
use crate::segment::Segment;
use crate::{fence, verdict};

/// What the global functions return where the packet stays. None is `XDP_ABORTED`.
const STAYS: u32 = 0;

/// Whether any VIP is being handed over to this node.
#[inline(always)]
fn is_under_way() -> bool {
    maps::heartbeat().is_some_and(|heartbeat| heartbeat.hand_over_until.load() != 0)
}

/// The action that sent the packet to the other node, if it is that one's. Only one question where no hand-over is under way. `flow`: it is a
/// client's packet of a flow, of which the other node is to tell this one.
#[inline(always)]
pub fn send_on<F: Family>(frame: Frame, flow: bool) -> Option<u32> {
    if !is_under_way() {
        return None;
    }
    let (ctx, flow) = (frame.ctx(), u32::from(flow));
    let action = if F::V4 { sluicegate_hand_over_v4(ctx, flow) } else { sluicegate_hand_over_v6(ctx, flow) };
    (action != STAYS).then_some(action)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_hand_over_v4(ctx: *mut xdp_md, flow: u32) -> u32 {
    let known = |frame: Frame, ip: Window<20>, l4: Window<8>, tcp: Option<Window<20>>| {
        frame.has_socket(&[ip.u32::<12>(), ip.u32::<16>(), l4.u32::<0>()], ip, tcp)
    };
    to_other::<V4>(Frame::new(ctx), flow, known).unwrap_or(STAYS)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_hand_over_v6(ctx: *mut xdp_md, flow: u32) -> u32 {
    let known = |frame: Frame, ip: Window<40>, l4: Window<8>, tcp: Option<Window<20>>| {
        let [a, b, c, d] = [ip.u64::<8>(), ip.u64::<16>(), ip.u64::<24>(), ip.u64::<32>()];
        frame.has_socket(&Tuple6 { addresses: [a, b, c, d], ports: l4.u32::<0>() }, ip, tcp)
    };
    to_other::<V6>(Frame::new(ctx), flow, known).unwrap_or(STAYS)
}

/// The part of `struct bpf_sock_tuple` for IPv6: source, destination, ports.
#[repr(C, packed(4))]
struct Tuple6 {
    addresses: [u64; 4],
    ports: u32,
}

/// `known`: whether a socket of this host has the connection; the last argument is the header if it is TCP.
#[inline(always)]
fn to_other<F: Family>(
    frame: Frame,
    flow: u32,
    known: impl Fn(Frame, F::Header, Window<8>, Option<Window<20>>) -> bool,
) -> Option<u32> {
    let ip = fence::header::<F>(frame).ok()?;
    let payload = F::payload(frame, ip).ok()?;
    let segment = Segment::<F>::parse(frame, ip, &payload).ok()??;
    let eth = frame.window::<14>(frame.start())?;
    let id = maps::router_of(segment.dst);
    let router = maps::router(id).filter(|_| id != 0)?;
    let early = if flow == 0 { 0 } else { u64::from(router.flows_known.load()) * 1_000_000 };
    if maps::nanoseconds() + early >= router.other_until.load() {
        return None;
    }
    let other = router.other.load();
    let (first, last) = (other as u32, (other >> 32) as u16);
    if eth.u32::<6>() == first && eth.u16::<10>() == last || F::ttl(ip) <= 1 {
        return None;
    }
    // The socket look-up takes the header where its bounds are known.
    let tcp = if payload.proto == IPPROTO_TCP { Some(frame.window::<20>(payload.at)?) } else { None };
    if known(frame, ip, segment.l4, tcp) {
        return None;
    }
    leave(eth, first, last);
    F::rewrite(ip, segment.src, segment.dst, Some(F::ttl(ip) - 1));
    Some(verdict::tx(Verdict::HandOver))
}

/// From the address that it came to, to the given one, whose bytes lie in the words as in a frame.
#[inline(always)]
fn leave(eth: Window<14>, first: u32, last: u16) {
    let own = (eth.u32::<0>(), eth.u16::<4>());
    eth.set_u32::<6>(own.0);
    eth.set_u16::<10>(own.1);
    eth.set_u32::<0>(first);
    eth.set_u16::<4>(last);
}
