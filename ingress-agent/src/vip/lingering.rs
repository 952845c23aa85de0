//! Addresses that another node holds now, while connections to them that end in this node's proxy are being finished. Such an address
//! is on no interface, so that nobody here answers ARP or NDP for it whatever becomes of the agent; but the kernel must go on to
//! deliver what the new holder sends on, and may send from it: a route in its table `local` does both. (Linux closes no
//! connection with an address. Without a local route it would forward these packets to the new holder, which would reset
//! the connection.) Meanwhile this node itself meets its own proxy at the address, as it did while it held it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Lingering {
    lasts: Duration,
    /// Addresses to which connections end in the proxy.
    ends_here: BTreeSet<IpAddr>,
    until: BTreeMap<IpAddr, Instant>,
}

impl Lingering {
    /// Zero: nothing lingers.
    pub(super) fn new(lasts: Duration) -> Self {
        Self { lasts, ends_here: BTreeSet::new(), until: BTreeMap::new() }
    }

    pub(super) fn ends_here(&mut self, addresses: BTreeSet<IpAddr>) {
        self.ends_here = addresses;
    }

    /// The address is given up: whether it is to stay deliverable.
    pub(super) fn gives_up(&mut self, address: IpAddr, now: Instant) -> bool {
        let lingers = !self.lasts.is_zero() && self.ends_here.contains(&address);
        if lingers {
            self.until.insert(address, now + self.lasts);
        }
        lingers
    }

    /// The address is on the interface again: whether it was lingering.
    pub(super) fn takes(&mut self, address: IpAddr) -> bool {
        self.until.remove(&address).is_some()
    }

    /// When [`Lingering::over`] has something to say at the earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// Addresses whose time is over. Each is told once.
    pub(super) fn over(&mut self, now: Instant) -> Vec<IpAddr> {
        self.until.extract_if(.., |_, until| *until <= now).map(|(address, _)| address).collect()
    }

    pub(super) fn all(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.until).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_proxy_lingers_for_its_time_or_until_it_is_back() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
        let mut lingering = Lingering::new(second);
        lingering.ends_here([a, b].into());
        assert!(lingering.gives_up(a, now) && lingering.gives_up(b, now + second));
        assert!(!lingering.gives_up(c, now), "its connections do not end here");
        assert_eq!(lingering.next(), Some(now + second));
        assert!(lingering.over(now).is_empty());
        assert_eq!(lingering.over(now + second), [a]);
        assert!(!lingering.takes(a), "it is over");
        assert!(lingering.takes(b), "it is back");
        assert_eq!(lingering.next(), None);
        assert!(!Lingering::new(Duration::ZERO).gives_up(a, now));
    }
}
