//! ICMP at XDP: echo to a VIP is answered, errors follow the flow that they are about. Not on the fast path: global functions, which
//! take the packet apart anew and are walked by the verifier once.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use xdp_ebpf::rules::{MTU_MIN_V4, MTU_MIN_V6};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, checksum, forwarding, frontend_flags, vip_flags};

use crate::family::{Family, V4, V6};
use crate::flow::{self, Way};
use crate::maps::{self, Key};
use crate::next_hop::{self, Hop, Question};
use crate::packet::{Buffer, Frame, Window};
use crate::{fence, link, rewrite, verdict};

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_icmp_v4(ctx: *mut xdp_md) -> u32 {
    message::<V4>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_icmp_v6(ctx: *mut xdp_md) -> u32 {
    message::<V6>(Frame::new(ctx)).unwrap_or_else(verdict::pass)
}

/// A message with its envelope.
struct Message<F: Family> {
    eth: Window<14>,
    tags: u32,
    ip: F::Header,
    icmp: Window<8>,
    /// Length of header and body.
    len: u32,
}

/// What an error quotes.
struct Quote<F: Family> {
    ip: F::Header,
    l4: Window<8>,
    check: Option<Window<2>>,
    proto: u8,
}

#[inline(always)]
fn message<F: Family>(frame: Frame) -> Result<u32, Verdict> {
    let eth = frame.window::<14>(frame.start()).ok_or(Verdict::PassMalformed)?;
    let (_, at, tags) = link(frame, eth)?;
    let ip = F::header(frame, at).ok_or(Verdict::PassMalformed)?;
    let payload = F::payload(frame, ip)?;
    let icmp = frame.window::<8>(payload.at).filter(|_| payload.len >= 8).ok_or(Verdict::PassMalformed)?;
    let flags = maps::vip(F::dst(ip)).ok_or(Verdict::PassNotOurs)?;
    let m = Message::<F> { eth, tags, ip, icmp, len: payload.len };
    let kind = icmp.u8::<0>();
    if kind == F::ECHO_REQUEST && icmp.u8::<1>() == 0 && flags & vip_flags::ECHO != 0 {
        echo(&m);
        return Ok(verdict::tx(Verdict::Echo));
    }
    if !F::V4 && fence::is_unwelcome(frame, icmp, payload.len) {
        return Ok(verdict::drop(Verdict::DropElsewhere));
    }
    let error = if F::V4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) };
    if error { follow(frame, &m) } else { Err(Verdict::PassProtocol) }
}

/// RFC 792, RFC 4443 §4.2: the same back, as a reply.
#[inline(always)]
fn echo<F: Family>(m: &Message<F>) {
    let pseudo = F::rewrite(m.ip, F::dst(m.ip), F::src(m.ip), Some(64));
    let old = m.icmp.u16::<0>();
    m.icmp.set_u8::<0>(F::ECHO_REPLY);
    let delta = checksum::diff16(old, m.icmp.u16::<0>()) + if F::V4 { 0 } else { pseudo };
    let check = checksum::apply(m.icmp.u16::<2>(), delta);
    // A reply of zeros alone has the checksum 0xffff, which RFC 1624's equation cannot tell from 0. Without identifier and
    // sequence number it may be one, and every receiver takes 0xffff for 0.
    let zeros = F::V4 && check == 0 && m.icmp.u32::<4>() == 0;
    m.icmp.set_u16::<2>(if zeros { 0xffff } else { check });
    let (to, to_end) = (m.eth.u32::<0>(), m.eth.u16::<4>());
    let (from, from_end) = (m.eth.u32::<6>(), m.eth.u16::<10>());
    m.eth.set_u32::<0>(from);
    m.eth.set_u16::<4>(from_end);
    m.eth.set_u32::<6>(to);
    m.eth.set_u16::<10>(to_end);
}

#[inline(always)]
fn follow<F: Family>(frame: Frame, m: &Message<F>) -> Result<u32, Verdict> {
    let quote = quote(frame, m)?;
    if F::src(quote.ip) != F::dst(m.ip) {
        return Err(Verdict::PassIcmpUnrelated);
    }
    // RFC 1191 §3 and RFC 8201 §4: less than the protocol's minimum is no honest report.
    let small = if F::V4 {
        m.icmp.u16::<0>() == u16::from_ne_bytes([3, 4]) && u16::from_be(m.icmp.u16::<6>()) < MTU_MIN_V4
    } else {
        m.icmp.u8::<0>() == 2 && u32::from_be(m.icmp.u32::<4>()) < MTU_MIN_V6
    };
    if small {
        return Err(Verdict::PassPtbTooSmall);
    }
    let (forward, way) = way(&quote)?;
    if F::ttl(m.ip) <= 1 {
        return Err(Verdict::PassTtl);
    }
    let why = if forward { Verdict::IcmpForward } else { Verdict::IcmpReply };
    if forward && way.forwarding == forwarding::LOCAL {
        translate(m, &quote, &Way { src: F::src(m.ip), ..way }, &way, None);
        return Ok(verdict::pass(why));
    }
    let config = maps::config().ok_or(Verdict::DropInternal)?;
    let question = Question { src: way.src, dst: way.dst, proto: F::ICMP, port: 0, to_server: forward, client_port: 0 };
    let hop = next_hop::find::<F>(frame, m.ip, maps::jiffies(), config.tick_shift, &question);
    translate(m, &quote, &way, &way, Some(F::ttl(m.ip) - 1));
    maps::count(why);
    if let Hop::Found(hop) = hop
        && let Some(action) = next_hop::leave(frame, m.eth, m.tags, hop)
    {
        return Ok(action);
    }
    Ok(xdp_action::XDP_PASS)
}

#[inline(always)]
fn quote<F: Family>(frame: Frame, m: &Message<F>) -> Result<Quote<F>, Verdict> {
    let fixed = if F::V4 { 20 } else { 40 };
    let ip = F::header(frame, m.icmp.end()).filter(|_| m.len >= 8 + fixed).ok_or(Verdict::PassMalformed)?;
    let (header, proto, at) = F::quoted(ip)?;
    if proto != IPPROTO_TCP && proto != IPPROTO_UDP {
        return Err(Verdict::PassIcmpUnrelated);
    }
    // RFC 792: at least 64 bits of the original's data.
    let l4 = frame.window::<8>(at).filter(|_| m.len >= 8 + header + 8).ok_or(Verdict::PassMalformed)?;
    let check = if proto == IPPROTO_UDP {
        Some(l4.sub::<6, 2>())
    } else {
        frame.window::<18>(at).filter(|_| m.len >= 8 + header + 18).map(|tcp| tcp.sub::<16, 2>())
    };
    Ok(Quote { ip, l4, check, proto })
}

/// The way of the error, and whether it leads to the backend.
#[inline(always)]
fn way<F: Family>(quote: &Quote<F>) -> Result<(bool, Way), Verdict> {
    let config = maps::config().ok_or(Verdict::DropInternal)?;
    let (src, dst) = (F::src(quote.ip), F::dst(quote.ip));
    let (sport, dport) = (quote.l4.u16::<0>(), quote.l4.u16::<2>());
    match maps::frontend(Key { addr: src, port: sport, proto: quote.proto, pad: 0 }) {
        Some(frontend) if frontend.flags & frontend_flags::L7 != 0 => Err(Verdict::PassL7),
        Some(frontend) => flow::from_client::<F>(config, dst, src, dport, sport, quote.proto, frontend.id)
            .map(|way| (true, way))
            .ok_or(Verdict::PassIcmpUnrelated),
        None => flow::from_backend::<F>(config.seed, config.reply_mask, dst, src, dport, sport, quote.proto)
            .map(|(_, way)| (false, way))
            .ok_or(Verdict::PassIcmpUnrelated),
    }
}

/// Rewrites the envelope by `outer`, and the quoted packet, which travels the other way, by the reverse of `way`.
#[inline(always)]
fn translate<F: Family>(m: &Message<F>, quote: &Quote<F>, outer: &Way, way: &Way, ttl: Option<u8>) {
    let inner = F::rewrite_quoted(quote.ip, way.dst, way.src);
    let old = quote.l4.u32::<0>();
    let ([a, b], [c, d]) = (way.dport.to_ne_bytes(), way.sport.to_ne_bytes());
    let new = u32::from_ne_bytes([a, b, c, d]);
    quote.l4.set_u32::<0>(new);
    let ports = checksum::diff(old, new);
    let mut delta = inner.header + ports;
    if let Some(check) = quote.check {
        let old = check.u16::<0>();
        if quote.proto != IPPROTO_UDP || old != 0 {
            let new = checksum::apply(old, inner.addresses + ports);
            let new = if quote.proto == IPPROTO_UDP { rewrite::udp(new) } else { new };
            check.set_u16::<0>(new);
            delta += checksum::diff16(old, new);
        }
    }
    let pseudo = F::rewrite(m.ip, outer.src, outer.dst, ttl);
    if !F::V4 {
        delta += pseudo;
    }
    m.icmp.set_u16::<2>(checksum::apply(m.icmp.u16::<2>(), delta));
}
