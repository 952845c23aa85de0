//! Who answers for a VIP: what asks for an address that another node holds is kept from the kernel, which would answer. Not on the way
//! of TCP and UDP: global functions, which take the packet apart anew and are walked by the verifier once.

use aya_ebpf::bindings::xdp_md;
use xdp_ebpf::rules::{ADVERT_ADDRESSES, ADVERTS_MISSED, FENCE_LEAST, IPPROTO_VRRP};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{router, router_role};

use crate::family::{Family, Payload, V4, V6};
use crate::maps::{self, Address};
use crate::packet::{Buffer, Frame, Window};
use crate::words::{Entry, Word};
use crate::{link, verdict};

/// [`Router`](xdp_ebpf::Router).
#[repr(C)]
pub struct RouterView {
    pub role: Word,
    pub flows_known: Word,
    pub elsewhere_until: Entry,
    pub other: Entry,
    pub other_until: Entry,
}
const _: () = assert!(size_of::<RouterView>() == size_of::<xdp_ebpf::Router>());

/// [`Heartbeat`](xdp_ebpf::Heartbeat).
#[repr(C)]
pub struct HeartbeatView {
    pub at: Entry,
    pub fresh_for: Entry,
    pub hand_over_until: Entry,
}
const _: () = assert!(size_of::<HeartbeatView>() == size_of::<xdp_ebpf::Heartbeat>());

/// RFC 4861 §4.3: neighbour solicitation, 24 bytes at least.
const SOLICITATION: u8 = 135;
const SOLICITATION_LEN: u32 = 24;

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_arp(ctx: *mut xdp_md) -> u32 {
    match asked(Frame::new(ctx)) {
        Some(target) if is_elsewhere(target) => verdict::drop(Verdict::DropElsewhere),
        _ => verdict::pass(Verdict::PassEtherType),
    }
}

/// The target of an ARP request.
#[inline(always)]
fn asked(frame: Frame) -> Option<Address> {
    let eth = frame.window::<14>(frame.start())?;
    let (_, at, _) = link(frame, eth).ok()?;
    let arp = frame.window::<28>(at)?;
    // RFC 826: hardware Ethernet, protocol IPv4, their address lengths, request.
    let request =
        arp.u32::<0>() == u32::from_ne_bytes([0, 1, 8, 0]) && arp.u32::<4>() == u32::from_ne_bytes([6, 4, 0, 1]);
    if request { V4::address(frame, at.plus(24)) } else { None }
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_group_v4(ctx: *mut xdp_md) -> u32 {
    group::<V4>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_group_v6(ctx: *mut xdp_md) -> u32 {
    group::<V6>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

/// A frame for many whose destination may be an address of ours.
#[inline(always)]
fn group<F: Family>(frame: Frame) -> Result<u32, Verdict> {
    let ip = header::<F>(frame)?;
    // RFC 1122 §3.3.6: a unicast packet in a group frame is to be discarded; the kernel does that.
    if !F::is_group(F::dst(ip)) {
        return Err(Verdict::PassMalformed);
    }
    let payload = F::payload(frame, ip)?;
    if payload.proto == IPPROTO_VRRP {
        note::<F>(frame, ip, &payload);
    }
    if !F::V4
        && payload.proto == F::ICMP
        && let Some(icmp) = frame.window::<8>(payload.at)
        && is_unwelcome(frame, icmp, payload.len)
    {
        return Ok(verdict::drop(Verdict::DropElsewhere));
    }
    Err(Verdict::PassNotOurs)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_advert_v4(ctx: *mut xdp_md) -> u32 {
    unicast::<V4>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_advert_v6(ctx: *mut xdp_md) -> u32 {
    unicast::<V6>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

/// An advert to this node alone.
#[inline(always)]
fn unicast<F: Family>(frame: Frame) -> Result<u32, Verdict> {
    let ip = header::<F>(frame)?;
    let payload = F::payload(frame, ip)?;
    note::<F>(frame, ip, &payload);
    let ours = maps::vip(F::dst(ip)).is_some();
    Err(if ours { Verdict::PassProtocol } else { Verdict::PassNotOurs })
}

/// The IP header of a packet that was looked at before.
#[inline(always)]
pub fn header<F: Family>(frame: Frame) -> Result<F::Header, Verdict> {
    let eth = frame.window::<14>(frame.start()).ok_or(Verdict::PassMalformed)?;
    let (_, at, _) = link(frame, eth)?;
    F::header(frame, at).ok_or(Verdict::PassMalformed)
}

/// Whether an ICMPv6 message solicits an address that another node holds.
#[inline(always)]
pub fn is_unwelcome(frame: Frame, icmp: Window<8>, len: u32) -> bool {
    let solicits = icmp.u8::<0>() == SOLICITATION && icmp.u8::<1>() == 0 && len >= SOLICITATION_LEN;
    solicits && V6::address(frame, icmp.end()).is_some_and(is_elsewhere)
}

#[inline(always)]
fn is_elsewhere(addr: Address) -> bool {
    let id = maps::router_of(addr);
    if id == 0 {
        return false;
    }
    let Some(router) = maps::router(id) else { return false };
    let now = maps::nanoseconds();
    now < router.elsewhere_until.load() || router.role.load() == router_role::BACKUP && is_fresh(now)
}

/// Whether the agent's election has given a sign of life.
#[inline(always)]
fn is_fresh(now: u64) -> bool {
    let Some(heartbeat) = maps::heartbeat() else { return false };
    let at = heartbeat.at.load();
    // The agent may have written it after `now` was read, on another CPU.
    at != 0 && now.saturating_sub(at) < heartbeat.fresh_for.load()
}

/// Takes note of an advert that the agent may not be there to read.
#[inline(always)]
fn note<F: Family>(frame: Frame, ip: F::Header, payload: &Payload) {
    let Some(advert) = frame.window::<8>(payload.at) else { return };
    // RFC 9568 §5.2, RFC 3768 §5.3: version and type, VRID, priority, number of addresses.
    let (kind, vrid, priority, count) =
        (advert.u8::<0>(), advert.u8::<1>(), advert.u8::<2>(), u32::from(advert.u8::<3>()));
    let tick = match kind {
        // Centiseconds, below four reserved bits.
        0x31 => u64::from(u16::from_be(advert.u16::<4>()) & 0x0fff) * 10_000_000,
        0x21 if F::V4 => u64::from(advert.u8::<5>()) * 1_000_000_000,
        _ => return,
    };
    // RFC 9568 §7.1.
    if F::ttl(ip) != 255 || vrid == 0 || tick == 0 || count == 0 || payload.len < 8 + count * F::ADDRESS {
        return;
    }
    let id = router(vrid, !F::V4);
    let mut ours = false;
    for i in 0..ADVERT_ADDRESSES as u32 {
        if i < count
            && let Some(addr) = F::address(frame, payload.at.plus((8 + i * F::ADDRESS) as usize))
        {
            ours |= maps::router_of(addr) == id;
        }
    }
    let now = maps::nanoseconds();
    let Some(router) = maps::router(id).filter(|_| ours) else { return };
    if is_fresh(now) && router.role.load() != router_role::UNKNOWN {
        return;
    }
    let until = router.elsewhere_until.load();
    if priority == 0 {
        // It leaves; that is no reason to believe it held the addresses.
        if until > now + tick {
            router.elsewhere_until.store(now + tick);
        }
        return;
    }
    if until < now {
        maps::count(Verdict::Fenced);
    }
    let until = now + (ADVERTS_MISSED * tick).max(FENCE_LEAST);
    router.elsewhere_until.store(until);
    // Until an agent is back that takes the addresses off, this kernel would reset what belongs to the other node's proxy.
    if let Some(eth) = frame.window::<14>(frame.start())
        && let Some(heartbeat) = maps::heartbeat()
    {
        router.other.store(u64::from(eth.u32::<6>()) | u64::from(eth.u16::<10>()) << 32);
        router.flows_known.store(0);
        router.other_until.store(until);
        if heartbeat.hand_over_until.load() < until {
            heartbeat.hand_over_until.store(until);
        }
    }
}
