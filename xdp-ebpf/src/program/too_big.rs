//! Packet-too-big errors towards whoever sent the packet, with our address as source (RFC 792, RFC 4443 §3.2). Not inlined.

use aya_ebpf::bindings::xdp_md;
use xdp_ebpf::checksum::{diff, fold};
use xdp_ebpf::rules::{QUOTE_V4, QUOTE_V6};
use xdp_ebpf::verdict::Verdict;

use crate::packet::{Buffer, Frame, Window, sum};
use crate::verdict;

const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// Turns the untouched IPv4 packet behind `tags` VLAN tags into an error that tells this MTU.
#[inline(never)]
pub fn v4(ctx: *mut xdp_md, tags: u32, mtu: u16) -> u32 {
    let frame = Frame::new(ctx);
    let Some(start) = shift::<HEADERS_V4, QUOTE_V4>(frame, tags) else { return verdict::drop(Verdict::DropInternal) };
    let Some(ip) = frame.window::<{ HEADERS_V4 + QUOTE_V4 }>(start) else {
        return verdict::drop(Verdict::DropInternal);
    };
    // The quoted header: version to destination.
    let (src, dst) = (ip.u32::<{ HEADERS_V4 + 12 }>(), ip.u32::<{ HEADERS_V4 + 16 }>());
    ip.set_u32::<0>(u32::from_ne_bytes([0x45, 0, 0, (HEADERS_V4 + QUOTE_V4) as u8]));
    ip.set_u32::<4>(0);
    ip.set_u32::<8>(u32::from_ne_bytes([64, 1, 0, 0]));
    ip.set_u32::<12>(dst);
    ip.set_u32::<16>(src);
    ip.set_u16::<10>(!fold(sum(ip.sub::<0, 20>())));
    // Type 3, code 4; the MTU is in the last two bytes (RFC 1191 §4).
    let [a, b] = mtu.to_be_bytes();
    ip.set_u32::<20>(u32::from_ne_bytes([3, 4, 0, 0]));
    ip.set_u32::<24>(u32::from_ne_bytes([0, 0, a, b]));
    ip.set_u16::<22>(!fold(sum(ip.sub::<20, { 8 + QUOTE_V4 }>())));
    verdict::tx(Verdict::PacketTooBig)
}

/// The same for IPv6.
#[inline(never)]
pub fn v6(ctx: *mut xdp_md, tags: u32, mtu: u16) -> u32 {
    let frame = Frame::new(ctx);
    let Some(start) = shift::<HEADERS_V6, QUOTE_V6>(frame, tags) else { return verdict::drop(Verdict::DropInternal) };
    let Some(ip) = frame.window::<{ HEADERS_V6 + QUOTE_V6 }>(start) else {
        return verdict::drop(Verdict::DropInternal);
    };
    let src = (ip.u64::<{ HEADERS_V6 + 8 }>(), ip.u64::<{ HEADERS_V6 + 16 }>());
    let dst = (ip.u64::<{ HEADERS_V6 + 24 }>(), ip.u64::<{ HEADERS_V6 + 32 }>());
    let [high, low] = ((8 + QUOTE_V6) as u16).to_be_bytes();
    ip.set_u32::<0>(u32::from_ne_bytes([0x60, 0, 0, 0]));
    ip.set_u32::<4>(u32::from_ne_bytes([high, low, 58, 64]));
    ip.set_u64::<8>(dst.0);
    ip.set_u64::<16>(dst.1);
    ip.set_u64::<24>(src.0);
    ip.set_u64::<32>(src.1);
    // Type 2, code 0, the MTU in 32 bits.
    ip.set_u32::<40>(u32::from_ne_bytes([2, 0, 0, 0]));
    ip.set_u32::<44>(u32::from(mtu).to_be());
    // RFC 8200 §8.1: addresses, length and next header count as well.
    let pseudo =
        sum(ip.sub::<8, 32>()) + diff(u32::MAX, ((8 + QUOTE_V6) as u32).to_be()) + diff(u32::MAX, 58u32.to_be());
    ip.set_u16::<42>(!fold(sum(ip.sub::<40, { 8 + QUOTE_V6 }>()) + pseudo));
    verdict::tx(Verdict::PacketTooBig)
}

/// Makes room for `HEADERS` bytes before the IP header, cuts the packet behind `QUOTE` bytes of it, and moves the Ethernet
/// header to the new start with its addresses swapped. Returns where the new IP header goes.
#[inline(always)]
fn shift<const HEADERS: usize, const QUOTE: usize>(frame: Frame, tags: u32) -> Option<crate::packet::Cursor> {
    let l2 = 14 + 4 * tags;
    let keep = l2 as i64 + QUOTE as i64;
    if !frame.adjust_tail((keep - frame.whole() as i64) as i32) || !frame.adjust_head(-(HEADERS as i32)) {
        return None;
    }
    // Ethernet, its tags, and their former place further on.
    let new: Window<22> = frame.window(frame.start())?;
    let old: Window<22> = frame.window(frame.start().plus(HEADERS))?;
    let (to, to_end) = (old.u32::<0>(), old.u16::<4>());
    let (from, from_end) = (old.u32::<6>(), old.u16::<10>());
    let (kind, tail) = (old.u16::<12>(), old.u64::<14>());
    new.set_u32::<0>(from);
    new.set_u16::<4>(from_end);
    new.set_u32::<6>(to);
    new.set_u16::<10>(to_end);
    new.set_u16::<12>(kind);
    if tags != 0 {
        new.set_u64::<14>(tail);
    }
    Some(match tags {
        0 => frame.start().plus(14),
        1 => frame.start().plus(18),
        _ => frame.start().plus(22),
    })
}
