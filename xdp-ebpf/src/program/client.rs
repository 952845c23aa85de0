//! A client's packet: its flow's record, or a choice; or the proxy.

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, WAYS, flow_state, frontend_flags, hash, meta};

use crate::family::Family;
use crate::flow::{Place, Way, good, next_meta, way_of};
use crate::insert::{NONE, Opening, UNSOUGHT, sluicegate_open};
use crate::maps::{self, FrontendView};
use crate::packet::Frame;
use crate::segment::{Segment, flag};
use crate::{dropped, hand_over, verdict, words};

/// The way to a backend, or the action that ends the packet.
#[inline(always)]
pub fn way<F: Family>(frame: Frame, seg: &Segment<F>, frontend: &FrontendView) -> Result<Way, u32> {
    if frontend.flags & frontend_flags::L7 != 0 {
        if dropped::is_dropped(seg.src) {
            return Err(verdict::drop(Verdict::DropLimited));
        }
        let opens = seg.proto != IPPROTO_TCP || seg.flags & flag::SYN != 0;
        let sent_on = if opens { None } else { hand_over::send_on::<F>(frame, false) };
        return Err(sent_on.unwrap_or_else(|| verdict::pass(Verdict::PassL7)));
    }
    if F::ttl(seg.ip) <= 1 {
        return Err(verdict::pass(Verdict::PassTtl));
    }
    let Some(config) = maps::config() else { return Err(verdict::drop(Verdict::DropInternal)) };
    let hash = F::hash(config.seed, seg.src, seg.dst, seg.sport, seg.dport, seg.proto);
    let now = (maps::jiffies() >> (config.tick_shift & 31)) as u32;
    let at = hash as u32 & config.flow_mask;
    let Some(bucket) = maps::bucket(at) else { return Err(verdict::drop(Verdict::DropInternal)) };
    let opens = seg.opens();

    let mut own = if opens { UNSOUGHT } else { NONE };
    if !opens
        && let Some(way) = way_of(bucket, hash)
        && let Some(record) = maps::record(at * WAYS as u32 + way)
        && record.client == seg.src
        && record.client_port == seg.sport
        && record.frontend == frontend.id
        && let Some(backend) = maps::backend(record.backend)
    {
        own = way;
        let place = Place { bucket, way };
        let old = place.meta();
        let idle = seg.proto == IPPROTO_UDP && meta::age(old, now) > config.udp_idle;
        let good = good(backend, record.epoch);
        let found = Way {
            src: record.source,
            dst: backend.addr,
            sport: record.port,
            dport: backend.port,
            frontend: record.frontend,
            backend: record.backend,
            forwarding: backend.forwarding,
        };
        words::barrier();
        if place.tag() != hash::tag(hash) {
            own = NONE;
        } else if good && !idle {
            place.touch(old, next_meta(old, now, flow_state::REPLIED, flow_state::ESTABLISHED, seg.last()));
            return Ok(found);
        }
    }
    // While a VIP moves, one that is young is the other node's alone: here its choices might be others.
    if own == NONE
        && seg.proto == IPPROTO_TCP
        && let Some(action) = hand_over::send_on::<F>(frame, true)
    {
        return Err(action);
    }
    let Some(opening) = maps::opening() else { return Err(verdict::drop(Verdict::DropInternal)) };
    *opening = Opening {
        hash,
        client: seg.src,
        vip: seg.dst,
        snat: frontend.snat,
        bucket: at,
        own,
        now,
        pool: frontend.pool,
        frontend: frontend.id,
        affinity: frontend.flags & frontend_flags::CLIENT_IP_AFFINITY != 0,
        affinity_lasts: frontend.affinity,
        sources: frontend.flags & frontend_flags::SOURCES != 0,
        opens: opens || seg.proto == IPPROTO_UDP,
        v4: F::V4,
        client_port: seg.sport,
        vip_port: seg.dport,
        proto: seg.proto,
        flags: seg.flags,
        reply_hash: 0,
        left: opening.left,
        left_flow: opening.left_flow,
        way: Way::NOWHERE,
    };
    match sluicegate_open() {
        0 => Ok(opening.way),
        action => Err(action),
    }
}
