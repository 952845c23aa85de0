//! Endpoints that left their pool. Connections to them go on for a while: the endpoint may have a packet on its way to a client who
//! has nothing to say before it comes, and would wait for ever if the packet found no flow. It may also live on, as one does whose
//! labels were changed, and finish what it was asked. After that time the next packet of a client gets a reset, by way of
//! another endpoint. UDP has no connections that could break: its flows move at once.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use xdp_ebpf::backend_state;

use super::Image;
use super::pools::backend;
use crate::dataplane::pool::{PoolKey, Slot};
use crate::model::snapshot::Protocol;

/// Number of the pool, address, way of forwarding.
type Place = (u32, SocketAddr, u8);

/// Where ids are short, so many leave for good at once: it costs a wait for packets.
const EARLY: usize = 256;

pub(super) struct Leaving {
    grace: Duration,
    /// Each with its end.
    slots: HashMap<Place, (Instant, Slot)>,
    /// The ends in their order. One that came back is in `slots` no more, or with another end.
    ends: VecDeque<(Instant, Place)>,
}

impl Leaving {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, slots: HashMap::new(), ends: VecDeque::new() }
    }

    /// Id and epoch of an endpoint that is the same as `wanted`, and stays.
    pub(super) fn claim(&mut self, key: &PoolKey, pool: u32, wanted: &Slot) -> Option<(u32, u32)> {
        if key.name.protocol != Protocol::Tcp {
            // The pool's number may have been a TCP pool's.
            return None;
        }
        let (_, slot) = self.slots.remove(&(pool, wanted.address, wanted.forwarding))?;
        Some((slot.id, slot.epoch))
    }

    /// Returns another one of the same place, whose flows end now.
    fn add(&mut self, pool: u32, slot: Slot, now: Instant) -> Option<Slot> {
        let (end, place) = (now + self.grace, (pool, slot.address, slot.forwarding));
        self.ends.push_back((end, place));
        self.slots.insert(place, (end, slot)).map(|(_, slot)| slot)
    }

    /// The next one; if a time is given, one whose end is then or before.
    fn next(&mut self, now: Option<Instant>) -> Option<Slot> {
        while self.ends.front().is_some_and(|(end, _)| now.is_none_or(|now| *end <= now))
            && let Some((end, place)) = self.ends.pop_front()
        {
            if self.slots.get(&place).is_some_and(|(of_slot, _)| *of_slot == end) {
                return self.slots.remove(&place).map(|(_, slot)| slot);
            }
        }
        None
    }
}

impl Image {
    /// An endpoint of pool `pool`, which no table names any more.
    pub(super) fn leave(&mut self, key: &PoolKey, pool: u32, slot: Slot, now: Instant) {
        if key.name.protocol != Protocol::Tcp || self.leaving.grace.is_zero() {
            return self.remove_backend(&slot, now);
        }
        self.backends -= 1;
        let slot = Slot { state: backend_state::DRAINING, ..slot };
        self.maps.backends.store(slot.id as usize, &backend(&slot));
        if let Some(before) = self.leaving.add(pool, slot, now) {
            self.end_backend(&before, now);
        }
    }

    /// Ends the flows of those whose time is over.
    pub(super) fn end_leave(&mut self, now: Instant) {
        while let Some(slot) = self.leaving.next(Some(now)) {
            self.end_backend(&slot, now);
        }
    }

    /// Ends those of the first to have left.
    pub(super) fn end_leave_early(&mut self, now: Instant) {
        for _ in 0..EARLY {
            let Some(slot) = self.leaving.next(None) else { return };
            self.end_backend(&slot, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::{ObjectName, PoolName, PoolScope};

    fn key(protocol: Protocol) -> PoolKey {
        let service = ObjectName::new("shop", "web");
        PoolKey { name: PoolName { service, port: 80, protocol, scope: PoolScope::All }, v6: false }
    }

    fn slot(id: u32) -> Slot {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        Slot { address, id, epoch: 10 * id, forwarding: 0, state: backend_state::DRAINING, weight: 1 }
    }

    #[test]
    fn one_that_came_back_and_left_again_ends_at_its_new_time() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut leaving = Leaving::new(10 * second);
        let tcp = key(Protocol::Tcp);
        assert_eq!(leaving.add(1, slot(7), start), None);
        assert_eq!(leaving.claim(&tcp, 2, &slot(0)), None, "another pool's");
        assert_eq!(leaving.claim(&key(Protocol::Udp), 1, &slot(0)), None, "another protocol's");
        assert_eq!(leaving.claim(&tcp, 1, &slot(0)), Some((7, 70)));
        assert_eq!(leaving.claim(&tcp, 1, &slot(0)), None, "only once");
        leaving.add(1, slot(7), start + 5 * second);
        assert_eq!(leaving.next(Some(start + 14 * second)), None);
        assert_eq!(leaving.next(Some(start + 15 * second)), Some(slot(7)));
        assert_eq!(leaving.next(None), None);
    }

    #[test]
    fn two_of_one_place_do_not_both_stay() {
        let now = Instant::now();
        let mut leaving = Leaving::new(Duration::from_secs(10));
        leaving.add(1, slot(7), now);
        assert_eq!(leaving.add(1, slot(8), now + Duration::from_secs(1)), Some(slot(7)));
        assert_eq!(leaving.next(None), Some(slot(8)));
        assert_eq!(leaving.next(None), None);
    }
}
