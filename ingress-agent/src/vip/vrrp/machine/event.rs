//! What happens to a virtual router, what it wants done, and what it knows of others.

use std::net::IpAddr;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vip::vrrp) struct Settings {
    /// Between two adverts of ours.
    pub(in crate::vip::vrrp) interval: Duration,
    /// Take over from an Active Router of lower priority.
    pub(in crate::vip::vrrp) preempt: bool,
    /// But not sooner than this after it was first heard.
    pub(in crate::vip::vrrp) preempt_delay: Duration,
    /// Nobody else may hold these addresses: there is nobody to step down for.
    pub(in crate::vip::vrrp) alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vip::vrrp) enum Event {
    /// Take part, with a priority from 1 to 255; also whenever one of the two changes.
    Join {
        priority: u8,
        source: IpAddr,
    },
    /// The link is gone: nobody can be told.
    Fault,
    /// Let another one take over. `rejoin`: and then stand by.
    Leave {
        rejoin: bool,
    },
    /// Take over, whoever has it now.
    Take,
    Heard {
        from: IpAddr,
        priority: u8,
        interval: Duration,
    },
    /// The time that `Machine::next` named has come.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vip::vrrp) enum Action {
    Send {
        priority: u8,
    },
    /// The addresses are ours.
    Hold,
    /// They are not any more.
    Release,
    /// They still are, and somebody may believe otherwise.
    Announce,
}

/// Another router of this VRID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vip::vrrp) struct Other {
    pub(in crate::vip::vrrp) from: IpAddr,
    pub(in crate::vip::vrrp) priority: u8,
    pub(in crate::vip::vrrp) interval: Duration,
    pub(in crate::vip::vrrp) at: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vip::vrrp) struct Counts {
    pub(in crate::vip::vrrp) became_active: u64,
    pub(in crate::vip::vrrp) stepped_down: u64,
    /// Of these, because it woke too late.
    pub(in crate::vip::vrrp) fenced: u64,
    pub(in crate::vip::vrrp) sent: u64,
    pub(in crate::vip::vrrp) heard: u64,
}
