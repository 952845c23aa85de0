//! What became of a VirtualIPPool, for whoever looks at the object: `plan` finds it out, `status` writes it.

use super::addresses::AddressRange;
use super::snapshot::ObjectName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    pub name: ObjectName,
    /// Of the object, where it came from an API server.
    pub uid: String,
    /// `metadata.generation` of what this was found of; 0: not known.
    pub generation: i64,
    /// Its addresses; of one that could not be parsed, those of the last good state.
    pub ranges: Vec<AddressRange>,
    pub verdict: PoolVerdict,
    /// One sentence without a full stop, for people.
    pub message: String,
    /// `None`: it has no address of that family.
    pub v4: Option<PoolCount>,
    pub v6: Option<PoolCount>,
}

/// Addresses are given from it in the first two cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolVerdict {
    Accepted,
    /// Some of its addresses are nodes' own, and are not given.
    HoldsNodeAddress,
    /// Another pool has some of its addresses.
    Overlaps,
    /// It has addresses that nobody can answer for.
    Unusable,
    /// It could not be parsed. The last good state, if there was one, gives addresses on, and the counts are its.
    Invalid,
}

impl PoolVerdict {
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Accepted | Self::HoldsNodeAddress)
    }

    /// The reason of a condition: one word, for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::HoldsNodeAddress => "HoldsNodeAddress",
            Self::Overlaps => "Overlaps",
            Self::Unusable => "Unusable",
            Self::Invalid => "Invalid",
        }
    }
}

/// Addresses of one family. What is neither assigned nor available is a node's own, or avoided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCount {
    /// Given away: to Services, to `IngressClass`es, by options. What several share counts once.
    pub assigned: u64,
    /// To be given; a /64 and more is as much as fits.
    pub available: u64,
}
