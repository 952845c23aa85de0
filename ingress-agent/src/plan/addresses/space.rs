//! The addresses of one pool and one family in a row, and which of them are given away.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::addresses::AddressRange;

#[derive(Debug, Default)]
pub(super) struct Space {
    /// Sorted, each with the place of its first address in the row.
    ranges: Vec<(u128, AddressRange)>,
    size: u128,
    /// Runs of places that are not free, first to last; runs that touch are one, so that the end of a run is free.
    taken: BTreeMap<u128, u128>,
    /// How many places those are.
    closed: u128,
    avoid_buggy: bool,
    /// Places that are never given out and are not among the taken yet.
    buggy: u128,
}

impl Space {
    /// `ranges` are sorted, apart from each other and of one family.
    pub(super) fn new(ranges: impl Iterator<Item = AddressRange>, avoid_buggy: bool) -> Self {
        let mut space = Self { avoid_buggy, ..Self::default() };
        for range in ranges {
            space.ranges.push((space.size, range));
            space.size = space.size.saturating_add(range.size());
            space.buggy += if avoid_buggy { buggy_in(&range) } else { 0 };
        }
        space
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size == 0
    }

    pub(super) fn size(&self) -> u128 {
        self.size
    }

    /// Places that can still be given.
    pub(super) fn left(&self) -> u128 {
        self.size.saturating_sub(self.closed).saturating_sub(self.buggy)
    }

    pub(super) fn take(&mut self, address: IpAddr) {
        let at = self.ranges.partition_point(|(_, range)| range.first() <= address);
        let found = at.checked_sub(1).and_then(|i| self.ranges.get(i));
        if let Some(place) = found.and_then(|(start, range)| start.checked_add(range.offset(address)?)) {
            self.close(place);
        }
    }

    /// A free address, looked for from a place that `hash` chooses; it stays free.
    pub(super) fn free(&mut self, hash: u64) -> Option<IpAddr> {
        if self.is_empty() {
            return None;
        }
        // What is never given out is closed on the way, so it is met once and not again.
        loop {
            let start = u128::from(hash) % self.size;
            let place = [start, 0].into_iter().map(|from| self.open(from)).find(|place| *place < self.size)?;
            let address = self.at(place)?;
            if !(self.avoid_buggy && is_buggy(address)) {
                return Some(address);
            }
            self.close(place);
        }
    }

    /// The first place from here on that is not taken; may be behind the last.
    fn open(&self, from: u128) -> u128 {
        match self.taken.range(..=from).next_back() {
            Some((_, last)) if *last >= from => last.saturating_add(1),
            _ => from,
        }
    }

    fn close(&mut self, place: u128) {
        let before = self.taken.range(..=place).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((_, last)) if last >= place => return,
            Some((first, last)) if last + 1 == place => first,
            _ => place,
        };
        self.closed += 1;
        if self.avoid_buggy && self.at(place).is_some_and(is_buggy) {
            self.buggy -= 1;
        }
        let last = self.taken.remove(&place.saturating_add(1)).unwrap_or(place);
        self.taken.insert(first, last);
    }

    fn at(&self, place: u128) -> Option<IpAddr> {
        let at = self.ranges.partition_point(|(start, _)| *start <= place).checked_sub(1)?;
        let (start, range) = self.ranges.get(at)?;
        range.at(place - start)
    }
}

/// How many of a range [`is_buggy`] says.
fn buggy_in(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Of the addresses below one: two in each 256, and the first of those that are begun.
    let below = |n: u64| n / 256 * 2 + u64::from(!n.is_multiple_of(256));
    u128::from(below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits())))
}

/// Addresses that some equipment takes for those of a network (MetalLB's `avoidBuggyIPs`).
pub(super) fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(a) if matches!(a.octets()[3], 0 | 255))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn space(ranges: &[(&str, &str)], avoid_buggy: bool) -> Space {
        let range = |(a, b): &(&str, &str)| AddressRange::new(a.parse().unwrap(), b.parse().unwrap()).expect("a range");
        Space::new(ranges.iter().map(range), avoid_buggy)
    }

    #[test]
    fn every_address_is_given_once_and_then_none() {
        for seed in 0..50_u64 {
            let mut space =
                space(&[("10.0.0.250", "10.0.1.5"), ("10.0.9.9", "10.0.9.9"), ("10.1.0.0", "10.1.0.7")], false);
            let mut given = BTreeSet::new();
            let mut hash = seed;
            while let Some(address) = space.free(hash) {
                assert!(given.insert(address), "{address} twice");
                space.take(address);
                assert_eq!(space.left(), 21 - given.len() as u128);
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            }
            assert_eq!(given.len(), 21);
            assert_eq!(space.taken.len(), 1, "touching runs are one");
        }
    }

    #[test]
    fn what_is_taken_or_buggy_is_passed_over() {
        let mut space = space(&[("10.0.0.254", "10.0.1.1")], true);
        // 10.0.0.255 and 10.0.1.0 are never given, whether or not somebody has looked at them.
        assert_eq!(space.left(), 2);
        space.take("10.0.1.1".parse().unwrap());
        assert_eq!(space.left(), 1);
        space.take("10.0.1.0".parse().unwrap());
        assert_eq!(space.left(), 1);
        space.take("192.0.2.1".parse().unwrap());
        assert_eq!((0..4).map(|h| space.free(h)).collect::<BTreeSet<_>>(), BTreeSet::from(["10.0.0.254".parse().ok()]));
        space.take("10.0.0.254".parse().unwrap());
        assert_eq!((space.left(), space.free(0)), (0, None));
    }

    #[test]
    fn all_of_ipv6_is_a_space() {
        let mut space = space(&[("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")], false);
        assert_eq!(space.free(7), "::7".parse().ok());
    }
}
