//! How many addresses stand behind each bit of `ADDR_FILTER`, so that a bit is cleared only when its last address leaves. Pure
//! but for the closure that stores a word.

use xdp_ebpf::{ADDR_FILTER_BITS, Addr, hash};

#[derive(Debug)]
pub(super) struct FilterCounts {
    count: Vec<u32>,
}

impl FilterCounts {
    pub(super) fn new() -> Self {
        Self { count: vec![0; ADDR_FILTER_BITS as usize] }
    }

    /// Counts one more user of `addr`. Returns the (word, bits) to store when a bit has to be set.
    pub(super) fn add(&mut self, addr: &Addr) -> Option<(usize, u64)> {
        let bit = hash::addr_filter_bit(addr) as usize;
        self.count[bit] += 1;
        (self.count[bit] == 1).then(|| (bit / 64, self.word(bit / 64)))
    }

    /// One user less. Returns the (word, bits) to store when a bit has to be cleared.
    pub(super) fn remove(&mut self, addr: &Addr) -> Option<(usize, u64)> {
        let bit = hash::addr_filter_bit(addr) as usize;
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
    fn a_bit_lives_as_long_as_its_last_address() {
        let mut filter = FilterCounts::new();
        let addr = mapped_v4([203, 0, 113, 10]);
        let bit = hash::addr_filter_bit(&addr) as usize;
        assert_eq!(filter.add(&addr), Some((bit / 64, 1 << (bit % 64))));
        assert_eq!(filter.add(&addr), None);
        assert_eq!(filter.remove(&addr), None);
        assert_eq!(filter.remove(&addr), Some((bit / 64, 0)));
    }
}
