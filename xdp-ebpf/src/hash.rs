//! Seeded hashes of tuples and addresses, the same on the BPF target and on the host.
//!
//! Built from the rounds of XXH64 (public domain specification by Yann Collet): multiply, rotate, multiply. They need
//! nothing that BPF lacks (no 128-bit product), and two rounds cover an IPv4 tuple.

use crate::{Addr, Port, is_v4};

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;

/// Added to the seed for the reverse direction, so that a flow's two entries fall into unrelated buckets.
pub const REPLY_SEED: u64 = 0x27D4_EB2F_1656_67C5;

#[inline(always)]
const fn round(h: u64, word: u64) -> u64 {
    let k = word.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1);
    (h ^ k).rotate_left(27).wrapping_mul(P1).wrapping_add(P4)
}

#[inline(always)]
const fn finish(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(P2);
    h ^= h >> 29;
    h = h.wrapping_mul(P3);
    h ^ (h >> 32)
}

#[inline(always)]
const fn word(addr: &Addr, at: usize) -> u64 {
    u64::from_be_bytes([
        addr[at],
        addr[at + 1],
        addr[at + 2],
        addr[at + 3],
        addr[at + 4],
        addr[at + 5],
        addr[at + 6],
        addr[at + 7],
    ])
}

#[inline(always)]
const fn low(addr: &Addr) -> u32 {
    u32::from_be_bytes([addr[12], addr[13], addr[14], addr[15]])
}

/// Hash of an IPv4 tuple whose words are at hand. `src`, `dst`, `sport`, `dport` in host order.
#[inline(always)]
pub const fn tuple_v4(seed: u64, src: u32, dst: u32, sport: u16, dport: u16, proto: u8) -> u64 {
    let h = round(seed ^ P3, (src as u64) << 32 | dst as u64);
    finish(round(h, (sport as u64) << 32 | (dport as u64) << 16 | proto as u64))
}

/// Hash of a tuple: the high 32 bits choose the Maglev slot and the tag, the low ones the bucket.
#[inline(always)]
pub const fn tuple(seed: u64, src: &Addr, dst: &Addr, sport: Port, dport: Port, proto: u8) -> u64 {
    let (sport, dport) = (u16::from_be_bytes(sport), u16::from_be_bytes(dport));
    if is_v4(src) && is_v4(dst) {
        return tuple_v4(seed, low(src), low(dst), sport, dport, proto);
    }
    tuple_v6(seed, [word(src, 0), word(src, 8)], [word(dst, 0), word(dst, 8)], sport, dport, proto)
}

/// Hash of an IPv6 tuple whose words are at hand, all in host order.
#[inline(always)]
pub const fn tuple_v6(seed: u64, src: [u64; 2], dst: [u64; 2], sport: u16, dport: u16, proto: u8) -> u64 {
    let mut h = round(seed ^ P3, src[0]);
    h = round(h, src[1]);
    h = round(h, dst[0]);
    h = round(h, dst[1]);
    finish(round(h, (sport as u64) << 32 | (dport as u64) << 16 | proto as u64))
}

/// The tag of a hash in a bucket: never `FREE` or `BUSY`.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    let t = (hash >> 32) as u32;
    if t < crate::tag::FIRST { t + crate::tag::FIRST } else { t }
}

/// The way of its bucket that a new record takes if it may choose, known before the bucket is read: so the record's line can be on
/// its way from memory together with the bucket's. From bits above those of any bucket's index.
#[inline(always)]
pub const fn first_way(hash: u64) -> u32 {
    (hash >> 29) as u32 & (crate::WAYS as u32 - 1)
}

/// Slot of a table of `len` entries: a multiply instead of a division.
#[inline(always)]
pub const fn slot(hash: u64, len: u32) -> u32 {
    (((hash >> 32) * len as u64) >> 32) as u32
}

/// Candidate `i` of the source ports `min .. min + count` for a flow with this hash. From bits that neither the slot nor the
/// bucket depends on alone; the stride is prime, so that crowded ranges are left quickly.
#[inline(always)]
pub const fn port(hash: u64, i: u32, min: u32, count: u32) -> u16 {
    let count = if count == 0 { 1 } else { count };
    let step = slot(hash.rotate_left(16), count).wrapping_add(i.wrapping_mul(9973));
    min.wrapping_add(step % count) as u16
}

/// Bit of [`AddrFilter`](crate::AddrFilter) for an address given as its four big-endian words (IPv4: `0, 0, 0xffff, v4`).
/// Unseeded: a false positive costs one hash look-up, which is nothing an attacker could not cause by sending to a VIP.
#[inline(always)]
pub const fn filter_bit(high: u64, low: u64) -> u32 {
    let x = (high ^ low.rotate_left(32)).wrapping_mul(P1) ^ low.wrapping_mul(P2);
    ((x >> 40) as u32) & (crate::ADDR_FILTER_BITS - 1)
}

/// [`filter_bit`] of an [`Addr`].
pub const fn addr_filter_bit(addr: &Addr) -> u32 {
    filter_bit(word(addr, 0), word(addr, 8))
}

/// Keyed hash of bytes, for Maglev identities. Host only (loops over the input).
pub fn bytes(seed: u64, data: &[u8]) -> u64 {
    let mut h = seed ^ P3 ^ (data.len() as u64);
    for chunk in data.chunks(8) {
        let mut w = [0; 8];
        w[..chunk.len()].copy_from_slice(chunk);
        h = round(h, u64::from_be_bytes(w));
    }
    finish(h)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn v4_tuple_equals_mapped_tuple() {
        let (a, b) = ([198, 51, 100, 7], [203, 0, 113, 10]);
        let long = tuple(7, &crate::mapped_v4(a), &crate::mapped_v4(b), [0x9c, 0x40], [1, 0xbb], 6);
        assert_eq!(long, tuple_v4(7, u32::from_be_bytes(a), u32::from_be_bytes(b), 40_000, 443, 6));
    }

    #[test]
    fn ports_spread_evenly_over_slots_and_buckets() {
        let (mut slots, mut buckets) = (vec![0u32; 251], vec![0u32; 256]);
        for port in 0..50_000u16 {
            let h = tuple_v4(1, 0xc633_6407, 0xcb00_710a, port, 443, 6);
            slots[slot(h, 251) as usize] += 1;
            buckets[(h & 255) as usize] += 1;
        }
        // Mean 199 and 195; 6 sigma of a binomial is about 85.
        assert!(slots.iter().chain(&buckets).all(|&n| (110..290).contains(&n)), "{slots:?} {buckets:?}");
    }

    #[test]
    fn tag_is_never_free_or_busy() {
        assert_eq!(tag(0), 2);
        assert_eq!(tag(1 << 32), 3);
        assert_eq!(tag(u64::MAX), u32::MAX);
    }
}
