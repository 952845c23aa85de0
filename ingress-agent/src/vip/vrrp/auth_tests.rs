//! Signed adverts against the images of the draft's appendix, and every way in which one can be wrong.

use super::*;
use crate::vip::vrrp::packet::{Advert, Checksum, Envelope, Version, append};

const SECOND: Duration = Duration::from_secs(1);
/// The appendix: 0x6800000080000000, half a second after 0x68000000.
const THEN: Duration = Duration::from_millis(0x6800_0000 * 1000 + 500);

/// Key 00..1f, VRID 51, priority 200, one second; from 198.51.100.10 for 192.0.2.100, with the checksum of RFC 9568.
const IMAGE_V4: &str = "3133c80100644402c0000264010100006800000080000000\
                        1b84bc4e8e43892dc6d98448f8ee2265";
/// The same from `fe80::10` to `fe80::20` for `fe80::100`.
const IMAGE_V6: &str = "3133c8010064a2e9fe800000000000000000000000000100010100006800000080000000\
                        c8c56146ebfd66ee10ec4d8186461b78";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(first: u8) -> hmac::Key {
    let key: Vec<u8> = (first..first + 32).collect();
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

/// With the appendix's key as number 1, and its time.
fn auth(window: Option<Duration>) -> (Auth, Instant) {
    let now = Instant::now();
    (Auth::new(vec![(1, key(0))], false, window, (now, THEN)), now)
}

fn advert(vip: &str) -> Advert {
    Advert { version: Version::V3, vrid: 51, priority: 200, interval: SECOND, addresses: vec![ip(vip)], password: None }
}

/// As it goes out.
fn sent(auth: &mut Auth, now: Instant, source: &str, destination: &str, vip: &str) -> Vec<u8> {
    let mut message = advert(vip).encode(ip(source), ip(destination), Checksum::Plain);
    let trailer = auth.trailer(&message, ip(source), now);
    append(&mut message, &trailer, ip(source), ip(destination));
    message
}

fn received(auth: &mut Auth, now: Instant, payload: &[u8], source: &str, destination: &str) -> Result<Advert, Reject> {
    let envelope = Envelope { source: ip(source), destination: ip(destination), hop_limit: 255 };
    let (message, trailer, advert) = Advert::decode_signed(payload, &envelope)?;
    auth.check(message, trailer, ip(source), now)?;
    Ok(advert)
}

#[test]
fn images_of_the_drafts_appendix_are_made_and_understood() {
    for (image, source, destination, vip) in
        [(IMAGE_V4, "198.51.100.10", "192.0.2.10", "192.0.2.100"), (IMAGE_V6, "fe80::10", "fe80::20", "fe80::100")]
    {
        let (mut sender, now) = auth(Some(SECOND * 5));
        assert_eq!(sent(&mut sender, now, source, destination, vip), bytes(image));
        let (mut receiver, now) = auth(Some(SECOND * 5));
        assert_eq!(received(&mut receiver, now, &bytes(image), source, destination), Ok(advert(vip)));
        let again = received(&mut receiver, now, &bytes(image), source, destination);
        assert_eq!(again, Err(Reject::Replayed));
    }
}

/// The mutations of keepalived's own regression test: where, and what is said of it.
#[test]
fn one_flipped_bit_is_noticed() {
    let image = bytes(IMAGE_V6);
    for (what, at, result) in [
        ("version", 0, Err(Reject::Forged)),
        ("VRID", 1, Err(Reject::Forged)),
        ("priority", 2, Err(Reject::Forged)),
        ("interval", 5, Err(Reject::Forged)),
        ("checksum, which is judged elsewhere", 6, Ok(())),
        ("address", 23, Err(Reject::Forged)),
        ("scheme", 24, Err(Reject::Trailer)),
        ("key", 25, Err(Reject::UnknownKey)),
        ("reserved", 26, Err(Reject::Trailer)),
        ("reserved", 27, Err(Reject::Trailer)),
        ("seconds", 31, Err(Reject::Forged)),
        ("fraction", 32, Err(Reject::Forged)),
        ("counter", 35, Err(Reject::Forged)),
        ("tag", 36, Err(Reject::Forged)),
        ("tag", 51, Err(Reject::Forged)),
    ] {
        let mut changed = image.clone();
        changed[at] ^= 1;
        let (mut receiver, now) = auth(Some(SECOND * 5));
        let (message, trailer) = changed.split_at(24);
        let trailer = trailer.try_into().expect("a trailer");
        assert_eq!(receiver.check(message, Some(trailer), ip("fe80::10"), now), result, "{what}");
        assert!(receiver.heard.len() == usize::from(result.is_ok()), "a forgery moves no mark");
    }
    let (mut receiver, now) = auth(Some(SECOND * 5));
    let (message, trailer) = image.split_at(24);
    let trailer = trailer.try_into().expect("a trailer");
    assert_eq!(receiver.check(message, Some(trailer), ip("fe80::11"), now), Err(Reject::Forged), "another sender");
    assert_eq!(receiver.check(message, None, ip("fe80::10"), now), Err(Reject::Unsigned));
    receiver.permissive = true;
    assert_eq!(receiver.check(message, None, ip("fe80::10"), now), Ok(()));
}

#[test]
fn a_trailer_is_as_long_as_it_is() {
    let image = bytes(IMAGE_V4);
    for end in 0..image.len() {
        let (mut receiver, now) = auth(None);
        let result = received(&mut receiver, now, &image[..end], "198.51.100.10", "192.0.2.10");
        let reason = match end {
            12 => Reject::Unsigned,
            0..12 => Reject::Truncated,
            _ => Reject::Length,
        };
        assert_eq!(result, Err(reason), "{end} bytes");
    }
    let (mut receiver, now) = auth(None);
    let longer = [&image[..], &[0]].concat();
    assert_eq!(received(&mut receiver, now, &longer, "198.51.100.10", "192.0.2.10"), Err(Reject::Length));
}

#[test]
fn what_is_old_or_early_is_stale_and_numbers_grow() {
    let window = SECOND * 5;
    for (seconds, result) in [(0, Ok(())), (5, Ok(())), (6, Err(Reject::Stale)), (1000, Err(Reject::Stale))] {
        for (sender_at, receiver_at) in [(THEN, THEN + SECOND * seconds), (THEN + SECOND * seconds, THEN)] {
            let (mut sender, now) = auth(Some(window));
            sender.clock_is(now, sender_at);
            let payload = sent(&mut sender, now, "fe80::10", "fe80::20", "fe80::100");
            let (mut receiver, now) = auth(Some(window));
            receiver.clock_is(now, receiver_at);
            let found = received(&mut receiver, now, &payload, "fe80::10", "fe80::20").map(drop);
            assert_eq!(found, result, "{sender_at:?} {receiver_at:?}");
            let (mut patient, now) = auth(None);
            patient.clock_is(now, receiver_at);
            assert!(received(&mut patient, now, &payload, "fe80::10", "fe80::20").is_ok(), "none: any time");
        }
    }
    // A thousand within one tick of the clock, and one of each is good once, in order.
    let (mut sender, now) = auth(Some(window));
    let (mut receiver, _) = auth(Some(window));
    let all: Vec<_> = (0..1000).map(|_| sent(&mut sender, now, "fe80::10", "fe80::20", "fe80::100")).collect();
    let mut take = |payload: &[u8]| received(&mut receiver, now, payload, "fe80::10", "fe80::20").map(drop);
    assert!(all[..999].iter().all(|payload| take(payload).is_ok()));
    assert!(all[..999].iter().all(|payload| take(payload) == Err(Reject::Replayed)));
    assert_eq!(take(&all[999]), Ok(()));
}

#[test]
fn a_clock_that_is_set_back_silences_nobody_for_longer_than_the_window() {
    let window = SECOND * 5;
    let (mut sender, now) = auth(Some(window));
    let (mut receiver, _) = auth(Some(window));
    let mut exchange = |at: Duration| {
        sender.clock_is(now, at);
        receiver.clock_is(now, at);
        let payload = sent(&mut sender, now, "fe80::10", "fe80::20", "fe80::100");
        received(&mut receiver, now, &payload, "fe80::10", "fe80::20").map(drop)
    };
    assert_eq!(exchange(THEN + SECOND * 3600), Ok(()));
    // NTP corrects both by an hour.
    assert_eq!(exchange(THEN), Ok(()));
    // By less than the window: the numbers go on.
    assert_eq!(exchange(THEN.saturating_sub(SECOND * 4)), Ok(()));
    assert_eq!(exchange(THEN + SECOND), Ok(()));
    // Where only growth counts, it grows.
    let (mut sender, now) = auth(None);
    sender.clock_is(now, THEN + SECOND * 3600);
    let before = sender.number(now);
    sender.clock_is(now, THEN);
    assert_eq!(sender.number(now), before + 1);
    // The seconds run over in 2106.
    assert!(is_after(5 << 32, 0xffff_ffff_0000_0000) && !is_after(0xffff_ffff_0000_0000, 5 << 32));
}

#[test]
fn keys_are_changed_without_a_break() {
    let now = Instant::now();
    let with = |keys: Vec<(u8, hmac::Key)>| Auth::new(keys, false, Some(SECOND * 5), (now, THEN));
    let signed = |auth: &mut Auth| sent(auth, now, "fe80::10", "fe80::20", "fe80::100");
    let (mut old, mut new) = (with(vec![(1, key(0))]), with(vec![(2, key(9)), (1, key(0))]));
    let mut waiting = with(vec![(1, key(0)), (2, key(9))]);
    for payload in [signed(&mut old), signed(&mut new)] {
        waiting.heard.clear();
        assert!(received(&mut waiting, now, &payload, "fe80::10", "fe80::20").is_ok());
    }
    let unknown = received(&mut old, now, &signed(&mut new), "fe80::10", "fe80::20");
    assert_eq!(unknown, Err(Reject::UnknownKey));
    let mut other = with(vec![(2, key(50))]);
    assert_eq!(received(&mut other, now, &signed(&mut new), "fe80::10", "fe80::20"), Err(Reject::Forged));
}

#[test]
fn senders_are_bounded_and_apart() {
    let (mut receiver, now) = auth(None);
    for n in 0..2000u16 {
        let [a, b] = n.to_be_bytes();
        let source = format!("10.1.{a}.{b}");
        let (mut sender, at) = auth(None);
        let payload = sent(&mut sender, at, &source, "224.0.0.18", "192.0.2.100");
        assert!(received(&mut receiver, now, &payload, &source, "224.0.0.18").is_ok(), "{source}");
    }
    assert_eq!(receiver.heard.len(), SENDERS);
}
