//! What the nodes say that they announce, and which of them are still there. Pure: the clock is an argument.
//!
//! As with the election, the time in a node's Lease is never compared with a clock here: a node is gone when its Lease has not
//! changed for its duration. A writer that begins gives every node that long from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::conflict::Conflicts;
use crate::model::conflict::Conflict;

/// A node's Lease, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeReport {
    /// The node's name.
    pub(super) node: String,
    /// Changes with each renewal.
    pub(super) renewed: String,
    pub(super) lasts: Duration,
    pub(super) announced: BTreeSet<IpAddr>,
    pub(super) conflicts: BTreeSet<Conflict>,
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By the Lease's name.
    reports: BTreeMap<String, (NodeReport, Instant)>,
    /// In a list that has begun and is not complete: what was not in it so far.
    unlisted: BTreeSet<String>,
}

impl Nodes {
    /// Returns whether that changes what is announced: most of the time it is a sign of life and nothing else.
    pub(super) fn see(&mut self, lease: &str, report: NodeReport, now: Instant) -> bool {
        self.unlisted.remove(lease);
        match self.reports.get_mut(lease) {
            Some((old, _)) if *old == report => false,
            Some(entry) => {
                let (old, since) = entry;
                let same = old.announced == report.announced && old.conflicts == report.conflicts;
                let changed = !same || old.node != report.node || now >= *since + old.lasts;
                *entry = (report, now);
                changed
            }
            None => {
                self.reports.insert(lease.to_owned(), (report, now));
                true
            }
        }
    }

    pub(super) fn gone(&mut self, lease: &str) {
        self.reports.remove(lease);
    }

    pub(super) fn begin_list(&mut self) {
        self.unlisted = self.reports.keys().cloned().collect();
    }

    pub(super) fn complete_list(&mut self) {
        for lease in std::mem::take(&mut self.unlisted) {
            self.gone(&lease);
        }
    }

    /// Who announces what, of the nodes that are there; `mine` speaks for this node, and not its Lease.
    pub(super) fn announced(
        &self,
        me: &str,
        mine: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> BTreeMap<IpAddr, BTreeSet<String>> {
        let mut all: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        let others = self.others(me, now).map(|report| (report.node.as_str(), &report.announced));
        for (node, addresses) in others.chain([(me, mine)]) {
            for address in addresses {
                all.entry(*address).or_default().insert(node.to_owned());
            }
        }
        all
    }

    /// What strangers use, and which nodes see it; else as [`Nodes::announced`].
    pub(super) fn conflicts(&self, me: &str, mine: &BTreeSet<Conflict>, now: Instant) -> Conflicts {
        let mut all = Conflicts::new();
        let others = self.others(me, now).map(|report| (report.node.as_str(), &report.conflicts));
        for (node, conflicts) in others.chain([(me, mine)]) {
            for conflict in conflicts {
                all.entry(conflict.clone()).or_default().insert(node.to_owned());
            }
        }
        all
    }

    fn others<'a>(&'a self, me: &'a str, now: Instant) -> impl Iterator<Item = &'a NodeReport> {
        let there =
            self.reports.values().filter(move |(report, since)| report.node != me && now < *since + report.lasts);
        there.map(|(report, _)| report)
    }

    /// When the next node is gone, if it says nothing more.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.reports.values().map(|(report, since)| *since + report.lasts).filter(|at| *at > now).min()
    }

    /// Leases of nodes that have been gone for so long that they will not come back as they were.
    pub(super) fn abandoned(&self, after: Duration, now: Instant) -> Option<&str> {
        self.reports
            .iter()
            .find(|(_, (report, since))| now >= *since + report.lasts + after)
            .map(|(lease, _)| lease.as_str())
    }
}

/// `203.0.113.10,2001:db8::10`, in order.
pub(super) fn text(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// What is no address is passed over: a newer version may say more.
pub(super) fn read(text: &str) -> BTreeSet<IpAddr> {
    text.split(',').filter_map(|part| part.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: &str, renewed: &str, announced: &str) -> NodeReport {
        NodeReport {
            node: node.into(),
            renewed: renewed.into(),
            lasts: Duration::from_secs(30),
            announced: read(announced),
            conflicts: BTreeSet::new(),
        }
    }

    fn told(nodes: &Nodes, mine: &str, now: Instant) -> Vec<String> {
        let of = |(address, by): (IpAddr, BTreeSet<String>)| {
            format!("{address} {}", by.into_iter().collect::<Vec<_>>().join("+"))
        };
        nodes.announced("me", &read(mine), now).into_iter().map(of).collect()
    }

    #[test]
    fn a_node_that_says_nothing_any_more_announces_nothing() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut nodes = Nodes::default();
        nodes.see("l-a", report("a", "1", "10.0.0.1,10.0.0.2"), start);
        nodes.see("l-b", report("b", "1", "10.0.0.2"), start + second * 5);
        assert_eq!(told(&nodes, "", start), ["10.0.0.1 a", "10.0.0.2 a+b"]);
        assert_eq!(nodes.next(start), Some(start + second * 30));
        assert_eq!(told(&nodes, "", start + second * 30), ["10.0.0.2 b"]);
        // The same report again, as a list that begins anew gives it, is no sign of life.
        nodes.see("l-b", report("b", "1", "10.0.0.2"), start + second * 20);
        assert_eq!(told(&nodes, "10.0.0.9", start + second * 35), ["10.0.0.9 me"]);
        assert!(nodes.see("l-b", report("b", "2", "10.0.0.2"), start + second * 40), "it was gone");
        assert!(!nodes.see("l-b", report("b", "3", "10.0.0.2"), start + second * 40), "a sign of life");
        assert_eq!(told(&nodes, "", start + second * 60), ["10.0.0.2 b"]);
        assert_eq!(nodes.abandoned(second * 60, start + second * 80), None);
        assert_eq!(nodes.abandoned(second * 60, start + second * 90), Some("l-a"));
    }

    #[test]
    fn this_node_speaks_for_itself() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        nodes.see("l-me", report("me", "1", "10.0.0.1"), now);
        assert_eq!(told(&nodes, "10.0.0.5", now), ["10.0.0.5 me"]);
    }

    #[test]
    fn what_several_nodes_see_is_one_conflict() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        let seen = super::super::conflict::read("vrid 51 10.0.0.66 02:00:00:00:00:66");
        let a = NodeReport { conflicts: seen.clone(), ..report("a", "1", "") };
        assert!(nodes.see("l-a", report("a", "1", ""), now));
        assert!(nodes.see("l-a", a, now), "it is news");
        let all = nodes.conflicts("me", &seen, now);
        let by: Vec<_> = all.values().flatten().map(String::as_str).collect();
        assert_eq!((all.len(), by), (1, vec!["a", "me"]));
        assert_eq!(nodes.conflicts("me", &BTreeSet::new(), now + Duration::from_secs(30)).len(), 0, "it is gone");
    }

    #[test]
    fn a_list_that_begins_again_deletes_only_when_it_is_complete() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        nodes.see("l-a", report("a", "1", "10.0.0.1"), now);
        nodes.see("l-b", report("b", "1", "10.0.0.2"), now);
        nodes.begin_list();
        nodes.see("l-b", report("b", "1", "10.0.0.2"), now);
        assert_eq!(told(&nodes, "", now).len(), 2);
        nodes.complete_list();
        assert_eq!(told(&nodes, "", now), ["10.0.0.2 b"]);
        nodes.gone("l-b");
        assert!(told(&nodes, "", now).is_empty());
    }

    #[test]
    fn lists_of_addresses_survive_the_text() {
        for addresses in ["", "203.0.113.10", "203.0.113.10,2001:db8::10"] {
            assert_eq!(text(&read(addresses)), addresses);
        }
        assert_eq!(text(&read(" 10.0.0.1 , what,,fd00::1")), "10.0.0.1,fd00::1");
    }
}
