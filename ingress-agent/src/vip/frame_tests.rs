//! Frames against the layouts of RFC 826, 4861, 5227, byte by byte, and claims from hostile bytes.

use super::*;

const MAC: Mac = Mac([2, 0x11, 0x22, 0x33, 0x44, 0x55]);
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);

#[test]
fn rfc5227_announcement_has_the_address_as_sender_and_target() {
    let frame = gratuitous_arp(ArpOp::Request, MAC, V4);
    let expected = [
        &[0xff; 6][..],
        &MAC.0,
        &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1],
        &MAC.0,
        &[203, 0, 113, 10],
        &[0; 6],
        &[203, 0, 113, 10],
    ]
    .concat();
    assert_eq!(frame, expected);
}

#[test]
fn rfc5944_gratuitous_reply_repeats_the_hardware_address() {
    let frame = gratuitous_arp(ArpOp::Reply, MAC, V4);
    assert_eq!(frame.len(), 42);
    assert_eq!(frame[20..22], [0, 2]);
    assert_eq!(frame[22..28], MAC.0);
    assert_eq!(frame[32..38], MAC.0);
    assert_eq!(frame[28..32], frame[38..42]);
}

#[test]
fn rfc5227_probe_touches_no_cache() {
    let frame = arp_probe(MAC, V4);
    assert_eq!(frame[28..32], [0; 4]);
    assert_eq!(frame[38..42], V4.octets());
    assert_eq!(arp_claim(&frame), None);
}

#[test]
fn rfc4861_unsolicited_advertisement() {
    for (router, flags) in [(true, 0xa0), (false, 0x20)] {
        let frame = unsolicited_na(MAC, V6, router);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[6..12], MAC.0);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[22..38], V6.octets());
        assert_eq!(frame[38..54], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [flags, 0, 0, 0]);
        assert_eq!(frame[62..78], V6.octets());
        assert_eq!(frame[78..80], [2, 1]);
        assert_eq!(frame[80..86], MAC.0);
        assert_eq!(frame.len(), 86);
        assert_eq!(received_sum(&frame), 0xffff);
    }
}

#[test]
fn rfc4862_probe_goes_to_the_solicited_node_group() {
    let frame = dad_probe(MAC, V6);
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
    assert_eq!(frame[22..38], [0; 16]);
    assert_eq!(frame[38..54], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xffab, 0xcdef).octets());
    assert_eq!(frame[54], 135);
    assert_eq!(received_sum(&frame), 0xffff);
}

/// The sum that a receiver makes, the checksum field included: all ones if it is right. Written from RFC 1071 apart from
/// the code under test.
fn received_sum(frame: &[u8]) -> u16 {
    let mut words: Vec<u16> = frame[22..].chunks(2).map(|p| u16::from_be_bytes([p[0], p[1]])).collect();
    words.push((frame.len() - 54) as u16);
    words.push(58);
    words.iter().fold(0u16, |sum, w| {
        let (s, carry) = sum.overflowing_add(*w);
        s + u16::from(carry)
    })
}

#[test]
fn claims_are_read_from_announcements() {
    assert_eq!(arp_claim(&gratuitous_arp(ArpOp::Request, MAC, V4)), Some((V4, MAC)));
    assert_eq!(arp_claim(&gratuitous_arp(ArpOp::Reply, MAC, V4)), Some((V4, MAC)));
    assert_eq!(na_claim(&unsolicited_na(MAC, V6, false)[54..]), Some((V6, MAC)));
}

#[test]
fn truncated_claims_are_nothing() {
    let arp = gratuitous_arp(ArpOp::Reply, MAC, V4);
    for end in 0..32 {
        assert_eq!(arp_claim(&arp[..end]), None, "{end} bytes");
    }
    let na = unsolicited_na(MAC, V6, false);
    for end in 54..86 {
        assert_eq!(na_claim(&na[54..end]), None, "{end} bytes");
    }
}

#[test]
fn option_of_length_zero_ends_the_message() {
    let mut na = unsolicited_na(MAC, V6, false)[54..].to_vec();
    na[25] = 0;
    assert_eq!(na_claim(&na), None);
    // An unknown option before the wanted one is skipped.
    let mut na = unsolicited_na(MAC, V6, false)[54..].to_vec();
    na.splice(24..24, [14, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(na_claim(&na), Some((V6, MAC)));
}
