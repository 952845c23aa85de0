//! Whose connection it is: after a planned move of a VIP, what belongs to connections of the proxy that no socket here knows goes on to the
//! node that held the VIP before. Only while that is going on, and never on the way of L4: global functions, as in `fence`.

use aya_ebpf::bindings::xdp_md;
use xdp_ebpf::verdict::Verdict;

use crate::family::{Family, V4, V6};
use crate::maps;
use crate::packet::{Buffer, Frame, Window};
use crate::segment::Segment;
use crate::{fence, verdict};

/// Whether any VIP is being handed over to this node.
#[inline(always)]
pub fn is_under_way() -> bool {
    maps::heartbeat().is_some_and(|heartbeat| heartbeat.hand_over_until.load() != 0)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_hand_over_v4(ctx: *mut xdp_md) -> u32 {
    let known = |frame: Frame, ip: Window<20>, tcp: Window<20>| {
        frame.has_socket(&[ip.u32::<12>(), ip.u32::<16>(), tcp.u32::<0>()], ip, tcp)
    };
    pass_on::<V4>(Frame::new(ctx), known).unwrap_or_else(verdict::pass)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_hand_over_v6(ctx: *mut xdp_md) -> u32 {
    let known = |frame: Frame, ip: Window<40>, tcp: Window<20>| {
        let [a, b, c, d] = [ip.u64::<8>(), ip.u64::<16>(), ip.u64::<24>(), ip.u64::<32>()];
        frame.has_socket(&Tuple6 { addresses: [a, b, c, d], ports: tcp.u32::<0>() }, ip, tcp)
    };
    pass_on::<V6>(Frame::new(ctx), known).unwrap_or_else(verdict::pass)
}

/// The part of `struct bpf_sock_tuple` for IPv6: source, destination, ports.
#[repr(C, packed(4))]
struct Tuple6 {
    addresses: [u64; 4],
    ports: u32,
}

/// `known`: whether a socket of this host has the connection.
#[inline(always)]
fn pass_on<F: Family>(frame: Frame, known: impl Fn(Frame, F::Header, Window<20>) -> bool) -> Result<u32, Verdict> {
    let ip = fence::header::<F>(frame)?;
    let payload = F::payload(frame, ip)?;
    let segment = Segment::<F>::parse(frame, ip, &payload)?.ok_or(Verdict::PassL7)?;
    let eth = frame.window::<14>(frame.start()).ok_or(Verdict::PassMalformed)?;
    let id = maps::router_of(segment.dst);
    let router = maps::router(id).filter(|_| id != 0).ok_or(Verdict::PassL7)?;
    if maps::nanoseconds() >= router.previous_until.load() {
        return Err(Verdict::PassL7);
    }
    let previous = router.previous.load();
    let (first, last) = (previous as u32, (previous >> 32) as u16);
    if eth.u32::<6>() == first && eth.u16::<10>() == last || F::ttl(ip) <= 1 {
        return Err(Verdict::PassL7);
    }
    // The socket look-up takes the header where its bounds are known.
    let tcp = frame.window::<20>(payload.at).ok_or(Verdict::PassMalformed)?;
    if known(frame, ip, tcp) {
        return Err(Verdict::PassL7);
    }
    leave(eth, first, last);
    F::rewrite(ip, segment.src, segment.dst, Some(F::ttl(ip) - 1));
    Ok(verdict::tx(Verdict::HandOver))
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
