//! TCP and UDP at XDP, in both directions, from the parsed packet to the action.

use aya_ebpf::bindings::xdp_action;
use xdp_ebpf::rules::CLOSING_REUSE;
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{flow_state, forwarding, meta};

use crate::family::Family;
use crate::flow::{self, Way};
use crate::next_hop::{self, Hop, Question};
use crate::packet::{Frame, Window};
use crate::segment::Segment;
use crate::{client, hand_over, maps, rewrite, too_big, verdict};

#[inline(always)]
pub fn segment<F: Family>(frame: Frame, eth: Window<14>, tags: u32, seg: &Segment<F>) -> u32 {
    let frontend = maps::frontend(seg.frontend());
    let reply = frontend.is_none();
    let way = match frontend {
        Some(frontend) => client::way(frame, seg, frontend),
        None => back(frame, seg),
    };
    let way = match way {
        Ok(way) => way,
        Err(action) => return action,
    };
    let bytes = u64::from(F::total(seg.ip));
    if !reply && way.forwarding == forwarding::LOCAL {
        rewrite::segment(seg, &way, None);
        maps::traffic(way.frontend, way.backend, |t| {
            t.rx_packets += 1;
            t.rx_bytes += bytes;
        });
        return verdict::pass(Verdict::ForwardLocal);
    }
    let Some(config) = maps::config() else { return verdict::drop(Verdict::DropInternal) };
    let (port, client_port) = if reply { (way.sport, way.dport) } else { (way.dport, way.sport) };
    let question = Question { src: way.src, dst: way.dst, proto: seg.proto, port, to_server: !reply, client_port };
    let hop = next_hop::find::<F>(frame, seg.ip, maps::jiffies(), config.tick_shift, &question);
    if let Hop::TooBig(mtu) = hop
        && F::dont_fragment(seg.ip)
        && F::total(seg.ip) <= frame.ingress_mtu()
    {
        return if F::V4 { too_big::v4(frame.ctx(), tags, mtu) } else { too_big::v6(frame.ctx(), tags, mtu) };
    }
    rewrite::segment(seg, &way, Some(F::ttl(seg.ip) - 1));
    maps::traffic(way.frontend, way.backend, |t| {
        if reply {
            t.tx_packets += 1;
            t.tx_bytes += bytes;
        } else {
            t.rx_packets += 1;
            t.rx_bytes += bytes;
        }
    });
    if let Hop::Found(hop) = hop
        && let Some(action) = next_hop::leave(frame, eth, tags, hop)
    {
        maps::count(if reply { Verdict::ReplyNat } else { Verdict::ForwardNat });
        return action;
    }
    maps::count(if reply { Verdict::ReplyNatPass } else { Verdict::ForwardNatPass });
    xdp_action::XDP_PASS
}

/// The way of a backend's answer to its client.
#[inline(always)]
fn back<F: Family>(frame: Frame, seg: &Segment<F>) -> Result<Way, u32> {
    let Some(config) = maps::config() else { return Err(verdict::drop(Verdict::DropInternal)) };
    let found =
        flow::from_backend::<F>(config.seed, config.reply_mask, seg.src, seg.dst, seg.sport, seg.dport, seg.proto);
    let Some((place, way)) = found else {
        if maps::vip(seg.dst).is_none() {
            return Err(verdict::pass(Verdict::PassNotOurs));
        }
        let sent_on = if seg.opens() { None } else { hand_over::send_on::<F>(frame, false) };
        return Err(sent_on.unwrap_or_else(|| verdict::pass(Verdict::PassNoFrontend)));
    };
    if F::ttl(seg.ip) <= 1 {
        return Err(verdict::pass(Verdict::PassTtl));
    }
    let now = (maps::jiffies() >> (config.tick_shift & 31)) as u32;
    let old = place.meta();
    // Its port was free for others since. While a VIP moves, a young flow of the other node may have it.
    if meta::state(old) == flow_state::CLOSING
        && meta::age(old, now) >= CLOSING_REUSE
        && let Some(action) = hand_over::send_on::<F>(frame, true)
    {
        return Err(action);
    }
    place.touch(old, flow::next_meta(old, now, flow_state::NEW, flow_state::REPLIED, seg.last()));
    Ok(way)
}
