//! What edges say to each other: one datagram, authenticated as a whole, with up to a few dozen flows or uses of shared limits. Pure; it reads no clock and
//! opens no socket. A body is understood to its last byte before any of it has an effect.
//!
//! All integers are big-endian. A datagram is the header, the body and the tag:
//!
//! | bytes | header |
//! |---|---|
//! | 4 | `SGFS` |
//! | 1 | version, 1 |
//! | 1 | kind: 1 flows, 2 request, 3 end, 4 alive, 5 limits |
//! | 2 | entries in the body |
//! | 8 | the sender's epoch: nanoseconds since 1970 when it started |
//! | 8 | sequence number within the epoch, from 1, one count for all receivers |
//! | 8 | milliseconds since 1970 when it was sent |
//! | 8 | token: of a request, and of the flows and the end that answer it; else 0 |
//!
//! The tag is HMAC-SHA256 (RFC 2104, RFC 6234) over all before it. Bodies: flows and limits have entries; end has 4 bytes, the number of
//! datagrams before it under its token; the others have none. A kind that is not known makes a datagram malformed; nobody depends on an
//! answer to one, so edges of different age get along. An entry of flows:
//!
//! | bytes | upsert | delete |
//! |---|---|---|
//! | 1 | 1 | 2 |
//! | 1 | 4 or 6: the family of all its addresses | the same |
//! | 1 | IP protocol, 6 or 17 | the same |
//! | 1 | `flow_state`, 2 or 3 | 0 |
//! | 2 | seconds since its last packet | – |
//! | 2 | seconds since it was opened, at most 65,535 | – |
//! | 2 + 2 | port of the client, of the VIP | the same |
//! | 2 + 2 | port of the endpoint, and the source port that the endpoint sees | – |
//! | 4 or 16, twice | address of the client, of the VIP | the same |
//! | 4 or 16, twice | address of the endpoint, and the source address that it sees | – |
//!
//! An entry of limits, a client's requests that the sender let through and has not told yet:
//!
//! | bytes | |
//! |---|---|
//! | 1 | 4 or 6: the family of the address |
//! | 16 | [`LimitId`] |
//! | 4 | requests, never 0 |
//! | 4 or 16 | address of the client |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, flow_state};

use crate::model::sync::{LimitId, LimitUse};

/// UDP payload of a datagram at most: with IPv6 and UDP headers it passes a path of 1280 bytes, the least that IPv6 allows
/// (RFC 8200 §5), so that no tunnel between the edges makes it fragments.
pub(super) const LARGEST: usize = 1232;
const MAGIC: [u8; 4] = *b"SGFS";
const VERSION: u8 = 1;
const HEADER: usize = 40;
const TAG: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub epoch: u64,
    pub sequence: u64,
    pub time: u64,
    pub token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Flows,
    /// Send me every flow.
    Request,
    /// Those were all.
    End,
    /// I am here and know of nothing new.
    Alive,
    Limits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Flows(Vec<Entry>),
    /// Datagrams of flows under the token.
    End(u32),
    Limits(Vec<LimitUse>),
    Nothing,
}

/// Whose flow it is. All addresses of an entry are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub proto: u8,
    pub client: SocketAddr,
    pub vip: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Upsert(FlowKey, Facts),
    Delete(FlowKey),
}

/// What has to be the same wherever the flow goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub endpoint: SocketAddr,
    /// Address and port that the endpoint sees.
    pub source: SocketAddr,
    /// [`flow_state`]: `ESTABLISHED` or `CLOSING`.
    pub state: u8,
    /// Seconds since its last packet.
    pub idle: u16,
    /// Seconds since it was opened, at most 65,535.
    pub age: u16,
}

/// Why a datagram has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    Version,
    /// The tag does not fit: another key, or a forgery.
    Forged,
}

/// A datagram under construction.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    entries: u16,
}

impl Draft {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(LARGEST);
        bytes.resize(HEADER, 0);
        Self { bytes, entries: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Adds an entry. False when it does not fit.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        let (key, facts) = match entry {
            Entry::Upsert(key, facts) => (key, Some(facts)),
            Entry::Delete(key) => (key, None),
        };
        let v4 = key.vip.is_ipv4();
        let address = if v4 { 4 } else { 16 };
        let len = if facts.is_some() { 16 + 4 * address } else { 8 + 2 * address };
        if self.bytes.len() + len + TAG > LARGEST {
            return false;
        }
        let out = &mut self.bytes;
        let family = if v4 { 4 } else { 6 };
        out.extend([if facts.is_some() { UPSERT } else { DELETE }, family, key.proto, facts.map_or(0, |f| f.state)]);
        if let Some(facts) = facts {
            out.extend(facts.idle.to_be_bytes());
            out.extend(facts.age.to_be_bytes());
        }
        let addresses = [Some(key.client), Some(key.vip), facts.map(|f| f.endpoint), facts.map(|f| f.source)];
        for address in addresses.iter().flatten() {
            out.extend(address.port().to_be_bytes());
        }
        for address in addresses.iter().flatten() {
            put(out, address.ip());
        }
        self.entries += 1;
        true
    }

    /// The same with an entry of limits. A draft has entries of one kind.
    pub(super) fn push_use(&mut self, used: &LimitUse) -> bool {
        let (family, address) = if used.client.is_ipv4() { (4, 4) } else { (6, 16) };
        if self.bytes.len() + 21 + address + TAG > LARGEST {
            return false;
        }
        let out = &mut self.bytes;
        out.push(family);
        out.extend(used.limit.0);
        out.extend(used.requests.to_be_bytes());
        put(out, used.client);
        self.entries += 1;
        true
    }

    /// The datagram's bytes; the draft is empty again.
    pub(super) fn seal(&mut self, header: &Header, key: &hmac::Key) -> Vec<u8> {
        let mut bytes = std::mem::replace(self, Self::new()).sealed(header);
        bytes.extend(hmac::sign(key, &bytes).as_ref());
        bytes
    }

    fn sealed(self, header: &Header) -> Vec<u8> {
        let Self { mut bytes, entries } = self;
        let kind = match header.kind {
            Kind::Flows => 1,
            Kind::Request => 2,
            Kind::End => 3,
            Kind::Alive => 4,
            Kind::Limits => 5,
        };
        bytes[..4].copy_from_slice(&MAGIC);
        (bytes[4], bytes[5]) = (VERSION, kind);
        bytes[6..8].copy_from_slice(&entries.to_be_bytes());
        for (at, value) in [(8, header.epoch), (16, header.sequence), (24, header.time), (32, header.token)] {
            bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    /// The end of an answer.
    pub(super) fn end(datagrams: u32) -> Self {
        let mut draft = Self::new();
        draft.bytes.extend(datagrams.to_be_bytes());
        draft
    }
}

fn put(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// Takes a datagram apart, once its tag is proven.
pub(super) fn open(bytes: &[u8], key: &hmac::Key) -> Result<(Header, Body), Fault> {
    if bytes.len() < HEADER + TAG || bytes[..4] != MAGIC {
        return Err(Fault::Malformed);
    }
    if bytes[4] != VERSION {
        return Err(Fault::Version);
    }
    let (said, tag) = bytes.split_at(bytes.len() - TAG);
    hmac::verify(key, said, tag).map_err(|_| Fault::Forged)?;
    let mut rest = Bytes(&said[5..]);
    parse(&mut rest).filter(|_| rest.0.is_empty()).ok_or(Fault::Malformed)
}

fn parse(rest: &mut Bytes) -> Option<(Header, Body)> {
    let kind = match rest.take::<1>()? {
        [1] => Kind::Flows,
        [2] => Kind::Request,
        [3] => Kind::End,
        [4] => Kind::Alive,
        [5] => Kind::Limits,
        _ => return None,
    };
    let count = rest.u16()?;
    let header = Header { kind, epoch: rest.u64()?, sequence: rest.u64()?, time: rest.u64()?, token: rest.u64()? };
    let body = match kind {
        Kind::Flows => Body::Flows((0..count).map(|_| entry(rest)).collect::<Option<_>>()?),
        Kind::Limits => Body::Limits((0..count).map(|_| limit_use(rest)).collect::<Option<_>>()?),
        Kind::End => Body::End(rest.u32()?),
        Kind::Request | Kind::Alive => Body::Nothing,
    };
    (matches!(kind, Kind::Flows | Kind::Limits) || count == 0).then_some((header, body))
}

fn limit_use(rest: &mut Bytes) -> Option<LimitUse> {
    let [family] = rest.take()?;
    let limit = LimitId(rest.take()?);
    let requests = rest.u32().filter(|requests| *requests != 0)?;
    let client = match family {
        4 | 6 => address(rest, family == 4)?,
        _ => return None,
    };
    Some(LimitUse { limit, client, requests })
}

fn entry(rest: &mut Bytes) -> Option<Entry> {
    let [what, family, proto, state] = rest.take()?;
    let family_known = matches!(family, 4 | 6) && matches!(proto, IPPROTO_TCP | IPPROTO_UDP);
    if !family_known {
        return None;
    }
    let v4 = family == 4;
    match what {
        UPSERT => {
            let (idle, age) = (rest.u16()?, rest.u16()?);
            let [client, vip, endpoint, source] = sockets(rest, v4)?;
            let state_known = matches!(state, flow_state::ESTABLISHED | flow_state::CLOSING);
            let facts = Facts { endpoint, source, state, idle, age };
            state_known.then_some(Entry::Upsert(FlowKey { proto, client, vip }, facts))
        }
        DELETE => {
            let [client, vip] = sockets(rest, v4)?;
            (state == 0).then_some(Entry::Delete(FlowKey { proto, client, vip }))
        }
        _ => None,
    }
}

/// `N` ports, then as many addresses. No port is 0, and none of the addresses is a mapped one: each has one way to be written.
fn sockets<const N: usize>(rest: &mut Bytes, v4: bool) -> Option<[SocketAddr; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = rest.u16().filter(|port| *port != 0)?;
    }
    let mut found = [SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0); N];
    for (socket, port) in found.iter_mut().zip(ports) {
        *socket = SocketAddr::new(address(rest, v4)?, port);
    }
    Some(found)
}

/// None that is mapped.
fn address(rest: &mut Bytes, v4: bool) -> Option<IpAddr> {
    if v4 {
        return Some(Ipv4Addr::from(rest.take::<4>()?).into());
    }
    Some(Ipv6Addr::from(rest.take::<16>()?)).filter(|a| a.to_ipv4_mapped().is_none()).map(IpAddr::from)
}

/// What is left of a datagram.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;
