//! How many addresses or ports stand behind each bit of `ADDR_FILTER`, so that a bit is cleared only when its last one leaves.
//! Pure: what has to be stored is returned.

use xdp_ebpf::{ADDR_FILTER_BITS, Addr, AddrFilter, hash};

/// A bit's place in the words of `ADDR_FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bit(usize);

impl Bit {
    pub(super) fn of_address(addr: &Addr) -> Self {
        Self(hash::addr_filter_bit(addr) as usize)
    }

    /// Of a frontend's port.
    pub(super) fn of_port(port: u16) -> Self {
        Self(ADDR_FILTER_BITS as usize + usize::from(port))
    }
}

#[derive(Debug)]
pub(super) struct FilterCounts {
    count: Vec<u32>,
}

impl FilterCounts {
    pub(super) fn new() -> Self {
        Self { count: vec![0; size_of::<AddrFilter>() * 8] }
    }

    /// Counts one more user of a bit. Returns the (word, bits) to store when it has to be set.
    pub(super) fn add(&mut self, Bit(bit): Bit) -> Option<(usize, u64)> {
        self.count[bit] += 1;
        (self.count[bit] == 1).then(|| (bit / 64, self.word(bit / 64)))
    }

    /// One user less. Returns the (word, bits) to store when a bit has to be cleared.
    pub(super) fn remove(&mut self, Bit(bit): Bit) -> Option<(usize, u64)> {
        self.count[bit] = self.count[bit].saturating_sub(1);
        (self.count[bit] == 0).then(|| (bit / 64, self.word(bit / 64)))
    }

    /// The 64 bits of a word as they should be.
    pub(super) fn word(&self, word: usize) -> u64 {
        let counts = &self.count[word * 64..word * 64 + 64];
        counts.iter().enumerate().fold(0, |bits, (i, count)| bits | u64::from(*count > 0) << i)
    }

    pub(super) fn words(&self) -> usize {
        self.count.len() / 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_ebpf::mapped_v4;

    #[test]
    fn a_bit_lives_as_long_as_its_last_user() {
        let addr = mapped_v4([203, 0, 113, 10]);
        let address = hash::addr_filter_bit(&addr) as usize;
        for (bit, at) in [(Bit::of_address(&addr), address), (Bit::of_port(443), 65_536 + 443)] {
            let mut filter = FilterCounts::new();
            assert_eq!(filter.add(bit), Some((at / 64, 1 << (at % 64))));
            assert_eq!(filter.add(bit), None);
            assert_eq!(filter.remove(bit), None);
            assert_eq!(filter.remove(bit), Some((at / 64, 0)));
        }
    }
}
