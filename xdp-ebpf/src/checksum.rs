//! Internet checksums (RFC 1071) and their incremental update (RFC 1624 eqn. 3), inline: the kernel's helper costs
//! more than the whole rewrite.

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The difference that replacing `old` with `new` makes, to be summed over all replaced words and given to [`apply`].
/// Both in the byte order in which they lie in the packet, read natively (the sum is order-independent, RFC 1071 §2(B)).
#[inline(always)]
pub const fn diff(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// [`diff`] for a 16-bit field.
#[inline(always)]
pub const fn diff16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m'), with `delta` the sum of the [`diff`]s. `check` as it lies in the packet.
#[inline(always)]
pub const fn apply(check: u16, delta: u64) -> u16 {
    !fold(!check as u64 + delta)
}

/// The ones' complement sum of `data` (unfolded); an odd last byte counts as the high byte of a word. Host and slow paths.
pub fn sum(data: &[u8]) -> u64 {
    data.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn incremental_update_equals_full_sum() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32
        };
        for _ in 0..10_000 {
            let mut words: Vec<u32> = (0..5).map(|_| next()).collect();
            let bytes = |w: &[u32]| w.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
            let check = !fold(sum(&bytes(&words)));
            let (at, new) = (next() as usize % 5, next());
            let delta = diff(words[at], new);
            words[at] = new;
            assert_eq!(apply(check, delta), !fold(sum(&bytes(&words))));
        }
    }
}
