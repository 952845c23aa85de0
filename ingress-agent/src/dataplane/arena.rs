//! Ranges of the ring arena: first fit, neighbours merge. Pure; it never touches the map.

use std::collections::BTreeMap;

use xdp_ebpf::Ring;

/// Which slots of `RINGS` are free.
#[derive(Debug)]
pub(super) struct Arena {
    /// Offset to length. No two ranges touch.
    free: BTreeMap<u32, u32>,
    slots: u32,
}

impl Arena {
    pub(super) fn new(slots: u32) -> Self {
        Self { free: BTreeMap::from([(0, slots)]), slots }
    }

    /// Takes a range of `len` slots, `len` > 0.
    pub(super) fn take(&mut self, len: u32) -> Option<Ring> {
        let (&offset, &size) = self.free.iter().find(|(_, size)| **size >= len)?;
        self.free.remove(&offset);
        if size > len {
            self.free.insert(offset + len, size - len);
        }
        Some(Ring::new(offset, len))
    }

    /// Takes exactly `ring`, as found in adopted maps. False when it lies outside or overlaps a taken one.
    pub(super) fn take_at(&mut self, ring: Ring) -> bool {
        let Some(end) = ring.offset().checked_add(ring.len()).filter(|end| *end <= self.slots) else { return false };
        let Some((&start, &size)) = self.free.range(..=ring.offset()).next_back() else { return false };
        if start + size < end {
            return false;
        }
        self.free.remove(&start);
        if start < ring.offset() {
            self.free.insert(start, ring.offset() - start);
        }
        if end < start + size {
            self.free.insert(end, start + size - end);
        }
        true
    }

    /// Gives a taken range back. The caller knows that no packet in flight still reads it.
    pub(super) fn give(&mut self, ring: Ring) {
        if ring.is_empty() {
            return;
        }
        let (mut offset, mut len) = (ring.offset(), ring.len());
        if let Some(next) = self.free.remove(&(offset + len)) {
            len += next;
        }
        if let Some((&before, &size)) = self.free.range(..offset).next_back()
            && before + size == offset
        {
            self.free.remove(&before);
            (offset, len) = (before, size + len);
        }
        self.free.insert(offset, len);
    }

    #[cfg(test)]
    pub(super) fn free_slots(&self) -> u32 {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_overlap_and_all_come_back() {
        // A seeded walk of takes and gives against a plain occupancy list.
        let mut arena = Arena::new(5000);
        let mut used = vec![false; 5000];
        let mut held: Vec<Ring> = Vec::new();
        let mut random = 42u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let r = (random >> 33) as usize;
            if r.is_multiple_of(2) || held.is_empty() {
                if let Some(ring) = arena.take(1 + (r / 2 % 400) as u32) {
                    for slot in &mut used[ring.offset() as usize..(ring.offset() + ring.len()) as usize] {
                        assert!(!std::mem::replace(slot, true));
                    }
                    held.push(ring);
                }
            } else {
                let ring = held.swap_remove(r / 2 % held.len());
                used[ring.offset() as usize..(ring.offset() + ring.len()) as usize].fill(false);
                arena.give(ring);
            }
            assert_eq!(arena.free_slots() as usize, used.iter().filter(|u| !**u).count());
        }
        held.drain(..).for_each(|ring| arena.give(ring));
        assert_eq!(arena.take(5000), Some(Ring::new(0, 5000)), "everything merged into one range");
    }

    #[test]
    fn adopted_ranges_are_taken_once_and_inside_only() {
        let mut arena = Arena::new(1000);
        assert!(arena.take_at(Ring::new(251, 251)));
        assert!(!arena.take_at(Ring::new(400, 10)), "inside a taken one");
        assert!(!arena.take_at(Ring::new(0, 252)), "overlaps its start");
        assert!(!arena.take_at(Ring::new(900, 101)), "beyond the end");
        assert!(!arena.take_at(Ring::new(u32::MAX, 10)), "overflows");
        assert!(arena.take_at(Ring::new(0, 251)));
        assert_eq!(arena.free_slots(), 1000 - 502);
        arena.give(Ring::new(0, 251));
        assert_eq!(arena.take(251), Some(Ring::new(0, 251)));
    }
}
