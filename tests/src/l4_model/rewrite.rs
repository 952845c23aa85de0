//! How the model changes bytes: every change goes through [`Patch`], which keeps the checksums' ones' complement sums in
//! step (RFC 1624), one 16-bit word at a time.

use xdp_ebpf::{Addr, IPPROTO_TCP, Port, is_v4};

use super::parse::Parsed;

/// A new five-tuple.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit {
    pub src: Addr,
    pub dst: Addr,
    pub sport: Port,
    pub dport: Port,
}

/// An IP packet within a frame whose addresses and ports are replaced.
pub(crate) struct Place {
    pub ip: usize,
    pub upper: usize,
    pub v4: bool,
    pub proto: u8,
    /// Bytes of the upper layer that are there.
    pub have: usize,
}

/// Replaces bytes and updates a checksum for them; positions of changed words must be even within what the checksum covers.
pub(crate) fn patch(frame: &mut [u8], at: usize, new: &[u8], checks: &[usize]) {
    for (i, word) in new.chunks(2).enumerate() {
        let at = at + 2 * i;
        let old = [frame[at], frame[at + 1]];
        frame[at..at + 2].copy_from_slice(word);
        for check in checks {
            let value = adjusted([frame[*check], frame[*check + 1]], old, [word[0], word[1]]);
            frame[*check..*check + 2].copy_from_slice(&value);
        }
    }
}

/// RFC 1624 eqn. 3.
fn adjusted(check: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let [check, old, new] = [check, old, new].map(|w| u32::from(u16::from_be_bytes(w)));
    let mut sum = (!check & 0xffff) + (!old & 0xffff) + new;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The TTL or hop limit becomes `ttl`.
pub(crate) fn ttl(frame: &mut [u8], parsed: &Parsed, ttl: u8) {
    if parsed.v4 {
        let word = [ttl, frame[parsed.ip + 9]];
        patch(frame, parsed.ip + 8, &word, &[parsed.ip + 10]);
    } else {
        frame[parsed.ip + 7] = ttl;
    }
}

/// The packet with another tuple and, if `hop`, one hop fewer.
pub(crate) fn tuple(frame: &[u8], parsed: &Parsed, edit: &Edit, hop: bool) -> Vec<u8> {
    let mut out = frame.to_vec();
    let have = parsed.ip + parsed.length - parsed.upper;
    let place = Place { ip: parsed.ip, upper: parsed.upper, v4: parsed.v4, proto: parsed.proto, have };
    self::place(&mut out, &place, edit, &[]);
    if hop {
        ttl(&mut out, parsed, parsed.ttl - 1);
    }
    out
}

/// Rewrites one packet in `frame`; `outer` are further checksums that cover all of it.
pub(crate) fn place(frame: &mut [u8], place: &Place, edit: &Edit, outer: &[usize]) {
    let check = place.upper + if place.proto == IPPROTO_TCP { 16 } else { 6 };
    let has_check = place.have >= if place.proto == IPPROTO_TCP { 18 } else { 8 };
    let unused = place.proto != IPPROTO_TCP && has_check && frame[check..check + 2] == [0, 0];
    let before = if has_check && !unused { Some([frame[check], frame[check + 1]]) } else { None };
    let upper: Vec<usize> = before.iter().map(|_| check).collect();
    let all = [outer, &upper].concat();
    if place.v4 {
        assert!(is_v4(&edit.src) && is_v4(&edit.dst), "families do not mix");
        let header = place.ip + 10;
        let old = [frame[header], frame[header + 1]];
        let checks = [&all[..], &[header]].concat();
        patch(frame, place.ip + 12, &edit.src[12..], &checks);
        patch(frame, place.ip + 16, &edit.dst[12..], &checks);
        cover(frame, header, old, outer);
    } else {
        patch(frame, place.ip + 8, &edit.src, &all);
        patch(frame, place.ip + 24, &edit.dst, &all);
    }
    patch(frame, place.upper, &edit.sport, &all);
    patch(frame, place.upper + 2, &edit.dport, &all);
    if let Some(before) = before {
        if place.proto != IPPROTO_TCP && frame[check..check + 2] == [0, 0] {
            frame[check..check + 2].copy_from_slice(&[0xff, 0xff]);
        }
        cover(frame, check, before, outer);
    }
}

/// An inner checksum changed from `old`: the outer ones cover it.
fn cover(frame: &mut [u8], at: usize, old: [u8; 2], outer: &[usize]) {
    let new = [frame[at], frame[at + 1]];
    for check in outer {
        let value = adjusted([frame[*check], frame[*check + 1]], old, new);
        frame[*check..*check + 2].copy_from_slice(&value);
    }
}
