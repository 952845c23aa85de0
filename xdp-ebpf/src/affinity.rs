//! Who had which endpoint last, where a Service asks that its clients keep theirs for a time: key and value of `AFFINITY`. A part of
//! the ABI, under the same [`SCHEMA`](crate::SCHEMA).

use crate::Addr;
#[cfg(doc)]
use crate::Backend;

/// Key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AffinityKey {
    pub frontend: u32,
    pub client: Addr,
}
const _: () = assert!(size_of::<AffinityKey>() == 20);

/// Value of `AFFINITY`: the endpoint that a client had last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    pub backend: u32,
    /// [`Backend::epoch`] then: another endpoint in the same place is not meant.
    pub epoch: u32,
    /// The frontend's pool then.
    pub pool: u32,
    /// Tick of its last new flow.
    pub used: u32,
}
const _: () = assert!(size_of::<Affinity>() == 16);
