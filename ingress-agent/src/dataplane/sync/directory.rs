//! What this node calls a frontend and an endpoint, by what every node calls them: addresses, ports, protocol. The control thread
//! writes it as it writes the maps, the thread of the flow sync looks things up; ids of other nodes mean nothing here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdp_ebpf::{Addr, FrontendKey};

use crate::dataplane::pool::Slot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Known {
    pub id: u32,
    pub pool: u32,
    /// The source that `nat` backends see.
    pub snat: Addr,
}

/// Shared by two threads. A flow is written under the lock, so that none appears for an id after the control thread took the
/// id out of here.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct Directory(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
pub(in crate::dataplane) struct Entries {
    /// All frontends; `None` for those without a pool.
    frontends: HashMap<FrontendKey, Option<Known>>,
    /// By pool id; sorted by address.
    pools: HashMap<u32, Vec<Slot>>,
    /// The first snapshot is in.
    ready: bool,
}

impl Directory {
    pub(in crate::dataplane) fn lock(&self) -> MutexGuard<'_, Entries> {
        // Whoever panicked under the lock has left whole entries: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    pub(in crate::dataplane) fn put_frontend(&mut self, key: FrontendKey, known: Option<Known>) {
        self.frontends.insert(key, known);
    }

    pub(in crate::dataplane) fn remove_frontend(&mut self, key: &FrontendKey) {
        self.frontends.remove(key);
    }

    pub(in crate::dataplane) fn put_pool(&mut self, id: u32, slots: &[Slot]) {
        self.pools.insert(id, slots.to_vec());
    }

    pub(in crate::dataplane) fn remove_pool(&mut self, id: u32) {
        self.pools.remove(&id);
    }

    pub(in crate::dataplane) fn set_ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn frontend(&self, key: &FrontendKey) -> Option<Known> {
        *self.frontends.get(key)?
    }

    pub(super) fn is_frontend(&self, key: &FrontendKey) -> bool {
        self.frontends.contains_key(key)
    }

    pub(super) fn endpoint(&self, pool: u32, address: SocketAddr) -> Option<&Slot> {
        let slots = self.pools.get(&pool)?;
        slots.binary_search_by_key(&address, |slot| slot.address).ok().map(|at| &slots[at])
    }
}
