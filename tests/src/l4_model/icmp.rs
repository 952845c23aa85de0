//! Section "ICMP" of the rules.

use xdp_ebpf::rules::{MTU_MIN_V4, MTU_MIN_V6};
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{FrontendKey, IPPROTO_TCP, IPPROTO_UDP, forwarding, frontend_flags};

use super::parse::{Parsed, be16, v4_at, v6_at};
use super::rewrite::{self, Edit, Place};
use super::{Action, Model, Outcome, Tuple};

impl Model {
    pub(super) fn icmp(&mut self, frame: &[u8], parsed: &Parsed) -> Result<Outcome, Verdict> {
        if !self.maps.vips.contains_key(&parsed.dst) {
            return Err(Verdict::PassNotOurs);
        }
        let (kind, code) = (frame[parsed.upper], frame[parsed.upper + 1]);
        match (parsed.v4, kind) {
            (true, 8) | (false, 128) if code == 0 && self.echoes(&parsed.dst) => Ok(echo(frame, parsed)),
            (true, 3 | 11 | 12) | (false, 1..=4) => self.error(frame, parsed, kind, code),
            _ => Err(Verdict::PassProtocol),
        }
    }

    fn error(&mut self, frame: &[u8], parsed: &Parsed, kind: u8, code: u8) -> Result<Outcome, Verdict> {
        let (quoted, place) = quoted(frame, parsed)?;
        let upper = &frame[parsed.upper..];
        let too_small = if parsed.v4 {
            kind == 3 && code == 4 && be16(upper, 6) < MTU_MIN_V4
        } else {
            kind == 2 && u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]) < MTU_MIN_V6
        };
        if too_small {
            return Err(Verdict::PassPtbTooSmall);
        }
        let key = FrontendKey { addr: quoted.src, port: quoted.sport, proto: quoted.proto, pad: 0 };
        let back =
            Tuple { src: quoted.dst, dst: quoted.src, sport: quoted.dport, dport: quoted.sport, proto: quoted.proto };
        let (inner, outer, keep_hop, verdict) = if let Some(frontend) = self.maps.frontends.get(&key).copied() {
            if frontend.flags & frontend_flags::L7 != 0 {
                return Err(Verdict::PassL7);
            }
            let at = self.own(&back, frontend.id).ok_or(Verdict::PassIcmpUnrelated)?;
            let record = self.record(at).filter(|r| self.good(r)).ok_or(Verdict::PassIcmpUnrelated)?;
            let backend = self.backend(record.backend).ok_or(Verdict::PassIcmpUnrelated)?;
            let local = backend.forwarding == forwarding::LOCAL;
            let inner = Edit { src: backend.addr, dst: record.source, sport: backend.port, dport: record.port };
            let source = if local { parsed.src } else { record.source };
            (inner, (source, backend.addr), local, Verdict::IcmpForward)
        } else {
            let at = self.reply(&back).ok_or(Verdict::PassIcmpUnrelated)?;
            let record = self.record(at).ok_or(Verdict::PassIcmpUnrelated)?;
            let info = self.maps.infos.get(&record.frontend).ok_or(Verdict::DropInternal)?;
            let inner = Edit { src: record.client, dst: info.addr, sport: record.client_port, dport: info.port };
            (inner, (info.addr, record.client), false, Verdict::IcmpReply)
        };
        if parsed.ttl <= 1 {
            return Err(Verdict::PassTtl);
        }
        let mut out = frame.to_vec();
        let check = parsed.upper + 2;
        rewrite::place(&mut out, &place, &inner, &[check]);
        if parsed.v4 {
            rewrite::patch(&mut out, parsed.ip + 12, &outer.0[12..], &[parsed.ip + 10]);
            rewrite::patch(&mut out, parsed.ip + 16, &outer.1[12..], &[parsed.ip + 10]);
        } else {
            rewrite::patch(&mut out, parsed.ip + 8, &outer.0, &[check]);
            rewrite::patch(&mut out, parsed.ip + 24, &outer.1, &[check]);
        }
        if keep_hop {
            return Ok(Outcome { action: Action::Pass, verdict, frame: out });
        }
        rewrite::ttl(&mut out, parsed, parsed.ttl - 1);
        Ok(self.leave(out, parsed, &outer.1, (verdict, verdict)))
    }
}

fn quoted(frame: &[u8], parsed: &Parsed) -> Result<(Tuple, Place), Verdict> {
    let start = parsed.upper + 8;
    let inner = &frame[start..parsed.ip + parsed.length];
    if inner.len() < if parsed.v4 { 20 } else { 40 } {
        return Err(Verdict::PassMalformed);
    }
    if inner[0] >> 4 != if parsed.v4 { 4 } else { 6 } {
        return Err(Verdict::PassIcmpUnrelated);
    }
    let (src, dst, proto, header) = if parsed.v4 {
        (v4_at(inner, 12), v4_at(inner, 16), inner[9], usize::from(inner[0] & 15) * 4)
    } else {
        (v6_at(inner, 8), v6_at(inner, 24), inner[6], 40)
    };
    if parsed.v4 && header < 20 {
        return Err(Verdict::PassMalformed);
    }
    if (parsed.v4 && be16(inner, 6) & 0x1fff != 0) || !matches!(proto, IPPROTO_TCP | IPPROTO_UDP) {
        return Err(Verdict::PassIcmpUnrelated);
    }
    if inner.len() < header + 8 {
        return Err(Verdict::PassMalformed);
    }
    if src != parsed.dst {
        return Err(Verdict::PassIcmpUnrelated);
    }
    let upper = &inner[header..];
    let tuple = Tuple { src, dst, sport: [upper[0], upper[1]], dport: [upper[2], upper[3]], proto };
    Ok((tuple, Place { ip: start, upper: start + header, v4: parsed.v4, proto, have: upper.len() }))
}

fn echo(frame: &[u8], parsed: &Parsed) -> Outcome {
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&frame[6..12]);
    out[6..12].copy_from_slice(&frame[..6]);
    let (at, size) = if parsed.v4 { (parsed.ip + 12, 4) } else { (parsed.ip + 8, 16) };
    // Swapping two addresses leaves every sum as it is.
    out[at..at + size].copy_from_slice(&frame[at + size..at + 2 * size]);
    out[at + size..at + 2 * size].copy_from_slice(&frame[at..at + size]);
    rewrite::ttl(&mut out, parsed, 64);
    let kind = if parsed.v4 { 0 } else { 129 };
    rewrite::patch(&mut out, parsed.upper, &[kind, 0], &[parsed.upper + 2]);
    Outcome { action: Action::Tx, verdict: Verdict::Echo, frame: out }
}
