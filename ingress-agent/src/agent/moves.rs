//! What the proxy has to do with addresses that move: connections end where they began, so it finishes those to an address that another
//! node has taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Control;
use crate::model::snapshot::Snapshot;
use crate::proxy::Proxy;

/// What was last said of addresses.
#[derive(Debug, Default)]
pub(super) struct Moves {
    held: BTreeSet<IpAddr>,
    /// Held here before, and until when connections to each may go on.
    away: BTreeMap<IpAddr, Instant>,
    ends_here: BTreeSet<IpAddr>,
}

impl Moves {
    /// Nothing is held here.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether something moved.
    fn follow(&mut self, held: BTreeSet<IpAddr>, now: Instant, drain: Duration) -> bool {
        if held == self.held {
            return false;
        }
        self.away.extend(self.held.difference(&held).map(|gone| (*gone, now + drain)));
        self.away.retain(|address, _| !held.contains(address));
        self.held = held;
        true
    }
}

impl Control {
    /// Tells the proxy which addresses have gone and come back.
    pub(super) fn follow_moves(&mut self, proxy: &Proxy) {
        let Some(vips) = self.vips.as_ref().filter(|_| self.config.vips.vrrp.is_some()) else { return };
        let held = vips.holding().addresses.keys().copied().collect();
        if self.moves.follow(held, Instant::now(), self.config.drain_timeout) {
            proxy.move_away(&self.moves.away);
        }
    }

    /// Tells the holder of addresses to which ones connections end in the proxy.
    pub(super) fn ends_here(&mut self, snapshot: &Snapshot) {
        let listeners = snapshot.listeners.iter().map(|l| l.vip);
        let ends_here: BTreeSet<IpAddr> = listeners.chain(snapshot.streams.iter().map(|s| s.vip)).collect();
        if let Some(vips) = self.vips.as_ref().filter(|_| ends_here != self.moves.ends_here) {
            vips.ends_here(ends_here.clone());
            self.moves.ends_here = ends_here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_away_from_when_it_goes_until_it_is_back() {
        let (now, drain) = (Instant::now(), Duration::from_secs(30));
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let mut moves = Moves::default();
        assert!(moves.follow([a, b].into(), now, drain) && moves.away.is_empty());
        assert!(!moves.follow([a, b].into(), now, drain), "nothing moved");
        assert!(moves.follow([b].into(), now, drain));
        let later = now + Duration::from_secs(1);
        assert!(moves.follow([].into(), later, drain));
        assert_eq!(moves.away, [(a, now + drain), (b, later + drain)].into());
        assert!(moves.follow([a].into(), later, drain));
        assert_eq!(moves.away, [(b, later + drain)].into());
    }
}
