//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, §3.4) with smooth weights.
//!
//! The table depends only on the identities, weights, the seed and the size: every edge node that knows the same
//! endpoints fills the same table. Identities are sorted by the caller; a list index never enters the hash.

use crate::hash;

/// Prime sizes a table may have. The plan takes the first above 100 × backends, which keeps a change of one backend
/// from moving more than about 1 % of the other slots.
pub const SIZES: [u32; 9] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521];

/// The table size for `backends` endpoints: above 100 times as many where the largest prime allows it.
pub fn size_for(backends: usize) -> u32 {
    SIZES.into_iter().find(|&m| m as usize > 100 * backends).unwrap_or(SIZES[SIZES.len() - 1])
}

/// One backend as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// [`identity`] of the endpoint.
    pub identity: u64,
    /// 0 takes no slot.
    pub weight: u32,
    /// What its slots hold.
    pub value: u32,
    next: u32,
    skip: u32,
    credit: u32,
}

impl Entry {
    pub const fn new(identity: u64, weight: u32, value: u32) -> Self {
        Self { identity, weight, value, next: 0, skip: 0, credit: 0 }
    }
}

/// Identity of an endpoint: keyed hash of its address, port and protocol.
pub fn identity(seed: u64, addr: &crate::Addr, port: crate::Port, proto: u8) -> u64 {
    let mut id = [0; 19];
    id[..16].copy_from_slice(addr);
    id[16..18].copy_from_slice(&port);
    id[18] = proto;
    hash::bytes(seed, &id)
}

/// Fills `table` (a prime length, all entries overwritten) and returns whether any backend has weight.
/// `entries` must be sorted by the caller in an order that all nodes share; equal identities then tie-break alike.
pub fn fill(table: &mut [u32], entries: &mut [Entry], seed: u64) -> bool {
    let m = table.len() as u64;
    let heaviest = entries.iter().map(|e| e.weight).max().unwrap_or(0);
    table.fill(0);
    if heaviest == 0 || m < 2 {
        return false;
    }
    for e in entries.iter_mut() {
        let (h1, h2) = (hash::bytes(seed, &e.identity.to_be_bytes()), hash::bytes(!seed, &e.identity.to_be_bytes()));
        (e.next, e.skip, e.credit) = ((h1 % m) as u32, (h2 % (m - 1) + 1) as u32, 0);
    }
    let mut left = table.len();
    // A slot is "taken" when it differs from 0; backend ids start at 1.
    loop {
        for e in entries.iter_mut() {
            // Smooth weights: each round adds the weight, and a full credit buys one slot.
            e.credit += e.weight;
            if e.credit < heaviest || e.weight == 0 {
                continue;
            }
            e.credit -= heaviest;
            loop {
                let at = e.next as usize;
                e.next = ((e.next as u64 + e.skip as u64) % m) as u32;
                if table[at] == 0 {
                    table[at] = e.value;
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn entries(n: u32, weight: impl Fn(u32) -> u32) -> Vec<Entry> {
        (1..=n).map(|i| Entry::new(hash::bytes(9, &i.to_be_bytes()), weight(i), i)).collect()
    }

    fn counts(table: &[u32], n: u32) -> Vec<usize> {
        (1..=n).map(|i| table.iter().filter(|&&v| v == i).count()).collect()
    }

    #[test]
    fn equal_weights_differ_by_at_most_one_slot() {
        let mut table = vec![0; 16381];
        assert!(fill(&mut table, &mut entries(100, |_| 1), 1));
        let c = counts(&table, 100);
        assert!(c.iter().max().unwrap() - c.iter().min().unwrap() <= 1, "{c:?}");
    }

    #[test]
    fn slots_follow_weights_and_zero_takes_none() {
        let mut table = vec![0; 4093];
        assert!(fill(&mut table, &mut entries(3, |i| [10, 5, 0][i as usize - 1]), 1));
        let c = counts(&table, 3);
        assert_eq!(c[2], 0);
        assert!((2.0 - c[0] as f64 / c[1] as f64).abs() < 0.01, "{c:?}");
    }

    #[test]
    fn removing_one_of_forty_moves_few_other_slots() {
        let (mut before, mut after) = (vec![0; 4093], vec![0; 4093]);
        fill(&mut before, &mut entries(40, |_| 1), 1);
        fill(&mut after, &mut entries(40, |i| u32::from(i != 17)), 1);
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != 17 && b != a).count();
        assert!(moved < 4093 * 3 / 100, "{moved}");
    }

    #[test]
    fn no_weight_means_no_table() {
        let mut table = vec![7; 251];
        assert!(!fill(&mut table, &mut entries(2, |_| 0), 1));
        assert!(table.iter().all(|&v| v == 0));
        assert!(!fill(&mut table, &mut [], 1));
    }

    #[test]
    fn size_is_above_a_hundred_times_the_backends() {
        assert_eq!(
            [size_for(0), size_for(2), size_for(3), size_for(100), size_for(5000)],
            [251, 251, 509, 16381, 65521]
        );
    }
}
