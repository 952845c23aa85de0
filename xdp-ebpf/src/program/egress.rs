//! TC egress: the answers of `local` backends get the VIP as source. Whatever else leaves the node is left alone.

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_UDP, checksum, flow_state, forwarding};

use crate::family::Family;
use crate::flow::{self, Way};
use crate::maps;
use crate::packet::{Cursor, Skb};
use crate::segment::Segment;

/// The checksum covers a pseudo-header: `BPF_F_PSEUDO_HDR`.
const PSEUDO: u32 = 1 << 4;
/// A UDP checksum of 0 stays, a computed 0 becomes 0xffff: `BPF_F_MARK_MANGLED_0`.
const UDP_ZERO: u32 = 1 << 5;

/// Where the fields of a packet lie, from its start.
struct Places {
    ip: u32,
    l4: u32,
    check: u32,
}

#[inline(always)]
pub fn packet<F: Family>(skb: Skb, at: Cursor, tags: u32) {
    let Some(ip) = F::header(skb, at) else { return };
    if !maps::maybe_ours(F::bit(F::src(ip))) {
        return;
    }
    let Ok(payload) = F::payload(skb, ip) else { return };
    let Ok(Some(seg)) = Segment::<F>::parse(skb, ip, &payload) else { return };
    let Some(config) = maps::config() else { return };
    let found =
        flow::from_backend::<F>(config.seed, config.reply_mask, seg.src, seg.dst, seg.sport, seg.dport, seg.proto);
    let Some((place, way)) = found else { return };
    if way.forwarding != forwarding::LOCAL {
        return;
    }
    let now = (maps::jiffies() >> (config.tick_shift & 31)) as u32;
    let old = place.meta();
    place.touch(old, flow::next_meta(old, now, flow_state::NEW, flow_state::REPLIED, seg.last()));

    let bytes = u64::from(F::total(ip));
    let ip = 14 + 4 * tags;
    let l4 = ip + payload.offset;
    let check = l4 + if seg.proto == IPPROTO_UDP { 6 } else { 16 };
    if rewrite(skb, &seg, &way, &Places { ip, l4, check }) {
        maps::traffic(way.frontend, way.backend, |t| {
            t.tx_packets += 1;
            t.tx_bytes += bytes;
        });
        maps::count(Verdict::ReplyLocal);
    } else {
        maps::count(Verdict::DropInternal);
    }
}

/// By the kernel's helpers: they know about checksums that the device has yet to complete. The windows of `seg` are void after the
/// first of them, so that all is read before.
#[inline(always)]
fn rewrite<F: Family>(skb: Skb, seg: &Segment<F>, way: &Way, at: &Places) -> bool {
    let addresses = F::source_diff(seg.src, way.src);
    let ([a, b], [c, d]) = (way.sport.to_ne_bytes(), way.dport.to_ne_bytes());
    let ports = u32::from_ne_bytes([a, b, c, d]);
    let ports_diff = checksum::diff(seg.l4.u32::<0>(), ports);
    let flags = if seg.proto == IPPROTO_UDP { UDP_ZERO } else { 0 };
    skb.replace_l4(at.check, addresses, flags | PSEUDO)
        && skb.replace_l4(at.check, ports_diff, flags)
        && skb.store(at.l4, &ports)
        && F::store_source(skb, at.ip, seg.src, way.src)
}
