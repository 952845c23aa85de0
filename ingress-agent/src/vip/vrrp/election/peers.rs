//! The link-layer addresses that adverts for our addresses came from. A claim of one of them on an address is a part of elections, and no
//! stranger's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many are remembered; in their place come those that were heard last.
const MOST: usize = 64;
/// Longer than a claim is remembered, as whoever gave up an address sends no more adverts.
const FOR: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<[u8; 6], Instant>);

impl Peers {
    pub(super) fn heard(&mut self, mac: [u8; 6], now: Instant) {
        if !self.0.contains_key(&mac) && self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(mac, _)| *mac);
            oldest.map(|mac| self.0.remove(&mac));
        }
        self.0.insert(mac, now);
    }

    pub(super) fn forget(&mut self, now: Instant) {
        self.0.retain(|_, at| now < *at + FOR);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = [u8; 6]> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_heard_last_is_known_whoever_else_floods() {
        let start = Instant::now();
        let mut peers = Peers::default();
        for n in 0..200u8 {
            peers.heard([2, 0, 0, 0, 0, n], start + Duration::from_millis(u64::from(n)));
            peers.heard([2, 0, 0, 0, 1, 0], start + Duration::from_millis(u64::from(n)));
        }
        let now = start + Duration::from_secs(1);
        peers.forget(now);
        assert_eq!(peers.iter().count(), MOST);
        assert!(peers.iter().any(|mac| mac == [2, 0, 0, 0, 1, 0]));
        peers.forget(now + FOR);
        assert_eq!(peers.iter().count(), 0);
    }
}
