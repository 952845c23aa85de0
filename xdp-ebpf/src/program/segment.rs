//! A packet taken apart as far as the rules ask: addresses, ports, and where the checksum lies.

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP};

use crate::family::{Family, Payload};
use crate::maps::{Address, Key};
use crate::packet::{Buffer, Window};

/// TCP's or UDP's header behind an IP header.
pub struct Segment<F: Family> {
    pub ip: F::Header,
    pub l4: Window<8>,
    pub check: Window<2>,
    pub src: Address,
    pub dst: Address,
    pub sport: u16,
    pub dport: u16,
    pub proto: u8,
    /// TCP's flags; 0 for UDP.
    pub flags: u8,
}

/// TCP's flags (RFC 9293 §3.1).
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

impl<F: Family> Segment<F> {
    /// `None` for another protocol.
    #[inline(always)]
    pub fn parse(frame: impl Buffer, ip: F::Header, payload: &Payload) -> Result<Option<Self>, Verdict> {
        let (l4, check, flags) = match payload.proto {
            IPPROTO_TCP => {
                let Some(tcp) = frame.window::<20>(payload.at).filter(|_| payload.len >= 20) else {
                    return Err(Verdict::PassMalformed);
                };
                (tcp.sub::<0, 8>(), tcp.sub::<16, 2>(), tcp.u8::<13>())
            }
            IPPROTO_UDP => {
                let Some(udp) = frame.window::<8>(payload.at).filter(|_| payload.len >= 8) else {
                    return Err(Verdict::PassMalformed);
                };
                (udp, udp.sub::<6, 2>(), 0)
            }
            _ => return Ok(None),
        };
        let (src, dst) = (F::src(ip), F::dst(ip));
        let (sport, dport) = (l4.u16::<0>(), l4.u16::<2>());
        Ok(Some(Self { ip, l4, check, src, dst, sport, dport, proto: payload.proto, flags }))
    }

    /// The destination as a key of `FRONTENDS`.
    #[inline(always)]
    pub fn frontend(&self) -> Key {
        Key { addr: self.dst, port: self.dport, proto: self.proto, pad: 0 }
    }

    /// SYN without ACK: a client opens a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.proto == IPPROTO_TCP && self.flags & (flag::SYN | flag::ACK) == flag::SYN
    }

    /// FIN or RST: the flow is about to end.
    #[inline(always)]
    pub fn last(&self) -> bool {
        self.flags & (flag::FIN | flag::RST) != 0
    }
}
