//! New addresses and ports for a packet, with every checksum kept right.

use xdp_ebpf::{IPPROTO_UDP, checksum};

use crate::family::Family;
use crate::flow::Way;
use crate::segment::Segment;

/// Rewrites a TCP or UDP packet; `ttl` is the new one, if it changes.
#[inline(always)]
pub fn segment<F: Family>(seg: &Segment<F>, way: &Way, ttl: Option<u8>) {
    let mut delta = F::rewrite(seg.ip, way.src, way.dst, ttl);
    let old = seg.l4.u32::<0>();
    let ([a, b], [c, d]) = (way.sport.to_ne_bytes(), way.dport.to_ne_bytes());
    let new = u32::from_ne_bytes([a, b, c, d]);
    delta += checksum::diff(old, new);
    seg.l4.set_u32::<0>(new);
    let check = seg.check.u16::<0>();
    if seg.proto != IPPROTO_UDP {
        seg.check.set_u16::<0>(checksum::apply(check, delta));
    } else if check != 0 {
        seg.check.set_u16::<0>(udp(checksum::apply(check, delta)));
    }
}

/// RFC 768: 0 says that there is no checksum, so a computed 0 is sent as its other form.
#[inline(always)]
pub fn udp(check: u16) -> u16 {
    if check == 0 { 0xffff } else { check }
}
