//! Ranges of addresses, and the order of addresses in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// From the first to the last, both of them included and of one family. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "(IpAddr, IpAddr)", try_from = "(IpAddr, IpAddr)")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `None` where the families differ or the end is before the beginning.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn last(&self) -> IpAddr {
        self.last
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses; as good as endless where a `u128` cannot tell.
    pub fn size(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// The address `offset` places after the first; `None` behind the last.
    pub fn at(&self, offset: u128) -> Option<IpAddr> {
        let wanted = number(self.first).checked_add(offset).filter(|n| *n <= number(self.last))?;
        Some(match self.first {
            IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(wanted).ok()?).into(),
            IpAddr::V6(_) => Ipv6Addr::from(wanted).into(),
        })
    }

    /// Places between the first address and this one of the range; `None` outside of it.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.first))
    }
}

impl From<AddressRange> for (IpAddr, IpAddr) {
    fn from(range: AddressRange) -> Self {
        (range.first, range.last)
    }
}

impl TryFrom<(IpAddr, IpAddr)> for AddressRange {
    type Error = &'static str;

    fn try_from((first, last): (IpAddr, IpAddr)) -> Result<Self, Self::Error> {
        Self::new(first, last).ok_or("is no range of addresses")
    }
}

/// As the owner would write it.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> AddressRange {
        AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).expect("a range")
    }

    #[test]
    fn places_are_counted_from_the_first() {
        let r = range("10.0.0.250", "10.0.1.5");
        assert_eq!((r.size(), r.at(6), r.at(11), r.at(12)), (12, "10.0.1.0".parse().ok(), Some(r.last()), None));
        assert_eq!((r.offset("10.0.1.0".parse().unwrap()), r.offset("::1".parse().unwrap())), (Some(6), None));
        let all = range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!((all.size(), all.at(u128::MAX)), (u128::MAX, Some(all.last())));
    }

    #[test]
    fn ranges_of_two_families_have_nothing_in_common() {
        assert!(!range("0.0.0.0", "255.255.255.255").overlaps(&range("::", "::ffff:ffff")));
        assert!(range("10.0.0.1", "10.0.0.5").overlaps(&range("10.0.0.5", "10.0.0.9")));
        assert!(AddressRange::new("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()).is_none());
    }
}
