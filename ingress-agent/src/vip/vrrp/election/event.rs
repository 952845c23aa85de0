//! What elections hear, and what they want done.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::packet::{Envelope, Reject};
use crate::model::election::{Fitness, Move, RouterKey, Standings, VipGroup};

pub(in crate::vip) enum Event<'a> {
    Groups(Arc<[VipGroup]>),
    /// Addresses of the interface from which adverts may come, best first; `None` without a link.
    Link(Option<Vec<IpAddr>>),
    Fitness(Fitness),
    /// Give everything away, and take part no more; or take part again.
    Drain(bool),
    Move(BTreeSet<IpAddr>, Move),
    Packet {
        packet: Result<(Envelope, &'a [u8]), Reject>,
        mac: [u8; 6],
    },
    /// What time it is, since 1970. Clocks are set, so it is said again and again; only signed adverts need it.
    Clock(Duration),
    /// Whether this node may take addresses from one that has them; if not, it behaves as with `nopreempt`.
    MayPreempt(bool),
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vip) enum Action {
    Send {
        source: IpAddr,
        destination: IpAddr,
        payload: Vec<u8>,
    },
    /// From now on these, and no others. Of `unsure` ones nobody else was ever heard to be the owner: whether they are free has
    /// to be found out. Who has `open` ones is not known yet: what a killed agent left of them stays as it is.
    Hold {
        held: BTreeSet<IpAddr>,
        unsure: BTreeSet<IpAddr>,
        open: BTreeSet<IpAddr>,
        /// The same of each router.
        standings: Standings,
    },
    /// The node with this link-layer address gives the router's addresses to this one, or takes them, and lives: each of them has
    /// connections that the other does not know.
    HandOver(RouterKey, [u8; 6]),
    /// Somebody may believe that he has them.
    Announce(BTreeSet<IpAddr>),
    Say(String),
    Warn(String),
}
