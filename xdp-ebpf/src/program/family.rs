//! What differs between IPv4 and IPv6, so that every rule is written once.

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{checksum, hash, rules};

use crate::maps::{self, Address};
use crate::next_hop::Fib;
use crate::packet::{Buffer, Cursor, Skb, Window};

/// The header of one protocol version behind checked bounds, and what the rules ask of it.
pub trait Family {
    type Header: Copy;
    const V4: bool;
    const ICMP: u8;
    const ECHO_REQUEST: u8;
    const ECHO_REPLY: u8;

    /// The fixed part of the header.
    fn header(frame: impl Buffer, at: Cursor) -> Option<Self::Header>;
    fn src(ip: Self::Header) -> Address;
    fn dst(ip: Self::Header) -> Address;
    /// Whether an address is a group's.
    fn is_group(addr: Address) -> bool;
    /// Bytes of an address as it lies in a packet.
    const ADDRESS: u32;
    /// The address at a place of the packet, if the packet's linear part has it.
    fn address(frame: impl Buffer, at: Cursor) -> Option<Address>;
    /// An address's bit in `ADDR_FILTER`.
    fn bit(addr: Address) -> u32;
    fn ttl(ip: Self::Header) -> u8;
    /// Header and payload, as the header tells.
    fn total(ip: Self::Header) -> u32;
    /// The rest of the header: where the payload begins, its protocol and its length.
    fn payload(frame: impl Buffer, ip: Self::Header) -> Result<Payload, Verdict>;
    /// The payload of a header quoted by an ICMP error: its offset, protocol, and the place after it.
    fn quoted(ip: Self::Header) -> Result<(u32, u8, Cursor), Verdict>;
    /// Replaces both addresses and, if given, the TTL. Returns what this adds to a checksum over the pseudo-header.
    fn rewrite(ip: Self::Header, src: Address, dst: Address, ttl: Option<u8>) -> u64;
    /// What `rewrite` of a quoted header adds to a checksum that covers the header itself.
    fn rewrite_quoted(ip: Self::Header, src: Address, dst: Address) -> Quoted;
    /// What replacing the source address adds to a checksum over the pseudo-header.
    fn source_diff(old: Address, new: Address) -> u64;
    /// Replaces the source address of the header at this offset by the kernel's helpers. False where they refuse.
    fn store_source(skb: Skb, at: u32, old: Address, new: Address) -> bool;
    /// Ports as they lie in the packet.
    fn hash(seed: u64, src: Address, dst: Address, sport: u16, dport: u16, proto: u8) -> u64;
    /// The differentiated services code point, as the next hop's look-up takes it.
    fn class(ip: Self::Header) -> u32;
    /// Fills in addresses for the next hop's look-up.
    fn ask(fib: &mut Fib, src: Address, dst: Address);
    /// Whether routers must not fragment the packet.
    fn dont_fragment(ip: Self::Header) -> bool;
}

pub struct Payload {
    pub at: Cursor,
    pub proto: u8,
    pub len: u32,
    /// Bytes from the IP header's start to `at`.
    pub offset: u32,
}

/// Checksum differences of a rewritten quoted header: of the header with its own checksum, and of the addresses alone.
pub struct Quoted {
    pub header: u64,
    pub addresses: u64,
}

pub struct V4;
pub struct V6;

/// An IPv4 address in an [`Address`], from its word as it lies in the packet.
#[inline(always)]
fn mapped(v4: u32) -> Address {
    let [a, b, c, d] = v4.to_ne_bytes();
    Address { high: 0, low: u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d]) }
}

/// The word as it lies in the packet.
#[inline(always)]
fn unmapped(addr: Address) -> u32 {
    (u64::from_be(addr.low) as u32).to_be()
}

/// A word whose first four bytes in memory are those of `v4`.
#[inline(always)]
fn first(v4: u32) -> u64 {
    let [a, b, c, d] = v4.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}

#[inline(always)]
fn diff64(old: u64, new: u64) -> u64 {
    checksum::diff(old as u32, new as u32) + checksum::diff((old >> 32) as u32, (new >> 32) as u32)
}

impl Family for V4 {
    type Header = Window<20>;
    const V4: bool = true;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn header(frame: impl Buffer, at: Cursor) -> Option<Window<20>> {
        frame.window(at)
    }

    #[inline(always)]
    fn src(ip: Window<20>) -> Address {
        mapped(ip.u32::<12>())
    }

    #[inline(always)]
    fn dst(ip: Window<20>) -> Address {
        mapped(ip.u32::<16>())
    }

    #[inline(always)]
    fn is_group(addr: Address) -> bool {
        // 224.0.0.0/4.
        unmapped(addr) & 0xf000_0000u32.to_be() == 0xe000_0000u32.to_be()
    }

    const ADDRESS: u32 = 4;

    #[inline(always)]
    fn address(frame: impl Buffer, at: Cursor) -> Option<Address> {
        frame.window::<4>(at).map(|window| mapped(window.u32::<0>()))
    }

    #[inline(always)]
    fn bit(addr: Address) -> u32 {
        hash::filter_bit(0, u64::from_be(addr.low))
    }

    #[inline(always)]
    fn ttl(ip: Window<20>) -> u8 {
        ip.u8::<8>()
    }

    #[inline(always)]
    fn total(ip: Window<20>) -> u32 {
        u32::from(u16::from_be(ip.u16::<2>()))
    }

    #[inline(always)]
    fn payload(frame: impl Buffer, ip: Window<20>) -> Result<Payload, Verdict> {
        let first = ip.u8::<0>();
        let (total, header) = (Self::total(ip), u32::from(first & 15) * 4);
        if first >> 4 != 4 || header < 20 || total < header || !frame.holds(ip.start(), total) {
            return Err(Verdict::PassMalformed);
        }
        // More fragments, or an offset (RFC 791 §3.1).
        if ip.u16::<6>() & 0x3fffu16.to_be() != 0 {
            return Err(Verdict::PassFragment);
        }
        Ok(Payload {
            at: ip.start().plus_told::<63>(header as usize),
            proto: ip.u8::<9>(),
            len: total - header,
            offset: header,
        })
    }

    #[inline(always)]
    fn quoted(ip: Window<20>) -> Result<(u32, u8, Cursor), Verdict> {
        let first = ip.u8::<0>();
        let header = u32::from(first & 15) * 4;
        if first >> 4 != 4 {
            return Err(Verdict::PassIcmpUnrelated);
        }
        if header < 20 {
            return Err(Verdict::PassMalformed);
        }
        // An offset: no ports. The first fragment has them.
        if ip.u16::<6>() & 0x1fffu16.to_be() != 0 {
            return Err(Verdict::PassIcmpUnrelated);
        }
        Ok((header, ip.u8::<9>(), ip.start().plus_told::<63>(header as usize)))
    }

    #[inline(always)]
    fn rewrite(ip: Window<20>, src: Address, dst: Address, ttl: Option<u8>) -> u64 {
        let (src, dst) = (unmapped(src), unmapped(dst));
        let addresses = checksum::diff(ip.u32::<12>(), src) + checksum::diff(ip.u32::<16>(), dst);
        let mut header = addresses;
        if let Some(ttl) = ttl {
            let old = ip.u16::<8>();
            ip.set_u8::<8>(ttl);
            header += checksum::diff16(old, u16::from_ne_bytes([ttl, old.to_ne_bytes()[1]]));
        }
        ip.set_u32::<12>(src);
        ip.set_u32::<16>(dst);
        ip.set_u16::<10>(checksum::apply(ip.u16::<10>(), header));
        addresses
    }

    #[inline(always)]
    fn rewrite_quoted(ip: Window<20>, src: Address, dst: Address) -> Quoted {
        let check = ip.u16::<10>();
        let addresses = Self::rewrite(ip, src, dst, None);
        Quoted { header: addresses + checksum::diff16(check, ip.u16::<10>()), addresses }
    }

    #[inline(always)]
    fn source_diff(old: Address, new: Address) -> u64 {
        checksum::diff(unmapped(old), unmapped(new))
    }

    #[inline(always)]
    fn store_source(skb: Skb, at: u32, old: Address, new: Address) -> bool {
        skb.replace_l3(at + 10, unmapped(old), unmapped(new)) && skb.store(at + 12, &unmapped(new))
    }

    #[inline(always)]
    fn hash(seed: u64, src: Address, dst: Address, sport: u16, dport: u16, proto: u8) -> u64 {
        let (src, dst) = (u32::from_be(unmapped(src)), u32::from_be(unmapped(dst)));
        hash::tuple_v4(seed, src, dst, u16::from_be(sport), u16::from_be(dport), proto)
    }

    #[inline(always)]
    fn class(ip: Window<20>) -> u32 {
        u32::from_ne_bytes([ip.u8::<1>() & 0xfc, 0, 0, 0])
    }

    #[inline(always)]
    fn ask(fib: &mut Fib, src: Address, dst: Address) {
        fib.family = 2;
        fib.src[0] = first(unmapped(src));
        fib.dst[0] = first(unmapped(dst));
    }

    #[inline(always)]
    fn dont_fragment(ip: Window<20>) -> bool {
        ip.u16::<6>() & 0x4000u16.to_be() != 0
    }
}

impl Family for V6 {
    type Header = Window<40>;
    const V4: bool = false;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn header(frame: impl Buffer, at: Cursor) -> Option<Window<40>> {
        frame.window(at)
    }

    #[inline(always)]
    fn src(ip: Window<40>) -> Address {
        Address { high: ip.u64::<8>(), low: ip.u64::<16>() }
    }

    #[inline(always)]
    fn dst(ip: Window<40>) -> Address {
        Address { high: ip.u64::<24>(), low: ip.u64::<32>() }
    }

    #[inline(always)]
    fn is_group(addr: Address) -> bool {
        // ff00::/8.
        addr.high & 0xff00_0000_0000_0000u64.to_be() == 0xff00_0000_0000_0000u64.to_be()
    }

    const ADDRESS: u32 = 16;

    #[inline(always)]
    fn address(frame: impl Buffer, at: Cursor) -> Option<Address> {
        frame.window::<16>(at).map(|window| Address { high: window.u64::<0>(), low: window.u64::<8>() })
    }

    #[inline(always)]
    fn bit(addr: Address) -> u32 {
        hash::filter_bit(u64::from_be(addr.high), u64::from_be(addr.low))
    }

    #[inline(always)]
    fn ttl(ip: Window<40>) -> u8 {
        ip.u8::<7>()
    }

    #[inline(always)]
    fn total(ip: Window<40>) -> u32 {
        40 + u32::from(u16::from_be(ip.u16::<4>()))
    }

    #[inline(always)]
    fn payload(frame: impl Buffer, ip: Window<40>) -> Result<Payload, Verdict> {
        let total = Self::total(ip);
        if ip.u8::<0>() >> 4 != 6 || !frame.holds(ip.start(), total) {
            return Err(Verdict::PassMalformed);
        }
        let proto = ip.u8::<6>();
        match proto {
            0 | 60 => extensions(frame, ip, total),
            43 => Err(Verdict::PassHeaders),
            44 => Err(Verdict::PassFragment),
            _ => Ok(Payload { at: ip.end(), proto, len: total - 40, offset: 40 }),
        }
    }

    #[inline(always)]
    fn quoted(ip: Window<40>) -> Result<(u32, u8, Cursor), Verdict> {
        if ip.u8::<0>() >> 4 != 6 {
            return Err(Verdict::PassIcmpUnrelated);
        }
        Ok((40, ip.u8::<6>(), ip.end()))
    }

    #[inline(always)]
    fn rewrite(ip: Window<40>, src: Address, dst: Address, ttl: Option<u8>) -> u64 {
        let delta = diff64(ip.u64::<8>(), src.high)
            + diff64(ip.u64::<16>(), src.low)
            + diff64(ip.u64::<24>(), dst.high)
            + diff64(ip.u64::<32>(), dst.low);
        ip.set_u64::<8>(src.high);
        ip.set_u64::<16>(src.low);
        ip.set_u64::<24>(dst.high);
        ip.set_u64::<32>(dst.low);
        if let Some(ttl) = ttl {
            ip.set_u8::<7>(ttl);
        }
        delta
    }

    #[inline(always)]
    fn rewrite_quoted(ip: Window<40>, src: Address, dst: Address) -> Quoted {
        let addresses = Self::rewrite(ip, src, dst, None);
        Quoted { header: addresses, addresses }
    }

    #[inline(always)]
    fn source_diff(old: Address, new: Address) -> u64 {
        diff64(old.high, new.high) + diff64(old.low, new.low)
    }

    #[inline(always)]
    fn store_source(skb: Skb, at: u32, _: Address, new: Address) -> bool {
        skb.store(at + 8, &new)
    }

    #[inline(always)]
    fn hash(seed: u64, src: Address, dst: Address, sport: u16, dport: u16, proto: u8) -> u64 {
        let words = |a: Address| [u64::from_be(a.high), u64::from_be(a.low)];
        hash::tuple_v6(seed, words(src), words(dst), u16::from_be(sport), u16::from_be(dport), proto)
    }

    #[inline(always)]
    fn class(ip: Window<40>) -> u32 {
        ip.u32::<0>() & 0x0fc0_0000u32.to_be()
    }

    #[inline(always)]
    fn ask(fib: &mut Fib, src: Address, dst: Address) {
        fib.family = 10;
        fib.src = [src.high, src.low];
        fib.dst = [dst.high, dst.low];
    }

    #[inline(always)]
    fn dont_fragment(_: Window<40>) -> bool {
        true
    }
}

/// RFC 8200 §4: the headers that may stand between IP and its payload.
#[inline(always)]
fn extensions(frame: impl Buffer, ip: Window<40>, total: u32) -> Result<Payload, Verdict> {
    let (mut proto, mut offset) = (ip.u8::<6>(), 40);
    for seen in 0..=rules::IPV6_EXTENSIONS {
        match proto {
            0 | 60 if seen == rules::IPV6_EXTENSIONS => return Err(Verdict::PassHeaders),
            0 | 60 => {}
            43 => return Err(Verdict::PassHeaders),
            44 => return Err(Verdict::PassFragment),
            _ => break,
        }
        let at = ip.start().plus_told::<16383>(offset as usize);
        let Some(extension) = frame.window::<8>(at) else { return Err(Verdict::PassMalformed) };
        let size = (u32::from(extension.u8::<1>()) + 1) * 8;
        if offset + size > total {
            return Err(Verdict::PassMalformed);
        }
        proto = extension.u8::<0>();
        offset = maps::forget::<16383>(offset + size, extension.u32::<4>());
    }
    Ok(Payload { at: ip.start().plus_told::<16383>(offset as usize), proto, len: total - offset, offset })
}
