//! What the model sees in a frame: section "What is looked at" of the rules.

use xdp_ebpf::rules::{IPV6_EXTENSIONS, VLAN_TAGS};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{Addr, IPPROTO_TCP, IPPROTO_UDP, mapped_v4};

use super::Tuple;

/// A frame that is for us, with the places that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    /// Where the IP header starts.
    pub ip: usize,
    pub v4: bool,
    /// Where the upper layer starts.
    pub upper: usize,
    /// Length of the IP packet, by its header.
    pub length: usize,
    pub src: Addr,
    pub dst: Addr,
    pub ttl: u8,
    pub proto: u8,
    pub seen: Seen,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// `flags` are TCP's, 0 for UDP.
    Tuple {
        tuple: Tuple,
        flags: u8,
    },
    Icmp,
    Other,
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn v4_at(bytes: &[u8], at: usize) -> Addr {
    mapped_v4(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(crate) fn v6_at(bytes: &[u8], at: usize) -> Addr {
    bytes[at..at + 16].try_into().expect("16 bytes")
}

pub(crate) fn frame(frame: &[u8], is_ours: impl Fn(&Addr) -> bool) -> Result<Parsed, Verdict> {
    if frame.len() < 14 {
        return Err(Verdict::PassMalformed);
    }
    let mut at = 12;
    let mut tags = 0;
    while matches!(be16(frame, at), 0x8100 | 0x88a8) {
        if tags == VLAN_TAGS {
            return Err(Verdict::PassHeaders);
        }
        (tags, at) = (tags + 1, at + 4);
        if frame.len() < at + 2 {
            return Err(Verdict::PassMalformed);
        }
    }
    let v4 = match be16(frame, at) {
        0x0800 => true,
        0x86dd => false,
        _ => return Err(Verdict::PassEtherType),
    };
    let at = at + 2;
    let ip = &frame[at..];
    if ip.len() < if v4 { 20 } else { 40 } {
        return Err(Verdict::PassMalformed);
    }
    let (src, dst) = if v4 { (v4_at(ip, 12), v4_at(ip, 16)) } else { (v6_at(ip, 8), v6_at(ip, 24)) };
    if !is_ours(&dst) {
        return Err(Verdict::PassNotOurs);
    }
    let to_many = frame[0] & 1 != 0;
    if to_many && !(if v4 { dst[12] >> 4 == 14 } else { dst[0] == 0xff }) {
        return Err(Verdict::PassMalformed);
    }
    let header = if v4 { usize::from(ip[0] & 15) * 4 } else { 40 };
    let length = if v4 { usize::from(be16(ip, 2)) } else { 40 + usize::from(be16(ip, 4)) };
    if ip[0] >> 4 != if v4 { 4 } else { 6 } || header < 20 || length < header || length > ip.len() {
        return Err(Verdict::PassMalformed);
    }
    if v4 && be16(ip, 6) & 0x3fff != 0 {
        return Err(Verdict::PassFragment);
    }
    let (proto, upper) = if v4 { (ip[9], header) } else { extensions(ip, length)? };
    // Nobody holds an address elsewhere here: what is sent to a group is the kernel's.
    if to_many {
        return Err(Verdict::PassNotOurs);
    }
    let ttl = if v4 { ip[8] } else { ip[7] };
    let payload = &ip[upper..length];
    let needed = match (proto, v4) {
        (IPPROTO_TCP, _) => 20,
        (IPPROTO_UDP, _) | (1, true) | (58, false) => 8,
        _ => 0,
    };
    if payload.len() < needed {
        return Err(Verdict::PassMalformed);
    }
    let seen = match (proto, v4) {
        (IPPROTO_TCP | IPPROTO_UDP, _) => {
            let (sport, dport) = ([payload[0], payload[1]], [payload[2], payload[3]]);
            let flags = if proto == IPPROTO_TCP { payload[13] } else { 0 };
            Seen::Tuple { tuple: Tuple { src, dst, sport, dport, proto }, flags }
        }
        (1, true) | (58, false) => Seen::Icmp,
        _ => Seen::Other,
    };
    Ok(Parsed { ip: at, v4, upper: at + upper, length, src, dst, ttl, proto, seen })
}

fn extensions(ip: &[u8], length: usize) -> Result<(u8, usize), Verdict> {
    let (mut next, mut at) = (ip[6], 40);
    for passed in 0.. {
        match next {
            43 => return Err(Verdict::PassHeaders),
            44 => return Err(Verdict::PassFragment),
            0 | 60 if passed == IPV6_EXTENSIONS => return Err(Verdict::PassHeaders),
            0 | 60 if at + 8 > length => return Err(Verdict::PassMalformed),
            0 | 60 => (next, at) = (ip[at], at + 8 + usize::from(ip[at + 1]) * 8),
            _ => break,
        }
        if at > length {
            return Err(Verdict::PassMalformed);
        }
    }
    Ok((next, at))
}
