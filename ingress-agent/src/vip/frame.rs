//! Bytes of the frames that announce an address, and what a foreign claim looks like. Pure: no socket, no clock.
//! Nothing here trusts a length that came from the wire.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

const BROADCAST: Mac = Mac([0xff; 6]);
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArpOp {
    Request = 1,
    Reply = 2,
}

/// A gratuitous ARP. Some switches and hosts learn from requests only, others from replies only, so callers send both.
pub(super) fn gratuitous_arp(op: ArpOp, mac: Mac, vip: Ipv4Addr) -> Vec<u8> {
    // RFC 5227 §1.1: an announcement has the address as sender and as target. RFC 5944 §4.6: the target hardware address
    // of a gratuitous reply is the sender's, in a request it is not used.
    let target = if op == ArpOp::Reply { mac } else { Mac::default() };
    arp(op, mac, vip, target, vip)
}

/// Asks whether anybody has the address, without touching any cache (RFC 5227 §2.1.1: the sender address is all zero).
pub(super) fn arp_probe(mac: Mac, vip: Ipv4Addr) -> Vec<u8> {
    arp(ArpOp::Request, mac, Ipv4Addr::UNSPECIFIED, Mac::default(), vip)
}

fn arp(op: ArpOp, mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // RFC 826: hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
    frame.extend_from_slice(&[0, 1, 0x08, 0x00, 6, 4, 0, op as u8]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&target_mac.0);
    frame.extend_from_slice(&target.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §7.2.6).
pub(super) fn unsolicited_na(mac: Mac, vip: Ipv6Addr, router: bool) -> Vec<u8> {
    // RFC 4861 §4.4: R, S, O are the highest bits. S stays 0 because nobody asked, O makes caches take the new address.
    let flags = if router { 0xa0 } else { 0x20 };
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&vip.octets());
    // RFC 4861 §4.6.1: target link-layer address, one unit of eight bytes.
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac.0);
    // RFC 4861 §4.4: the source is an address of the sending interface, and the address itself is one.
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    ndp(mac, vip, all_nodes, message)
}

/// Asks whether anybody has the address: a solicitation from `::` to its solicited-node group (RFC 4862 §5.4.2). The
/// owner answers to all nodes.
pub(super) fn dad_probe(mac: Mac, vip: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&vip.octets());
    let [.., x, y, z] = vip.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from(y) << 8 | u16::from(z));
    ndp(mac, Ipv6Addr::UNSPECIFIED, group, message)
}

fn ndp(mac: Mac, source: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = icmpv6_checksum(source, group, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // RFC 2464 §7: 33-33 and the last four bytes of the group.
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet(Mac([0x33, 0x33, a, b, c, d]), mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
    // RFC 4861 §7.1: a hop limit other than 255 is discarded by the receiver.
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&group.octets());
    frame.extend_from_slice(&message);
    frame
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// RFC 4443 §2.3 over the pseudo-header of RFC 8200 §8.1. The checksum field of `message` must be 0.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = message.len() as u32 + u32::from(ICMPV6);
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    };
    add(&source.octets());
    add(&destination.octets());
    add(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Who claims which address by this ARP frame: the sender's pair, if it is Ethernet and IPv4 and no probe.
pub(super) fn arp_claim(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let arp = frame.get(14..)?;
    if arp.get(..6)? != [0, 1, 0x08, 0x00, 6, 4] {
        return None;
    }
    let mac: [u8; 6] = arp.get(8..14)?.try_into().ok()?;
    let sender: [u8; 4] = arp.get(14..18)?.try_into().ok()?;
    let sender = Ipv4Addr::from(sender);
    (!sender.is_unspecified()).then_some((sender, Mac(mac)))
}

/// Who claims which address by this ICMPv6 message: the target of an advertisement and its link-layer address. The
/// caller has checked the hop limit.
pub(super) fn na_claim(message: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    if message.get(..2)? != [NEIGHBOR_ADVERTISEMENT, 0] {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mut options = message.get(24..)?;
    // RFC 4861 §4.6: options of 8-byte units; a length of 0 makes the whole packet invalid.
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == 2 {
            let mac: [u8; 6] = options.get(2..8)?.try_into().ok()?;
            return Some((Ipv6Addr::from(target), Mac(mac)));
        }
        options = &options[len..];
    }
    None
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
