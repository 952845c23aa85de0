//! The PROXY protocol's header (haproxy, proxy-protocol.txt): read in versions 1 and 2, written in version 1. Pure.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// proxy-protocol.txt §2.1: the longest line of version 1, with its end.
const V1_MOST: usize = 107;
/// §2.2: the first 12 bytes of version 2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.2: the part that is always there; its last two bytes are the length of the rest.
const V2_FIXED: usize = 16;
/// nginx's bound, room for the extensions that clouds send.
pub(super) const MOST: usize = 4096;

/// Whose connection it is, and where it went at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More bytes are needed.
    Incomplete,
    /// Its length, and whose connection it says this is; `None` where the sender speaks for itself.
    Complete(usize, Option<Ends>),
    Invalid,
}

/// Reads the header at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Header {
    let common = bytes.len().min(V2_SIGNATURE.len());
    if bytes[..common] == V2_SIGNATURE[..common] {
        return read_v2(bytes);
    }
    let line = &bytes[..bytes.len().min(V1_MOST)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        let prefix = &line[..line.len().min(v1::PROTOCOL_PREFIX.len())];
        let may_be = v1::PROTOCOL_PREFIX.as_bytes().starts_with(prefix) && line.len() < V1_MOST;
        return if may_be { Header::Incomplete } else { Header::Invalid };
    };
    let length = end + 2;
    match v1::Header::try_from(&bytes[..length]).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(a)) => Header::Complete(length, Some(v4(a))),
        Ok(v1::Addresses::Tcp6(a)) => Header::Complete(length, Some(v6(a))),
        // §2.1: the receiver ignores what follows and takes the connection's own addresses.
        Ok(v1::Addresses::Unknown) => Header::Complete(length, None),
        Err(_) => Header::Invalid,
    }
}

fn read_v2(bytes: &[u8]) -> Header {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else { return Header::Incomplete };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MOST {
        return Header::Invalid;
    }
    let Some(whole) = bytes.get(..length) else { return Header::Incomplete };
    let Ok(header) = v2::Header::try_from(whole) else { return Header::Invalid };
    let ends = match (header.command, header.addresses) {
        // §2.2: LOCAL is the sender's own, a health check for example.
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(a)) => Some(v4(a)),
        (v2::Command::Proxy, v2::Addresses::IPv6(a)) => Some(v6(a)),
    };
    Header::Complete(length, ends)
}

fn v4(a: v1::IPv4) -> Ends {
    Ends {
        source: SocketAddr::new(a.source_address.into(), a.source_port),
        destination: SocketAddr::new(a.destination_address.into(), a.destination_port),
    }
}

fn v6(a: v1::IPv6) -> Ends {
    Ends {
        source: SocketAddr::new(a.source_address.into(), a.source_port),
        destination: SocketAddr::new(a.destination_address.into(), a.destination_port),
    }
}

/// Version 1, as nginx's `proxy_protocol on` writes it.
pub(super) fn write(ends: &Ends) -> Vec<u8> {
    let (source, destination) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    let (from, to) = (ends.source.port(), ends.destination.port());
    let mut line = Vec::with_capacity(V1_MOST);
    // Writing to a Vec cannot fail.
    let _ = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => write!(line, "PROXY TCP4 {s} {d} {from} {to}\r\n"),
        (IpAddr::V6(s), IpAddr::V6(d)) => write!(line, "PROXY TCP6 {s} {d} {from} {to}\r\n"),
        // There is no line for two families.
        _ => write!(line, "PROXY UNKNOWN\r\n"),
    };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn headers_are_read_whatever_follows_and_not_before_they_are_whole() {
        let addresses = [192, 0, 2, 1, 203, 0, 113, 1, 0x9c, 0x40, 0x01, 0xbb];
        let with_extension = [&addresses[..], &[4, 0, 1, 0]].concat();
        let told = Some(ends("192.0.2.1:40000", "203.0.113.1:443"));
        for (bytes, wanted) in [
            (b"PROXY TCP4 192.0.2.1 203.0.113.1 40000 443\r\n".to_vec(), told),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(),
                Some(ends("[2001:db8::1]:1", "[2001:db8::2]:65535")),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &addresses), told),
            (v2(0x21, 0x11, &with_extension), told),
            (v2(0x20, 0x11, &addresses), None),
            (v2(0x20, 0x00, &[]), None),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Header::Incomplete, "{:?}", String::from_utf8_lossy(&bytes[..cut]));
            }
            let more = [bytes.as_slice(), b"\r\nGET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(read(&more), Header::Complete(bytes.len(), wanted), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn what_is_none_is_refused_at_once() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"G",
            b"PROXY TCP4 192.0.2.1 203.0.113.1 40000\r\n",
            b"PROXY TCP4 192.0.2.1 2001:db8::1 40000 443\r\n",
            b"PROXY TCP4 192.0.2.300 203.0.113.1 40000 443\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.1 40000 65536\r\n",
            b"PROXY  TCP4 192.0.2.1 203.0.113.1 1 2\r\n",
            &long,
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(read(bytes), Header::Invalid, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for (source, destination) in [("192.0.2.1:1", "203.0.113.1:443"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
            let ends = ends(source, destination);
            let line = write(&ends);
            assert_eq!(read(&line), Header::Complete(line.len(), Some(ends)));
        }
        assert_eq!(write(&ends("192.0.2.1:1", "[2001:db8::2]:2")), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn any_bytes_get_an_answer() {
        let mut state = 0x5eed_u64;
        for round in 0..100_000_usize {
            let mut bytes = match round % 3 {
                0 => v2(0x21, 0x21, &[7; 36]),
                1 => b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(),
                _ => Vec::new(),
            };
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 40) as usize % (bytes.len() + 1);
                bytes.insert(at, (state >> 32) as u8);
                bytes.truncate(1 + (state >> 48) as usize % 60);
            }
            if let Header::Complete(length, _) = read(&bytes) {
                assert!(length <= bytes.len());
            }
        }
    }
}
