//! What is told of elections to people and to metrics.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Election, Reject, Router};
use crate::model::election::{ElectionReport, OtherRouter, VirtualRouter};

impl Election {
    pub(in crate::vip) fn report(&self, notes: &[String], unsent: u64) -> ElectionReport {
        let router = |r: &Router| VirtualRouter {
            vrid: r.group.vrid,
            addresses: r.group.addresses.clone(),
            order: r.group.order.clone(),
            state: r.machine.state(),
            since: r.machine.since,
            priority: r.machine.priority(),
            other: r.machine.other().map(|o| OtherRouter {
                address: o.from,
                priority: o.priority,
                interval: o.interval,
                heard: o.at,
            }),
            became_active: r.machine.counts.became_active,
            stepped_down: r.machine.counts.stepped_down,
            fenced: r.machine.counts.fenced,
            adverts_sent: r.machine.counts.sent,
            adverts_heard: r.machine.counts.heard,
        };
        let mut notes = notes.to_vec();
        notes.extend(self.mute());
        notes.extend(self.fitness.bans.iter().map(|b| format!("takes no part in elections: {b}")));
        notes.extend(self.fitness.faults.iter().map(|f| format!("stands for election as the last resort: {f}")));
        ElectionReport {
            routers: self.routers.values().map(router).collect(),
            rejected: Reject::ALL.iter().map(|r| (r.label(), self.rejected[*r as usize])).collect(),
            unsent,
            foreign: self.foreign.values().cloned().collect(),
            notes,
            draining: self.draining,
        }
    }

    /// Why some routers cannot speak although there is a link.
    fn mute(&self) -> Option<String> {
        self.sources.as_ref()?;
        let mute: BTreeSet<&str> = self
            .routers
            .keys()
            .filter(|(_, v4)| self.source(*v4).is_none())
            .map(|(_, v4)| if *v4 { "IPv4" } else { "link-local IPv6" })
            .collect();
        let families: Vec<&str> = mute.into_iter().collect();
        (!families.is_empty()).then(|| {
            format!("the interface has no {} address of its own to send adverts from", families.join(" and no "))
        })
    }
}

pub(super) fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let shown: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
