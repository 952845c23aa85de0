//! Packets as a test writes them: built with right lengths and checksums, and checked from scratch. Independent of the
//! program's parser on purpose; never shares its code.

use std::net::{IpAddr, SocketAddr};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
pub const EDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0e];

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;

/// One frame. Fields that a test does not set hold what an ordinary sender would.
#[derive(Clone, Debug)]
pub struct Packet {
    pub macs: ([u8; 6], [u8; 6]),
    /// (ethertype, tag control), outermost first.
    pub vlans: Vec<(u16, u16)>,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv4 identification, flags and offset.
    pub fragment: [u8; 4],
    /// IPv6 extension headers before the upper layer: (header type, bytes with byte 0 to be filled with what follows).
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub upper: Upper,
}

/// What follows the IP header.
#[derive(Clone, Debug)]
pub enum Upper {
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
        payload: Vec<u8>,
    },
    /// `checksum: false` leaves it 0 (allowed over IPv4 only, RFC 768).
    Udp {
        sport: u16,
        dport: u16,
        checksum: bool,
        payload: Vec<u8>,
    },
    /// Type, code, the four bytes after the checksum, the rest. ICMP or ICMPv6 by the family.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        payload: Vec<u8>,
    },
    Other {
        protocol: u8,
        payload: Vec<u8>,
    },
}

fn packet(src: SocketAddr, dst: SocketAddr, upper: Upper) -> Packet {
    Packet {
        macs: (EDGE_MAC, CLIENT_MAC),
        vlans: vec![],
        src: src.ip(),
        dst: dst.ip(),
        ttl: 64,
        tos: 0,
        options: vec![],
        fragment: [0x12, 0x34, 0x40, 0],
        extensions: vec![],
        upper,
    }
}

/// A TCP segment with sixteen bytes of payload unless it is a SYN.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Packet {
    let payload = if flags & SYN == 0 { b"sixteen bytes...".to_vec() } else { vec![] };
    packet(src, dst, Upper::Tcp { sport: src.port(), dport: dst.port(), flags, payload })
}

pub fn udp(src: SocketAddr, dst: SocketAddr) -> Packet {
    let payload = b"a datagram".to_vec();
    packet(src, dst, Upper::Udp { sport: src.port(), dport: dst.port(), checksum: true, payload })
}

/// An ICMP or ICMPv6 message, by the family of `src`.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], payload: Vec<u8>) -> Packet {
    packet(SocketAddr::new(src, 0), SocketAddr::new(dst, 0), Upper::Icmp { kind, code, rest, payload })
}

impl Packet {
    #[must_use]
    pub fn vlan(mut self, ethertype: u16, tag: u16) -> Self {
        self.vlans.push((ethertype, tag));
        self
    }

    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        match &mut self.upper {
            Upper::Tcp { payload, .. }
            | Upper::Udp { payload, .. }
            | Upper::Icmp { payload, .. }
            | Upper::Other { payload, .. } => *payload = bytes.to_vec(),
        }
        self
    }

    /// The frame's bytes, all lengths and checksums right.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.macs.0, self.macs.1].concat();
        for (ethertype, tag) in &self.vlans {
            out.extend(ethertype.to_be_bytes());
            out.extend(tag.to_be_bytes());
        }
        out.extend(if self.src.is_ipv4() { 0x0800u16 } else { 0x86dd }.to_be_bytes());
        out.extend(self.ip_bytes());
        out
    }

    /// The packet without its Ethernet header.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let (protocol, upper) = self.upper_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = 20 + self.options.len();
                let mut out = vec![0x40 | (header / 4) as u8, self.tos];
                out.extend(((header + upper.len()) as u16).to_be_bytes());
                out.extend(self.fragment);
                out.extend([self.ttl, protocol, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(&self.options);
                let check = checksum(&[&out]);
                out[10..12].copy_from_slice(&check);
                out.extend(upper);
                out
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut chain = vec![];
                for (i, (_, body)) in self.extensions.iter().enumerate() {
                    let mut body = body.clone();
                    body[0] = self.extensions.get(i + 1).map_or(protocol, |(next, _)| *next);
                    chain.extend(body);
                }
                let first = self.extensions.first().map_or(protocol, |(kind, _)| *kind);
                let mut out = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                out.extend(((chain.len() + upper.len()) as u16).to_be_bytes());
                out.extend([first, self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(chain);
                out.extend(upper);
                out
            }
            _ => panic!("source and destination of different families"),
        }
    }

    fn upper_bytes(&self) -> (u8, Vec<u8>) {
        let v4 = self.src.is_ipv4();
        let (protocol, mut out, at) = match &self.upper {
            Upper::Tcp { sport, dport, flags, payload } => {
                let mut out = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                out.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                out.extend(payload);
                (6, out, Some(16))
            }
            Upper::Udp { sport, dport, checksum, payload } => {
                let mut out = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                out.extend((8 + payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                out.extend(payload);
                (17, out, checksum.then_some(6))
            }
            Upper::Icmp { kind, code, rest, payload } => {
                let mut out = vec![*kind, *code, 0, 0];
                out.extend(rest);
                out.extend(payload);
                (if v4 { 1 } else { 58 }, out, Some(2))
            }
            Upper::Other { protocol, payload } => (*protocol, payload.clone(), None),
        };
        if let Some(at) = at {
            let pseudo = if protocol == 1 { vec![] } else { pseudo_header(self.src, self.dst, protocol, out.len()) };
            let mut check = checksum(&[&pseudo, &out]);
            if protocol == 17 && check == [0, 0] {
                check = [0xff, 0xff];
            }
            out[at..at + 2].copy_from_slice(&check);
        }
        (protocol, out)
    }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            [&src.octets()[..], &dst.octets(), &[0, protocol], &(length as u16).to_be_bytes()].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            [&src.octets()[..], &dst.octets(), &(length as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat()
        }
        _ => panic!("source and destination of different families"),
    }
}

/// RFC 1071, the slow and obvious way. Each part must have an even length but the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|p| p.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Checks every checksum of a whole frame, those inside an ICMP error's quoted packet included where they are complete.
/// Returns what is wrong.
pub fn faults(frame: &[u8]) -> Vec<String> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    ip_faults(&frame[at + 2..], true)
}

fn ip_faults(ip: &[u8], whole: bool) -> Vec<String> {
    let mut faults = vec![];
    let what = if whole { "" } else { "quoted " };
    let (src, dst, protocol, upper, complete): (IpAddr, IpAddr, u8, &[u8], bool) = if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 15) * 4;
        if checksum(&[&ip[..header]]) != [0, 0] {
            faults.push(format!("{what}IPv4 header checksum"));
        }
        let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        if whole && length > ip.len() {
            faults.push(format!("IPv4 length {length} of {}", ip.len()));
        }
        let source: [u8; 4] = ip[12..16].try_into().expect("4 bytes");
        let dest: [u8; 4] = ip[16..20].try_into().expect("4 bytes");
        let upper = &ip[header..length.min(ip.len())];
        (source.into(), dest.into(), ip[9], upper, length <= ip.len() && ip[6] & 0x3f == 0 && ip[7] == 0)
    } else {
        let (mut next, mut at) = (ip[6], 40);
        while matches!(next, 0 | 43 | 60) && at + 8 <= ip.len() {
            (next, at) = (ip[at], at + 8 + usize::from(ip[at + 1]) * 8);
        }
        let length = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let source: [u8; 16] = ip[8..24].try_into().expect("16 bytes");
        let dest: [u8; 16] = ip[24..40].try_into().expect("16 bytes");
        (source.into(), dest.into(), next, &ip[at.min(ip.len())..length.min(ip.len())], length <= ip.len())
    };
    if !complete {
        return faults;
    }
    let pseudo = if protocol == 1 { vec![] } else { pseudo_header(src, dst, protocol, upper.len()) };
    let zero_udp = protocol == 17 && upper.get(6..8) == Some(&[0, 0]);
    if matches!(protocol, 1 | 6 | 17 | 58) && !zero_udp && checksum(&[&pseudo, upper]) != [0, 0] {
        faults.push(format!("{what}checksum of protocol {protocol}"));
    }
    let quotes = (protocol == 1 && matches!(upper.first(), Some(3 | 11 | 12)))
        || (protocol == 58 && matches!(upper.first(), Some(1..=4)));
    if quotes && upper.len() >= 8 + 20 {
        faults.extend(ip_faults(&upper[8..], false));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_built_has_no_faults_and_a_flipped_bit_is_one() {
        let (a4, b4) = (at("198.51.100.7:40000"), at("203.0.113.10:443"));
        let (a6, b6) = (at("[2001:db8::7]:40000"), at("[2001:db8:1::10]:443"));
        let quoted = udp(b4, a4).ip_bytes();
        for packet in [
            tcp(a4, b4, SYN),
            tcp(a6, b6, ACK).vlan(0x8100, 7),
            udp(a4, b4).payload(b"odd"),
            udp(a6, b6),
            icmp(a4.ip(), b4.ip(), 3, 3, [0; 4], quoted),
            icmp(a6.ip(), b6.ip(), 128, 0, [1, 2, 3, 4], b"ping".to_vec()),
        ] {
            let mut bytes = packet.bytes();
            assert_eq!(faults(&bytes), Vec::<String>::new(), "{packet:?}");
            *bytes.last_mut().expect("not empty") ^= 1;
            assert_ne!(faults(&bytes), Vec::<String>::new(), "{packet:?}");
        }
    }
}
