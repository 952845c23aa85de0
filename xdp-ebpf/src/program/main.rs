//! The packet programs: XDP on ingress, TC on egress. They never allocate, never loop without a bound and never drop a packet
//! because a fast path does not apply. What they do is written in `rules.rs` of the library.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unreachable_pub, reason = "a program has no outside; `pub` here means visible to its other files")]

mod client;
mod dropped;
mod egress;
mod evict;
mod family;
mod fence;
mod flow;
mod forward;
mod hand_over;
mod icmp;
mod insert;
mod maps;
mod next_hop;
mod packet;
mod rewrite;
mod segment;
mod too_big;
mod verdict;
mod words;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use xdp_ebpf::rules::IPPROTO_VRRP;
use xdp_ebpf::verdict::Verdict;

use family::{Family, V4, V6};
use packet::{Buffer, Cursor, Frame, Skb, Window};
use segment::Segment;

const IPV4: u16 = 0x0800u16.to_be();
const IPV6: u16 = 0x86ddu16.to_be();
const ARP: u16 = 0x0806u16.to_be();
const DOT1Q: u16 = 0x8100u16.to_be();
const DOT1AD: u16 = 0x88a8u16.to_be();

/// XDP on ingress of every attached interface.
#[xdp(frags)]
pub fn sluicegate_ingress(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    let Some(eth) = frame.window::<14>(frame.start()) else { return verdict::pass(Verdict::PassMalformed) };
    match link(frame, eth) {
        Ok((IPV4, at, tags)) => ingress::<V4>(frame, eth, at, tags),
        Ok((IPV6, at, tags)) => ingress::<V6>(frame, eth, at, tags),
        Ok((ARP, ..)) => fence::sluicegate_arp(ctx.ctx),
        Ok(_) => verdict::pass(Verdict::PassEtherType),
        Err(why) => verdict::pass(why),
    }
}

/// TC (tcx) on egress of every attached interface: answers of `local` backends. Never ends the chain of programs.
#[classifier]
pub fn sluicegate_egress(ctx: TcContext) -> i32 {
    // Ethernet with two tags, IPv6, TCP.
    let skb = Skb::new(ctx.skb.skb, 22 + 40 + 20);
    if let Some(eth) = skb.window::<14>(skb.start())
        && let Ok((kind, at, tags)) = link(skb, eth)
    {
        match kind {
            IPV4 => egress::packet::<V4>(skb, at, tags),
            IPV6 => egress::packet::<V6>(skb, at, tags),
            _ => {}
        }
    }
    TC_ACT_UNSPEC
}

/// The network protocol, where its header begins, and how many VLAN tags stand before it.
#[inline(always)]
fn link(frame: impl Buffer, eth: Window<14>) -> Result<(u16, Cursor, u32), Verdict> {
    let kind = eth.u16::<12>();
    if kind != DOT1Q && kind != DOT1AD {
        return Ok((kind, eth.end(), 0));
    }
    let Some(tag) = frame.window::<4>(eth.end()) else { return Err(Verdict::PassMalformed) };
    let (mut kind, mut tags) = (tag.u16::<2>(), 1);
    if kind == DOT1Q || kind == DOT1AD {
        let Some(tag) = frame.window::<4>(tag.end()) else { return Err(Verdict::PassMalformed) };
        (kind, tags) = (tag.u16::<2>(), 2);
        if kind == DOT1Q || kind == DOT1AD {
            return Err(Verdict::PassHeaders);
        }
    }
    let tags = maps::forget::<3>(tags, u32::from(tag.u16::<0>()));
    Ok((kind, eth.start().plus_told::<31>(14 + 4 * tags as usize), tags))
}

#[inline(always)]
fn ingress<F: Family>(frame: Frame, eth: Window<14>, at: Cursor, tags: u32) -> u32 {
    let Some(ip) = F::header(frame, at) else { return verdict::pass(Verdict::PassMalformed) };
    if !maps::maybe_ours(F::bit(F::dst(ip))) {
        return verdict::pass(Verdict::PassNotOurs);
    }
    if eth.u8::<0>() & 1 != 0 {
        return if F::V4 { fence::sluicegate_group_v4(frame.ctx()) } else { fence::sluicegate_group_v6(frame.ctx()) };
    }
    let payload = match F::payload(frame, ip) {
        Ok(payload) => payload,
        Err(why) => return verdict::pass(why),
    };
    match Segment::<F>::parse(frame, ip, &payload) {
        Ok(Some(segment)) => forward::segment(frame, eth, tags, &segment),
        Ok(None) if payload.proto == F::ICMP && F::V4 => icmp::sluicegate_icmp_v4(frame.ctx()),
        Ok(None) if payload.proto == F::ICMP => icmp::sluicegate_icmp_v6(frame.ctx()),
        Ok(None) if payload.proto == IPPROTO_VRRP && F::V4 => fence::sluicegate_advert_v4(frame.ctx()),
        Ok(None) if payload.proto == IPPROTO_VRRP => fence::sluicegate_advert_v6(frame.ctx()),
        Ok(None) => {
            let ours = maps::vip(F::dst(ip)).is_some();
            verdict::pass(if ours { Verdict::PassProtocol } else { Verdict::PassNotOurs })
        }
        Err(why) => verdict::pass(why),
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
