//! What is told of elections to people and to metrics.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::packet::Advert;
use super::{Action, Election, Reject, Router};
use crate::model::election::{ElectionReport, ForeignRouter, OtherRouter, VirtualRouter};
use crate::vip::frame::Mac;

/// Between two log lines about the same mistake.
const COMPLAIN_AGAIN: Duration = Duration::from_mins(10);
/// Foreign routers that are remembered, and for how long.
const FOREIGN: usize = 64;
const FOREIGN_FOR: Duration = Duration::from_mins(1);

impl Election {
    /// A router of the LAN that has a VRID of ours for something else: told once while it goes on.
    pub(super) fn saw_foreign(
        &mut self,
        advert: &Advert,
        from: IpAddr,
        mac: [u8; 6],
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let known = self.foreign.contains_key(&(advert.vrid, from));
        if !known && self.foreign.len() >= FOREIGN {
            return;
        }
        // One name for as long as it is known: whoever changes his with each advert is told of once.
        let before = self.foreign.get(&(advert.vrid, from)).map(|f| f.mac.clone());
        let mac = before.unwrap_or_else(|| Mac(mac).to_string());
        if !known {
            let list: Vec<String> = advert.addresses.iter().take(8).map(ToString::to_string).collect();
            actions.push(Action::Warn(format!(
                "another VRRP router, {from} ({mac}), uses VRID {} of ours for {}; it is ignored. Give one of the two \
                 another VRID (`--vrrp-vrids`, `--vrrp-vrid`)",
                advert.vrid,
                list.join(", ")
            )));
        }
        let foreign =
            ForeignRouter { vrid: advert.vrid, address: from, mac, addresses: advert.addresses.clone(), heard: now };
        self.foreign.insert((advert.vrid, from), foreign);
    }

    /// Two routers that do not understand each other are both Active, so whoever set them up should know why.
    pub(super) fn complain(
        &mut self,
        reject: Reject,
        from: Option<IpAddr>,
        mac: [u8; 6],
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let (Some(from), Some(why)) = (from, mistake(reject)) else { return };
        let told = &mut self.complained[reject as usize];
        if told.is_none_or(|at| now >= at + COMPLAIN_AGAIN) {
            *told = Some(now);
            actions.push(Action::Warn(format!("VRRP packets from {from} ({}) have no effect: {why}", Mac(mac))));
        }
    }

    pub(super) fn forget_foreign(&mut self, now: Instant) {
        self.foreign.retain(|_, f| now < f.heard + FOREIGN_FOR);
        self.peers.forget(now);
    }

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
            peers: self.peers.iter().map(|mac| Mac(mac).to_string()).collect(),
            speaks: self.speaks.iter().flatten().copied().collect(),
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

/// In words, where it is a mistake in the configuration of one of the two.
fn mistake(reject: Reject) -> Option<&'static str> {
    match reject {
        Reject::Version => Some("their version of VRRP is not ours (`--vrrp-version`)"),
        Reject::Interval => Some("their interval is 0 or, in version 2, not ours (`--vrrp-interval-ms`)"),
        Reject::Authentication => Some("their password is not ours (`--vrrp-auth-pass`)"),
        Reject::Length => {
            Some("they have a trailer, such as keepalived's `auth_hmac`: name its key (`--vrrp-auth-hmac-key`)")
        }
        Reject::Unsigned => Some("they are not signed; `--vrrp-auth-hmac-mode permissive` takes such as well"),
        Reject::Trailer => Some("their trailer is of another scheme than HMAC-SHA256"),
        Reject::UnknownKey => Some("they are signed with a key whose id is not known here (`--vrrp-auth-hmac-key`)"),
        Reject::Forged => {
            Some("their signature is not that of the key that they name; is its file the same on all nodes?")
        }
        Reject::Stale => {
            Some("they are signed at a time too far from now: set the clocks (NTP), or see `--vrrp-auth-hmac-window`")
        }
        Reject::Replayed => Some("they were heard before: somebody replays them, or the sender's clock was set back"),
        Reject::Checksum => Some("their checksum is wrong"),
        Reject::HopLimit => Some("their hop limit is not 255, so they did not come from this link"),
        Reject::Peer => {
            Some("they come by multicast from a network of unicast peers or from none of the peers (`--vrrp-peer`)")
        }
        Reject::Truncated | Reject::Type | Reject::Vrid | Reject::AddressList | Reject::OwnAddress => None,
    }
}

pub(super) fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let shown: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
