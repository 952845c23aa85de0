//! keepalived's `auth_hmac` (draft-cassen-vrrp-auth-hmac): a trailer that proves who sent an advert, and that it is not an old one.
//! Pure: the clocks are arguments.
//!
//! ```text
//! byte 0      scheme; 1: HMAC-SHA256, its first 16 bytes
//!      1      which key
//!      2..4   zero
//!      4..12  sequence number: seconds since 1970 (4 bytes), 1/65,536 of a second (2), a counter (2)
//!      12..28 tag
//! ```
//! Big-endian. The tag is over a pseudo-header of 20 bytes (family 4 or 6, version, VRID, 0, the source address, zeros after an IPv4
//! one), the advert with 0 for its checksum, and the trailer with 0 for its tag. The IP header and the destination are not in it, so each
//! peer gets the same. The advert's checksum leaves the trailer out over IPv4 and covers it over IPv6, where the kernel makes and checks it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::packet::{Reject, TRAILER, Trailer};

const SCHEME: u8 = 1;
const TAG_AT: usize = TRAILER - TAG;
const TAG: usize = 16;
/// Senders whose last number is remembered. Only who has a key gets in.
const SENDERS: usize = 1024;

#[derive(Debug)]
pub(in crate::vip) struct Auth {
    /// The first one signs; whichever is named verifies.
    keys: Vec<(u8, hmac::Key)>,
    /// Adverts without a trailer are good, too.
    pub(super) permissive: bool,
    /// How far the sender's clock may be off, in seconds; `None`: its numbers must grow, and that is all.
    window: Option<u32>,
    sent: u64,
    /// The last number of each sender, by VRID and address.
    heard: BTreeMap<(u8, IpAddr), u64>,
    /// When it was which time since 1970.
    clock: (Instant, Duration),
}

impl Auth {
    /// `keys` is not empty. A window is of whole seconds.
    pub(in crate::vip) fn new(
        keys: Vec<(u8, hmac::Key)>,
        permissive: bool,
        window: Option<Duration>,
        clock: (Instant, Duration),
    ) -> Self {
        let window = window.map(|w| u32::try_from(w.as_secs()).unwrap_or(u32::MAX));
        Self { keys, permissive, window, sent: 0, heard: BTreeMap::new(), clock }
    }

    pub(super) fn clock_is(&mut self, now: Instant, since_1970: Duration) {
        self.clock = (now, since_1970);
    }

    /// For a message that is sent now, to whomever. Its checksum may be anything.
    pub(super) fn trailer(&mut self, message: &[u8], source: IpAddr, now: Instant) -> Trailer {
        let mut trailer = [0; TRAILER];
        let number = self.number(now);
        let Some((id, key)) = self.keys.first() else { return trailer };
        trailer[..2].copy_from_slice(&[SCHEME, *id]);
        trailer[4..TAG_AT].copy_from_slice(&number.to_be_bytes());
        let tag = tag(key, message, &trailer, source);
        trailer[TAG_AT..].copy_from_slice(&tag);
        trailer
    }

    /// Takes note of a good one, so that it is good once.
    pub(super) fn check(
        &mut self,
        message: &[u8],
        trailer: Option<&Trailer>,
        source: IpAddr,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(trailer) = trailer else {
            return if self.permissive { Ok(()) } else { Err(Reject::Unsigned) };
        };
        let [scheme, id, zero_1, zero_2, number @ ..] = trailer;
        if (*scheme, *zero_1, *zero_2) != (SCHEME, 0, 0) {
            return Err(Reject::Trailer);
        }
        let Some(number) = number.first_chunk().map(|n| u64::from_be_bytes(*n)) else { return Err(Reject::Trailer) };
        // Before the tag: a flood of old ones costs no digest.
        if self.is_off(number, now) {
            return Err(Reject::Stale);
        }
        let key = self.keys.iter().find(|(known, _)| known == id).map(|(_, key)| key).ok_or(Reject::UnknownKey)?;
        let tag = tag(key, message, trailer, source);
        verify_slices_are_equal(&tag, &trailer[TAG_AT..]).map_err(|_| Reject::Forged)?;
        let sender = (message.get(1).copied().unwrap_or(0), source);
        // A number that no window would let in orders nothing: its sender's clock was set right.
        let last = self.heard.get(&sender).copied().filter(|last| !self.is_off(*last, now));
        if last.is_some_and(|last| !is_after(number, last)) {
            return Err(Reject::Replayed);
        }
        if !self.heard.contains_key(&sender) && self.heard.len() >= SENDERS {
            let oldest = self.heard.iter().min_by_key(|(_, number)| **number).map(|(sender, _)| *sender);
            oldest.map(|sender| self.heard.remove(&sender));
        }
        self.heard.insert(sender, number);
        Ok(())
    }

    /// Greater than all before, and of the clock as far as that goes.
    fn number(&mut self, now: Instant) -> u64 {
        let time = self.since_1970(now);
        // 32 bits of seconds are what the wire has, until 2106, and it is compared modulo that.
        let fraction = (u64::from(time.subsec_nanos()) << 16) / 1_000_000_000;
        let clock = u64::from(time.as_secs() as u32) << 32 | fraction << 16;
        // A clock that was set back: what it says is believed again once the last number is so far ahead that nobody takes it.
        self.sent = if is_after(clock, self.sent) || self.is_off(self.sent, now) { clock } else { self.sent + 1 };
        self.sent
    }

    fn is_off(&self, number: u64, now: Instant) -> bool {
        let ahead = ((number >> 32) as u32).wrapping_sub(self.since_1970(now).as_secs() as u32).cast_signed();
        self.window.is_some_and(|window| ahead.unsigned_abs() > window)
    }

    fn since_1970(&self, now: Instant) -> Duration {
        self.clock.1 + now.saturating_duration_since(self.clock.0)
    }
}

/// RFC 1982, of 64 bits.
fn is_after(a: u64, b: u64) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

fn tag(key: &hmac::Key, message: &[u8], trailer: &Trailer, source: IpAddr) -> [u8; TAG] {
    let mut pseudo = [0; 20];
    pseudo[0] = if source.is_ipv4() { 4 } else { 6 };
    pseudo[1] = message.first().map_or(0, |first| first >> 4);
    pseudo[2] = message.get(1).copied().unwrap_or(0);
    match source {
        IpAddr::V4(v4) => pseudo[4..8].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => pseudo[4..].copy_from_slice(&v6.octets()),
    }
    let mut digest = hmac::Context::with_key(key);
    digest.update(&pseudo);
    digest.update(message.get(..6).unwrap_or_default());
    digest.update(&[0; 2]);
    digest.update(message.get(8..).unwrap_or_default());
    digest.update(&trailer[..TAG_AT]);
    digest.update(&[0; TAG]);
    let mut tag = [0; TAG];
    tag.iter_mut().zip(digest.sign().as_ref()).for_each(|(to, from)| *to = *from);
    tag
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
