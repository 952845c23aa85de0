//! Adverts against the layouts of RFC 9568 and 3768, and every way in which one can be wrong.

use super::*;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const GROUP: IpAddr = IpAddr::V4(GROUP_V4);
const SOURCE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const GROUP6: IpAddr = IpAddr::V6(GROUP_V6);

fn advert(version: Version) -> Advert {
    Advert {
        version,
        vrid: 51,
        priority: 100,
        interval: Duration::from_secs(1),
        addresses: vec!["10.1.0.100".parse().expect("an address"), "10.1.0.101".parse().expect("an address")],
        password: None,
    }
}

fn advert6() -> Advert {
    Advert {
        addresses: vec!["fe80::1".parse().expect("an address"), "fd01::100".parse().expect("an address")],
        ..advert(Version::V3)
    }
}

fn envelope(source: IpAddr, destination: IpAddr) -> Envelope {
    Envelope { source, destination, hop_limit: 255 }
}

/// Puts a right checksum into changed bytes, so that the change is all that is wrong.
fn resum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[6..8].copy_from_slice(&[0, 0]);
    let sum = !fold(sum_of(&bytes));
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn rfc9568_layout() {
    let bytes = advert(Version::V3).encode(SOURCE, GROUP, Checksum::Plain);
    assert_eq!(bytes[..6], [0x31, 51, 100, 2, 0, 100]);
    assert_eq!(bytes[8..], [10, 1, 0, 100, 10, 1, 0, 101]);
    // By hand: 3133 + 6402 + 0064 + 0a01 + 0064 + 0a01 + 0065 = aa64, its complement 559b.
    assert_eq!(bytes[6..8], [0x55, 0x9b]);
}

#[test]
fn rfc3768_layout_ends_with_eight_bytes() {
    let bytes = advert(Version::V2).encode(SOURCE, GROUP, Checksum::WithPseudoHeader);
    assert_eq!(bytes[..6], [0x21, 51, 100, 2, 0, 1]);
    assert_eq!(bytes.len(), 8 + 8 + 8);
    let secret = Advert { password: Some(*b"s3cret\0\0"), ..advert(Version::V2) };
    let bytes = secret.encode(SOURCE, GROUP, Checksum::Plain);
    assert_eq!((bytes[4], &bytes[16..]), (1, &b"s3cret\0\0"[..]));
}

#[test]
fn what_is_sent_is_read_back_whatever_the_checksum_style() {
    for checksum in [Checksum::WithPseudoHeader, Checksum::Plain] {
        for sent in [
            advert(Version::V2),
            advert(Version::V3),
            Advert { password: Some(*b"abcdefgh"), ..advert(Version::V2) },
            Advert { interval: Duration::from_millis(10), priority: 0, ..advert(Version::V3) },
            Advert { interval: Duration::from_millis(40_950), priority: 255, ..advert(Version::V3) },
        ] {
            let bytes = sent.encode(SOURCE, GROUP, checksum);
            assert_eq!(Advert::decode(&bytes, &envelope(SOURCE, GROUP)), Ok(sent));
        }
        let bytes = advert6().encode(SOURCE6, GROUP6, checksum);
        assert_eq!(Advert::decode(&bytes, &envelope(SOURCE6, GROUP6)), Ok(advert6()));
    }
    let with = advert(Version::V3).encode(SOURCE, GROUP, Checksum::WithPseudoHeader);
    assert_ne!(with, advert(Version::V3).encode(SOURCE, GROUP, Checksum::Plain));
    assert_eq!(Advert::decode(&with, &envelope(GROUP, GROUP)), Err(Reject::Checksum), "the sender is part of it");
}

#[test]
fn whatever_is_wrong_has_its_name() {
    let good = advert(Version::V3).encode(SOURCE, GROUP, Checksum::Plain);
    let old = advert(Version::V2).encode(SOURCE, GROUP, Checksum::Plain);
    let changed = |from: &[u8], at: usize, to: u8| {
        let mut bytes = from.to_vec();
        bytes[at] = to;
        resum(bytes)
    };
    let decode = |bytes: &[u8]| Advert::decode(bytes, &envelope(SOURCE, GROUP));
    for (what, bytes, reason) in [
        ("version 4", changed(&good, 0, 0x41), Reject::Version),
        ("version 1", changed(&good, 0, 0x11), Reject::Version),
        ("type 2", changed(&good, 0, 0x32), Reject::Type),
        ("VRID 0", changed(&good, 1, 0), Reject::Vrid),
        ("interval 0", changed(&good, 5, 0), Reject::Interval),
        ("interval 0 of version 2", changed(&old, 5, 0), Reject::Interval),
        ("more addresses than there are", changed(&good, 3, 3), Reject::Truncated),
        ("fewer addresses than there are", changed(&good, 3, 1), Reject::Length),
        (
            "no address",
            resum(good[..8].iter().enumerate().map(|(i, b)| if i == 3 { 0 } else { *b }).collect()),
            Reject::AddressList,
        ),
        ("version 2 without its authentication data", resum(old[..16].to_vec()), Reject::Truncated),
        ("authentication of an unknown type", changed(&old, 4, 2), Reject::Authentication),
    ] {
        assert_eq!(decode(&bytes), Err(reason), "{what}");
    }
    for ttl in [0, 1, 64, 254] {
        let far = Envelope { hop_limit: ttl, ..envelope(SOURCE, GROUP) };
        assert_eq!(Advert::decode(&good, &far), Err(Reject::HopLimit));
    }
    for end in 0..good.len() {
        assert_eq!(decode(&good[..end]), Err(Reject::Truncated), "{end} bytes");
    }
    // Any flipped bit is noticed: the checksum covers everything.
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
    }
    // IPv6 knows no version 2, and no checksum without pseudo-header.
    let six = envelope(SOURCE6, GROUP6);
    let mut bytes = advert6().encode(SOURCE6, GROUP6, Checksum::Plain);
    assert_eq!(Advert::decode(&resum(bytes.clone()), &six), Err(Reject::Checksum));
    bytes[0] = 0x21;
    assert_eq!(Advert::decode(&bytes, &six), Err(Reject::Version));
}

#[test]
fn hostile_bytes_do_no_harm() {
    let mut chance = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance as u8
    };
    for len in (0..2000).map(|n| n % 70) {
        let packet: Vec<u8> = (0..len).map(|_| next()).collect();
        for (envelope, payload) in [split_ipv4(&packet), split_ipv6(&packet)].into_iter().flatten() {
            let _ = Advert::decode(payload, &envelope);
        }
        let _ = Advert::decode(
            &resum([&[0x31, 1, 1, next() % 4][..], &[0; 4], &packet].concat()),
            &envelope(SOURCE, GROUP),
        );
    }
}

#[test]
fn ipv4_header_is_split_off() {
    let mut packet = vec![0x46, 0xc0, 0, 30, 0, 0, 0, 0, 255, 112, 0, 0, 10, 1, 0, 2, 224, 0, 0, 18, 1, 1, 1, 1];
    packet.extend_from_slice(&[9; 6]);
    packet.extend_from_slice(&[0; 16]);
    let (read, payload) = split_ipv4(&packet).expect("a packet");
    assert_eq!((read, payload), (envelope(SOURCE, GROUP), &[9; 6][..]), "options skipped, padding cut off");
    assert_eq!(split_ipv4(&packet[..19]), Err(Reject::Truncated));
    packet[6] = 0x20;
    assert_eq!(split_ipv4(&packet), Err(Reject::Truncated), "a fragment");
}

#[test]
fn ipv6_header_is_split_off() {
    let mut packet = vec![0x6c, 0, 0, 0, 0, 6, 112, 255];
    for address in [SOURCE6, GROUP6] {
        let IpAddr::V6(v6) = address else { panic!("IPv6") };
        packet.extend_from_slice(&v6.octets());
    }
    packet.extend_from_slice(&[9; 20]);
    assert_eq!(split_ipv6(&packet), Ok((envelope(SOURCE6, GROUP6), &[9; 6][..])));
    for end in 0..46 {
        assert_eq!(split_ipv6(&packet[..end]), Err(Reject::Truncated));
    }
}
