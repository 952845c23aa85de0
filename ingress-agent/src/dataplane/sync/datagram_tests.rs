//! Round trips, golden bytes, and thousands of broken datagrams.

use super::*;

fn key(text: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())
}

fn header(kind: Kind) -> Header {
    Header { kind, epoch: 0x0102_0304_0506_0708, sequence: 9, time: 10, token: 11 }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

fn upsert(v6: bool) -> Entry {
    let a = |n: u16| if v6 { at(&format!("[2001:db8::{n}]:{n}")) } else { at(&format!("10.0.0.{n}:{n}")) };
    let key = FlowKey { proto: 6, client: a(1), vip: a(2) };
    Entry::Upsert(key, Facts { endpoint: a(3), source: a(4), state: 2, idle: 5, age: 600 })
}

fn delete(v6: bool) -> Entry {
    let Entry::Upsert(key, _) = upsert(v6) else { unreachable!("an upsert") };
    Entry::Delete(FlowKey { proto: 17, ..key })
}

fn flows(entries: &[Entry]) -> Vec<u8> {
    let mut draft = Draft::new();
    assert!(entries.iter().all(|e| draft.push(e)));
    draft.seal(&header(Kind::Flows), &key("k"))
}

fn used(n: u8) -> LimitUse {
    let client = if n.is_multiple_of(2) { at("10.0.0.9:1") } else { at("[2001:db8::9]:1") };
    LimitUse { limit: LimitId([n; 16]), client: client.ip(), requests: u32::from(n) << 8 }
}

fn limits(uses: &[LimitUse]) -> Vec<u8> {
    let mut draft = Draft::new();
    assert!(uses.iter().all(|u| draft.push_use(u)));
    draft.seal(&header(Kind::Limits), &key("k"))
}

#[test]
fn what_is_sealed_is_opened() {
    let entries = [upsert(false), delete(true), upsert(true), delete(false)];
    assert_eq!(open(&flows(&entries), &key("k")), Ok((header(Kind::Flows), Body::Flows(entries.to_vec()))));
    for kind in [Kind::Request, Kind::Alive] {
        let bytes = Draft::new().seal(&header(kind), &key("k"));
        assert_eq!(open(&bytes, &key("k")), Ok((header(kind), Body::Nothing)));
    }
    let uses = [used(1), used(2), used(3)];
    assert_eq!(open(&limits(&uses), &key("k")), Ok((header(Kind::Limits), Body::Limits(uses.to_vec()))));
    let bytes = Draft::end(77).seal(&header(Kind::End), &key("k"));
    assert_eq!(open(&bytes, &key("k")), Ok((header(Kind::End), Body::End(77))));
}

#[test]
fn the_layout_is_what_the_page_says() {
    let bytes = flows(&[upsert(false)]);
    let head = [&b"SGFS\x01\x01\x00\x01"[..], &[1, 2, 3, 4, 5, 6, 7, 8], &[0, 0, 0, 0, 0, 0, 0, 9]].concat();
    assert_eq!(bytes[..24], head);
    let entry = [
        &[1, 4, 6, 2, 0, 5, 2, 88][..],
        &[0, 1, 0, 2, 0, 3, 0, 4],
        &[10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3, 10, 0, 0, 4],
    ];
    assert_eq!(bytes[40..bytes.len() - 32], entry.concat());
    let bytes = limits(&[used(2), used(3)]);
    assert_eq!(bytes[..8], *b"SGFS\x01\x05\x00\x02");
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let entries = [&[4][..], &[2; 16], &[0, 0, 2, 0], &[10, 0, 0, 9], &[6], &[3; 16], &[0, 0, 3, 0], &v6];
    assert_eq!(bytes[40..bytes.len() - 32], entries.concat());
}

#[test]
fn a_datagram_passes_the_narrowest_path() {
    for (v6, least) in [(false, 36), (true, 14)] {
        let mut draft = Draft::new();
        while draft.push(&upsert(v6)) {}
        assert!(draft.entries() >= least, "{} entries", draft.entries());
        assert!(draft.seal(&header(Kind::Flows), &key("k")).len() <= LARGEST);
        assert!(draft.is_empty());
        let mut draft = Draft::new();
        while draft.push_use(&used(if v6 { 1 } else { 2 })) {}
        assert!(draft.entries() >= if v6 { 31 } else { 46 }, "{} entries", draft.entries());
        assert!(draft.seal(&header(Kind::Limits), &key("k")).len() <= LARGEST);
    }
}

#[test]
fn another_key_and_every_flipped_bit_is_a_forgery_or_less() {
    let bytes = flows(&[upsert(false), delete(true)]);
    assert_eq!(open(&bytes, &key("other")), Err(Fault::Forged));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0..4 => Fault::Malformed,
            4 => Fault::Version,
            _ => Fault::Forged,
        };
        assert_eq!(open(&bytes, &key("k")), Err(expected), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(open(&bytes[..len], &key("k")).is_err(), "cut to {len}");
    }
}

/// What an edge with the right key and wrong ideas might send: nothing panics, and what is accepted can be sealed to the same bytes.
#[test]
fn bodies_with_a_right_tag_are_understood_to_the_last_byte() {
    let flows = flows(&[upsert(false), upsert(true), delete(false), delete(true)]);
    let accepted =
        [flows, limits(&[used(1), used(2), used(3), used(4)])].map(|good| accepted(&good[..good.len() - TAG]));
    assert!(accepted.iter().all(|n| *n > 1000), "the changes are too coarse: {accepted:?}");
}

/// How many of 30,000 changed bodies are.
fn accepted(said: &[u8]) -> usize {
    let mut random = 7u64;
    let mut dice = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut accepted = 0;
    for _ in 0..30_000 {
        let mut bytes = said.to_vec();
        for _ in 0..=dice(3) {
            match dice(4) {
                0 => bytes.truncate(HEADER + dice(bytes.len() - HEADER + 1).min(bytes.len() - HEADER)),
                1 => bytes.extend(vec![0; dice(20)]),
                _ => {
                    let at = 5 + dice(bytes.len() - 5);
                    bytes[at] = dice(256) as u8;
                }
            }
        }
        let tag = hmac::sign(&key("k"), &bytes);
        let sealed = [&bytes[..], tag.as_ref()].concat();
        let mut draft = Draft::new();
        let header = match open(&sealed, &key("k")) {
            Ok((header, Body::Flows(entries))) => {
                assert!(entries.iter().all(|e| draft.push(e)));
                header
            }
            Ok((header, Body::Limits(uses))) => {
                assert!(uses.iter().all(|u| draft.push_use(u)));
                header
            }
            _ => continue,
        };
        accepted += 1;
        assert_eq!(draft.seal(&header, &key("k")), sealed);
    }
    accepted
}

#[test]
fn uses_that_are_none_are_refused() {
    let good = limits(&[used(2)]);
    let said = &good[..good.len() - TAG];
    let with = |at: usize, bytes: &[u8]| [&said[..at], bytes, &said[at + bytes.len()..]].concat();
    let mapped = [&said[..HEADER], &[6], &[2; 16], &[0, 0, 0, 1], &[0; 10], &[255, 255, 10, 0, 0, 9]].concat();
    for (what, bytes) in [
        ("no requests", with(HEADER + 17, &[0; 4])),
        ("a third family", with(HEADER, &[5])),
        ("the other family", with(HEADER, &[6])),
        ("a mapped address", mapped),
        ("more than there are", with(6, &[0, 2])),
        ("fewer than there are", with(6, &[0, 0])),
        ("a kind of the future", with(5, &[6])),
        ("one byte more", [said, &[0]].concat()),
    ] {
        let tag = hmac::sign(&key("k"), &bytes);
        assert_eq!(open(&[&bytes[..], tag.as_ref()].concat(), &key("k")), Err(Fault::Malformed), "{what}");
    }
}
