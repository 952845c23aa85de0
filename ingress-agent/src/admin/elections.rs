//! Elections as one value and as a table: which virtual router has which addresses, who has them, who comes next.

use std::fmt::Write as _;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::status::Status;
use super::table::{Rows, duration, section};
use crate::model::election::{ElectionReport, VirtualRouter};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionsStatus {
    pub draining: bool,
    pub routers: Vec<RouterStatus>,
    /// Other VRRP routers on the LAN that use a VRID of ours for something else.
    pub foreign: Vec<ForeignStatus>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    pub vrid: u8,
    pub addresses: Vec<String>,
    /// `idle`, `backup`, `active`, `leaving`.
    pub state: String,
    pub state_seconds: u64,
    /// Of this node, as advertised.
    pub priority: u8,
    /// The node that has them, as far as this one has heard; an address where it is another.
    pub active: Option<String>,
    pub active_priority: Option<u8>,
    /// Nodes that may hold them, the preferred one first.
    pub order: Vec<String>,
    pub became_active: u64,
    pub stepped_down: u64,
    pub fenced: u64,
    pub adverts_sent: u64,
    pub adverts_heard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignStatus {
    pub vrid: u8,
    pub address: String,
    pub mac: String,
    pub addresses: Vec<String>,
    pub heard_seconds_ago: u64,
}

impl ElectionsStatus {
    pub(super) fn of(r: &ElectionReport) -> Self {
        let now = Instant::now();
        let ago = |then: Instant| now.saturating_duration_since(then).as_secs();
        let foreign = |f: &crate::model::election::ForeignRouter| ForeignStatus {
            vrid: f.vrid,
            address: f.address.to_string(),
            mac: f.mac.clone(),
            addresses: f.addresses.iter().map(ToString::to_string).collect(),
            heard_seconds_ago: ago(f.heard),
        };
        Self {
            draining: r.draining,
            routers: r.routers.iter().map(|router| RouterStatus::of(router, now)).collect(),
            foreign: r.foreign.iter().map(foreign).collect(),
            notes: r.notes.clone(),
        }
    }
}

impl RouterStatus {
    fn of(r: &VirtualRouter, now: Instant) -> Self {
        // Who was heard is Active unless it said that it leaves, or has been silent for so long that we would know.
        let other = r.other.filter(|o| {
            r.state != "active" && o.priority > 0 && now.saturating_duration_since(o.heard) < o.interval * 4
        });
        Self {
            vrid: r.vrid,
            addresses: r.addresses.iter().map(ToString::to_string).collect(),
            state: r.state.to_owned(),
            state_seconds: now.saturating_duration_since(r.since).as_secs(),
            priority: r.priority,
            active: if r.state == "active" { Some("this node".into()) } else { other.map(|o| o.address.to_string()) },
            active_priority: if r.state == "active" { Some(r.priority) } else { other.map(|o| o.priority) },
            order: r.order.clone(),
            became_active: r.became_active,
            stepped_down: r.stepped_down,
            fenced: r.fenced,
            adverts_sent: r.adverts_sent,
            adverts_heard: r.adverts_heard,
        }
    }
}

/// What `sluicegate vip list` prints.
pub fn list(status: &Status) -> String {
    if status.elections.routers.is_empty() {
        return match status.vips.len() {
            0 => "no address is served\n".into(),
            n => format!(
                "{n} addresses, all of them held here: this agent runs without elections (`--vip-mode static`)\n"
            ),
        };
    }
    let mut out = String::new();
    if status.elections.draining {
        out.push_str("this node is drained: it takes no address until `sluicegate vip undrain`\n");
    }
    section(&mut out, "ELECTIONS", &rows(&status.elections));
    for note in &status.elections.notes {
        let _ = writeln!(out, "  ! {note}");
    }
    out + &foreign(&status.elections)
}

/// A line for each stranger that has a VRID of ours.
pub(super) fn foreign(e: &ElectionsStatus) -> String {
    let mut out = String::new();
    for f in &e.foreign {
        let _ = writeln!(
            out,
            "  ! {} ({}) uses VRID {} for {}, heard {} ago",
            f.address,
            f.mac,
            f.vrid,
            f.addresses.join(", "),
            duration(f.heard_seconds_ago)
        );
    }
    out
}

pub(super) fn rows(e: &ElectionsStatus) -> Rows {
    let mut rows = vec![];
    if e.routers.is_empty() {
        return rows;
    }
    rows.push(["VRID", "ADDRESSES", "STATE", "SINCE", "PRIORITY", "ACTIVE", "ORDER"].map(str::to_owned).to_vec());
    for r in &e.routers {
        let active = match (&r.active, r.active_priority) {
            (Some(who), Some(priority)) => format!("{who} ({priority})"),
            _ => "nobody heard".to_owned(),
        };
        rows.push(vec![
            r.vrid.to_string(),
            r.addresses.join(" "),
            r.state.clone(),
            duration(r.state_seconds),
            r.priority.to_string(),
            active,
            if r.order.is_empty() { "not known".to_owned() } else { r.order.join(" > ") },
        ]);
    }
    rows
}
