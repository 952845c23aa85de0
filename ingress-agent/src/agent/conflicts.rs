//! Which of what others on the LAN do with our addresses and VRIDs is worth the cluster's while. Pure: the clock is an argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::model::conflict::Conflict;
use crate::model::election::ElectionReport;
use crate::model::holding::Holding;

/// So many are told. A machine that claims a whole network must not fill a Lease.
const MOST: usize = 32;
/// Before a claim counts: an address that another node takes over is announced there before it is given up here, and a peer may be
/// known by its claim before it is by its advert.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) fn conflicts(holding: &Holding, elections: &ElectionReport, now: Instant) -> BTreeSet<Conflict> {
    let claims = holding.addresses.iter().flat_map(|(address, held)| {
        let strangers = held.claims.iter().filter(|c| now >= c.since + SETTLED && !elections.peers.contains(&c.mac));
        strangers.map(|claim| {
            let (address, mac) = (*address, claim.mac.clone());
            if held.present { Conflict::Claimed { address, mac } } else { Conflict::InUse { address, mac } }
        })
    });
    let routers = elections.foreign.iter();
    let routers = routers.map(|f| Conflict::Vrid { vrid: f.vrid, router: f.address, mac: f.mac.clone() });
    // Either kind has a part for itself.
    claims.take(MOST / 2).chain(routers.take(MOST / 2)).collect()
}

/// What is new of them. Foreign routers are told of where they are heard; without elections, claims are as well.
pub(super) fn log(before: &BTreeSet<Conflict>, now: &BTreeSet<Conflict>) {
    for conflict in now.difference(before) {
        match conflict {
            Conflict::Claimed { address, mac } => {
                warn!("{address} is also claimed by {mac}: two machines hold one address");
            }
            Conflict::InUse { address, mac } => warn!("{address} is not added: {mac} on this link uses it"),
            Conflict::Vrid { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::election::ForeignRouter;
    use crate::model::holding::{Claim, HeldAddress};

    fn at(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn held(present: bool, macs: &[&str], since: Instant) -> HeldAddress {
        let claims = macs.iter().map(|mac| Claim { mac: (*mac).to_owned(), since }).collect();
        HeldAddress { present, claims, ..HeldAddress::default() }
    }

    #[test]
    fn a_stranger_is_told_of_and_a_peer_is_not() {
        let start = Instant::now();
        let holding = Holding {
            addresses: [
                (at(1), held(true, &["peer", "stranger"], start)),
                (at(2), held(false, &["stranger"], start)),
                (at(3), held(true, &["late"], start + SETTLED)),
            ]
            .into(),
            ..Holding::default()
        };
        let foreign = ForeignRouter { vrid: 7, address: at(66), mac: "r".into(), addresses: vec![], heard: start };
        let elections = ElectionReport {
            peers: BTreeSet::from(["peer".to_owned()]),
            foreign: vec![foreign],
            ..ElectionReport::default()
        };
        let vrid = Conflict::Vrid { vrid: 7, router: at(66), mac: "r".into() };
        assert_eq!(conflicts(&holding, &elections, start), BTreeSet::from([vrid.clone()]), "a claim may be a takeover");
        let claimed = Conflict::Claimed { address: at(1), mac: "stranger".into() };
        let in_use = Conflict::InUse { address: at(2), mac: "stranger".into() };
        assert_eq!(conflicts(&holding, &elections, start + SETTLED), BTreeSet::from([claimed, in_use, vrid]));
    }

    #[test]
    fn a_machine_that_claims_everything_leaves_room_for_a_router() {
        let start = Instant::now();
        let addresses = (0..200).map(|n| (at(n), held(true, &["stranger"], start))).collect();
        let holding = Holding { addresses, ..Holding::default() };
        let foreign = ForeignRouter { vrid: 7, address: at(66), mac: "r".into(), addresses: vec![], heard: start };
        let elections = ElectionReport { foreign: vec![foreign], ..ElectionReport::default() };
        let found = conflicts(&holding, &elections, start + SETTLED);
        assert_eq!(found.len(), MOST / 2 + 1);
        assert!(found.iter().any(|c| matches!(c, Conflict::Vrid { .. })));
    }
}
