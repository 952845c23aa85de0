//! VRRP adverts as bytes: version 3 (RFC 9568) for both families, version 2 (RFC 3768) for IPv4. Pure: no socket, no clock.
//! Nothing here trusts a length that came from the wire, and whatever is wrong with a packet has one name in [`Reject`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// IP protocol number (RFC 9568 §5.1.1.4).
pub(crate) const PROTOCOL: u8 = 112;
/// RFC 9568 §5.1.1.2 and §5.1.2.2.
pub(crate) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
pub(crate) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// RFC 9568 §5.1.1.3: any other TTL or hop limit came from beyond the link.
const HOP_LIMIT: u8 = 255;

const HEADER: usize = 8;
const TYPE_ADVERTISEMENT: u8 = 1;
/// RFC 3768 §5.3.10: eight bytes after the addresses, whatever the type of authentication.
const V2_AUTH_DATA: usize = 8;
const V2_NO_AUTH: u8 = 0;
const V2_PASSWORD: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4 only, whole seconds, everybody must have the same interval.
    V2,
    /// RFC 9568: hundredths of a second, backups adopt the interval of the Active Router.
    V3,
}

/// How the checksum of version 3 over IPv4 is made. Version 2 never has a pseudo-header, IPv6 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// keepalived's default, and what RFC 5798 was read to mean.
    #[default]
    WithPseudoHeader,
    /// RFC 9568 §5.2.8.
    Plain,
}

/// Eight bytes of `auth_type PASS`, padded with zeros: version 2 only. Everybody on the link can read it.
pub type Password = [u8; V2_AUTH_DATA];

/// Bytes that may follow an advert of version 3: what they say is the business of `auth`.
pub(crate) const TRAILER: usize = 28;
pub(crate) type Trailer = [u8; TRAILER];

/// An advert (RFC 9568 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) version: Version,
    pub(crate) vrid: u8,
    /// 0: the sender gives up. 255: the sender owns the addresses.
    pub(crate) priority: u8,
    /// Never zero. Hundredths of a second in version 3, seconds in version 2.
    pub(crate) interval: Duration,
    /// Of one family, at most 255.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) password: Option<Password>,
}

/// What the IP header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
}

/// Why a packet has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reject {
    Truncated,
    /// Longer than its address count says, such as by a trailer of an extension that is not spoken here.
    Length,
    HopLimit,
    Version,
    Type,
    Checksum,
    /// A VRID of 0, or one that no address of ours has: another pair's, normally.
    Vrid,
    /// None of the addresses is ours: a foreign router that uses the same VRID.
    AddressList,
    Interval,
    /// It claims to come from ourselves.
    OwnAddress,
    /// The password, or its absence.
    Authentication,
    /// It has no trailer, and must have one.
    Unsigned,
    /// A trailer of another scheme.
    Trailer,
    /// Signed with a key that is not known here.
    UnknownKey,
    /// The signature is not that of the key that it names.
    Forged,
    /// Signed at a time that is too far from now.
    Stale,
    /// Signed, and heard before, or after one that was signed later.
    Replayed,
    /// Unicast is configured, and the sender is none of the peers; or it came by the other way (multicast, unicast).
    Peer,
}

impl Reject {
    pub(crate) const ALL: [Self; 18] = [
        Self::Truncated,
        Self::Length,
        Self::HopLimit,
        Self::Version,
        Self::Type,
        Self::Checksum,
        Self::Vrid,
        Self::AddressList,
        Self::Interval,
        Self::OwnAddress,
        Self::Authentication,
        Self::Unsigned,
        Self::Trailer,
        Self::UnknownKey,
        Self::Forged,
        Self::Stale,
        Self::Replayed,
        Self::Peer,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Length => "length",
            Self::HopLimit => "hop_limit",
            Self::Version => "version",
            Self::Type => "type",
            Self::Checksum => "checksum",
            Self::Vrid => "vrid",
            Self::AddressList => "address_list",
            Self::Interval => "interval",
            Self::OwnAddress => "own_address",
            Self::Authentication => "authentication",
            Self::Unsigned => "hmac_missing",
            Self::Trailer => "hmac_malformed",
            Self::UnknownKey => "hmac_unknown_key",
            Self::Forged => "hmac_wrong",
            Self::Stale => "hmac_stale",
            Self::Replayed => "hmac_replayed",
            Self::Peer => "peer",
        }
    }
}

impl Advert {
    /// The payload of the IP packet.
    pub(crate) fn encode(&self, source: IpAddr, destination: IpAddr, checksum: Checksum) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.addresses.len() * 16 + V2_AUTH_DATA);
        let version = match self.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let count = self.addresses.len().min(255);
        bytes.extend_from_slice(&[version << 4 | TYPE_ADVERTISEMENT, self.vrid, self.priority, count as u8]);
        match self.version {
            Version::V3 => {
                // RFC 9568 §5.2.7: twelve bits.
                let centiseconds = (self.interval.as_millis() / 10).clamp(1, 0xfff) as u16;
                bytes.extend_from_slice(&centiseconds.to_be_bytes());
            }
            Version::V2 => {
                let auth = if self.password.is_some() { V2_PASSWORD } else { V2_NO_AUTH };
                bytes.extend_from_slice(&[auth, self.interval.as_secs().clamp(1, 255) as u8]);
            }
        }
        bytes.extend_from_slice(&[0, 0]);
        for address in self.addresses.iter().take(count) {
            match address {
                IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
            }
        }
        if self.version == Version::V2 {
            bytes.extend_from_slice(&self.password.unwrap_or_default());
        }
        let pseudo = match (self.version, source) {
            (Version::V2, _) => false,
            (Version::V3, IpAddr::V6(_)) => true,
            (Version::V3, IpAddr::V4(_)) => checksum == Checksum::WithPseudoHeader,
        };
        let sum = if pseudo { pseudo_sum(source, destination, bytes.len()) } else { 0 };
        let sum = !fold(sum + sum_of(&bytes));
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// What the payload of an IP packet says, in the order of checks of RFC 9568 §7.1. Whether the VRID, the addresses and the
    /// sender are known is the caller's business.
    pub(crate) fn decode(payload: &[u8], envelope: &Envelope) -> Result<Self, Reject> {
        Self::read(payload, payload, envelope)
    }

    /// The same where a trailer may follow: the message alone, the trailer, and what the message says.
    pub(crate) fn decode_signed<'a>(
        payload: &'a [u8],
        envelope: &Envelope,
    ) -> Result<(&'a [u8], Option<&'a Trailer>, Self), Reject> {
        let v4 = envelope.source.is_ipv4();
        let (message, trailer) = split_trailer(payload, v4);
        let advert = Self::read(message, if v4 { message } else { payload }, envelope)?;
        Ok((message, trailer, advert))
    }

    /// `summed`: what the checksum is over.
    fn read(payload: &[u8], summed: &[u8], envelope: &Envelope) -> Result<Self, Reject> {
        if envelope.hop_limit != HOP_LIMIT {
            return Err(Reject::HopLimit);
        }
        let [first, vrid, priority, count, five, six, ..] = *payload else { return Err(Reject::Truncated) };
        if payload.len() < HEADER {
            return Err(Reject::Truncated);
        }
        let v4 = envelope.source.is_ipv4();
        let version = match (first >> 4, v4) {
            (2, true) => Version::V2,
            (3, _) => Version::V3,
            _ => return Err(Reject::Version),
        };
        let size = if v4 { 4 } else { 16 };
        let trailer = if version == Version::V2 { V2_AUTH_DATA } else { 0 };
        let end = HEADER + usize::from(count) * size;
        match payload.len().cmp(&(end + trailer)) {
            std::cmp::Ordering::Less => return Err(Reject::Truncated),
            std::cmp::Ordering::Greater => return Err(Reject::Length),
            std::cmp::Ordering::Equal => {}
        }
        // Over IPv4 both kinds are about, and whoever sends one may be told to send the other: either is good.
        let plain = fold(sum_of(summed));
        let pseudo = fold(u32::from(plain) + pseudo_sum(envelope.source, envelope.destination, summed.len()));
        let good = match (version, v4) {
            (Version::V2, _) => plain == 0xffff,
            (Version::V3, true) => plain == 0xffff || pseudo == 0xffff,
            (Version::V3, false) => pseudo == 0xffff,
        };
        if !good {
            return Err(Reject::Checksum);
        }
        if first & 0xf != TYPE_ADVERTISEMENT {
            return Err(Reject::Type);
        }
        if vrid == 0 {
            return Err(Reject::Vrid);
        }
        // RFC 9568 §5.2.5: at least one address.
        if count == 0 {
            return Err(Reject::AddressList);
        }
        let (interval, password) = match version {
            // RFC 9568 §5.2.6: the upper four bits are ignored.
            Version::V3 => (Duration::from_millis(u64::from(u16::from_be_bytes([five, six]) & 0xfff) * 10), None),
            Version::V2 => {
                let password = match five {
                    V2_NO_AUTH => None,
                    V2_PASSWORD => payload.get(end..).and_then(|data| Password::try_from(data).ok()),
                    _ => return Err(Reject::Authentication),
                };
                (Duration::from_secs(u64::from(six)), password)
            }
        };
        if interval.is_zero() {
            return Err(Reject::Interval);
        }
        let addresses = payload[HEADER..end].chunks_exact(size).filter_map(address).collect();
        Ok(Self { version, vrid, priority, interval, addresses, password })
    }
}

/// A message of version 3 and the trailer that follows it, if one does.
fn split_trailer(payload: &[u8], v4: bool) -> (&[u8], Option<&Trailer>) {
    let whole = (payload, None);
    let [first, _, _, count, ..] = payload else { return whole };
    let end = HEADER + usize::from(*count) * if v4 { 4 } else { 16 };
    match payload.split_at_checked(end) {
        Some((message, rest)) if first >> 4 == 3 => match Trailer::try_from(rest) {
            Ok(_) => (message, rest.first_chunk()),
            Err(_) => whole,
        },
        _ => whole,
    }
}

/// Puts a trailer behind a message of version 3. Over IPv6 the checksum covers it, as the kernel's does.
pub(crate) fn append(message: &mut Vec<u8>, trailer: &Trailer, source: IpAddr, destination: IpAddr) {
    message.extend_from_slice(trailer);
    if source.is_ipv6() {
        message[6..8].copy_from_slice(&[0, 0]);
        let sum = !fold(pseudo_sum(source, destination, message.len()) + sum_of(message));
        message[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Header and payload of a packet as a raw IPv4 socket hands it out.
pub(crate) fn split_ipv4(packet: &[u8]) -> Result<(Envelope, &[u8]), Reject> {
    let header = packet.get(..20).ok_or(Reject::Truncated)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // An advert is never so long that it comes in fragments: more of them (0x20) or an offset.
    if header[6] & 0x3f != 0 || header[7] != 0 {
        return Err(Reject::Truncated);
    }
    let payload = packet.get(header_len.max(20)..total).ok_or(Reject::Truncated)?;
    let at = |i: usize| Ipv4Addr::new(header[i], header[i + 1], header[i + 2], header[i + 3]);
    Ok((Envelope { source: at(12).into(), destination: at(16).into(), hop_limit: header[8] }, payload))
}

/// Header and payload of an IPv6 packet whose first next header is VRRP.
pub(crate) fn split_ipv6(packet: &[u8]) -> Result<(Envelope, &[u8]), Reject> {
    let header = packet.get(..40).ok_or(Reject::Truncated)?;
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = packet.get(40..end).ok_or(Reject::Truncated)?;
    let at = |i: usize| header.get(i..i + 16).and_then(address).ok_or(Reject::Truncated);
    Ok((Envelope { source: at(8)?, destination: at(24)?, hop_limit: header[7] }, payload))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// RFC 8200 §8.1, and the same fields of IPv4 as for UDP (RFC 768).
fn pseudo_sum(source: IpAddr, destination: IpAddr, len: usize) -> u32 {
    let of = |address| match address {
        IpAddr::V4(v4) => sum_of(&v4.octets()),
        IpAddr::V6(v6) => sum_of(&v6.octets()),
    };
    of(source) + of(destination) + u32::from(PROTOCOL) + len as u32
}

/// RFC 1071, not folded: at most 4 KiB come in, so it cannot overflow.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
