//! What this node can say of itself to the cluster, taken from the rooms at one moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Control;
use crate::model::holding::{Holding, LinkState};
use crate::model::report::Report;
use crate::model::source::SourceState;

impl Control {
    /// Passes on what has changed. Cheap enough to be called after everything that happens.
    pub(super) fn report(&self) {
        let planned = self.plan.as_ref().map(|p| Arc::clone(&p.snapshot)).unwrap_or_default();
        let announced = match (&self.vips, self.wanted()) {
            // On its way out the node withdraws first what it said; the addresses themselves stay until the last request.
            (Some(vips), Some(held)) if !self.draining => announced(&held, &vips.holding()),
            _ => BTreeSet::new(),
        };
        let conflicts = if self.draining { BTreeSet::new() } else { self.conflicts.clone() };
        let complete = self.read && is_complete(&self.source.borrow());
        self.told.send_if_modified(|before| {
            let no_plan = self.plan.is_none() && before.planned.generation == 0;
            let same = (no_plan || Arc::ptr_eq(&before.planned, &planned))
                && Arc::ptr_eq(&before.in_force, &self.in_force)
                && before.announced == announced
                && before.conflicts == conflicts
                && (before.complete, before.stopping) == (complete, self.draining);
            if !same {
                let in_force = Arc::clone(&self.in_force);
                let stopping = self.draining;
                *before = Arc::new(Report { planned, in_force, announced, conflicts, complete, stopping });
            }
            !same
        });
    }
}

/// Addresses of the generation in force that the kernel has and the LAN was told of.
fn announced(held: &BTreeSet<IpAddr>, holding: &Holding) -> BTreeSet<IpAddr> {
    if holding.link != LinkState::Up {
        return BTreeSet::new();
    }
    let is_announced =
        |a: &&IpAddr| holding.addresses.get(*a).is_some_and(|h| h.present && h.announced > 0 && h.fault.is_none());
    held.iter().filter(is_announced).copied().collect()
}

/// Whether what is not in the facts is not in the cluster.
fn is_complete(source: &SourceState) -> bool {
    source.waits_for.is_empty() && source.saved_at.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::holding::HeldAddress;

    #[test]
    fn an_address_is_announced_when_it_is_there_and_was_told_of() {
        let at = |n: u8| IpAddr::from([10, 0, 0, n]);
        let address = |present, announced, fault: Option<&str>| HeldAddress {
            present,
            announced,
            fault: fault.map(str::to_owned),
            claims: Vec::new(),
        };
        let mut holding = Holding {
            interface: "eth0".into(),
            link: LinkState::Up,
            addresses: [
                (at(1), address(true, 1, None)),
                (at(2), address(true, 0, None)),
                (at(3), address(false, 4, None)),
                (at(4), address(true, 4, Some("announce: no"))),
                // It is on its way out.
                (at(5), address(true, 4, None)),
            ]
            .into(),
        };
        let held = (1..=4).map(at).collect();
        assert_eq!(announced(&held, &holding), BTreeSet::from([at(1)]));
        holding.link = LinkState::NoCarrier;
        assert!(announced(&held, &holding).is_empty());
    }
}
