//! The two kinds of Lease, as the API has them: the one of the election, and the one that each node keeps of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::conflict;
use super::election::Record;
use super::nodes::{NodeReport, read, text};
use crate::model::report::Report;

/// Whoever holds it writes.
pub(super) const ELECTION: &str = "sluicegate-status";
/// The Lease of a node is this and the node's name.
const OF_NODE: &str = "sluicegate-node-";
/// Marks the nodes' Leases, with [`NODE`] as the value.
pub(super) const LABEL: &str = "sluicegate.io/lease";
pub(super) const NODE: &str = "node";
const ANNOUNCES: &str = "sluicegate.io/announces";
const CONFLICTS: &str = "sluicegate.io/conflicts";
const GENERATION: &str = "sluicegate.io/generation";

/// A node that says nothing for so long is gone.
pub(super) const NODE_LASTS: Duration = Duration::from_secs(30);
/// Between two signs of life: two of them may be lost.
pub(super) const NODE_RENEW: Duration = Duration::from_secs(10);

pub(super) fn node_lease(node: &str) -> String {
    format!("{OF_NODE}{node}")
}

/// Somebody may have written anything into it: what makes no sense is as good as nothing.
pub(super) fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.map(|t| t.0.to_string()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: seconds(spec.lease_duration_seconds),
        renewed,
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// Bounded, so that a typing error does not leave the cluster without a writer for years.
fn seconds(n: Option<i32>) -> Duration {
    Duration::from_secs(n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0).clamp(1, 600))
}

/// `version`: only if the Lease is still of this one.
pub(super) fn of_record(record: &Record, namespace: &str, version: Option<&str>) -> Lease {
    let now = MicroTime(Timestamp::now());
    let given_back = record.holder.is_empty();
    Lease {
        metadata: ObjectMeta {
            name: Some(ELECTION.into()),
            namespace: Some(namespace.into()),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(record.holder.clone()),
            lease_duration_seconds: i32::try_from(if given_back { 1 } else { record.lasts.as_secs() }).ok(),
            lease_transitions: Some(record.transitions),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

/// What this node says of itself.
pub(super) fn of_node(node: &str, namespace: &str, identity: &str, report: &Report) -> Lease {
    let generation = report.in_force.generation.to_string();
    let mut annotations = vec![(ANNOUNCES, text(&report.announced)), (GENERATION, generation)];
    if !report.conflicts.is_empty() {
        annotations.push((CONFLICTS, conflict::text(&report.conflicts)));
    }
    Lease {
        metadata: ObjectMeta {
            name: Some(node_lease(node)),
            namespace: Some(namespace.into()),
            labels: Some(BTreeMap::from([(LABEL.into(), NODE.into())])),
            annotations: Some(annotations.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.into()),
            lease_duration_seconds: i32::try_from(NODE_LASTS.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    }
}

pub(super) fn node_report(lease: &Lease) -> Option<NodeReport> {
    let node = lease.metadata.name.as_deref()?.strip_prefix(OF_NODE)?;
    let spec = lease.spec.as_ref()?;
    let annotations = lease.metadata.annotations.as_ref();
    let said = |key: &str| annotations.and_then(|a| a.get(key)).map(String::as_str).unwrap_or_default();
    Some(NodeReport {
        node: node.to_owned(),
        renewed: spec.renew_time.as_ref().map(|t| t.0.to_string()).unwrap_or_default(),
        lasts: seconds(spec.lease_duration_seconds),
        announced: read(said(ANNOUNCES)),
        conflicts: conflict::read(said(CONFLICTS)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_understood_as_it_was_written() {
        let announced = read("203.0.113.10,2001:db8::10");
        let conflicts = conflict::read("claimed 203.0.113.10 02:00:00:00:00:66");
        let said = Report { announced: announced.clone(), conflicts: conflicts.clone(), ..Report::default() };
        let lease = of_node("edge-1", "ns", "edge-1_x", &said);
        let report = node_report(&lease).expect("a report");
        assert_eq!((report.node.as_str(), report.lasts), ("edge-1", NODE_LASTS));
        assert_eq!((report.announced, report.conflicts.len()), (announced, 1));
        assert_eq!(report.conflicts, conflicts);
        assert!(!report.renewed.is_empty());
        assert_eq!(node_report(&Lease::default()), None);
    }

    #[test]
    fn a_record_is_understood_as_it_was_written() {
        let written =
            Record { holder: "a_1".into(), lasts: Duration::from_secs(15), renewed: String::new(), transitions: 2 };
        let lease = of_record(&written, "ns", Some("17"));
        let read = record(&lease);
        assert_eq!(Record { renewed: String::new(), ..read }, written);
        let nonsense = Lease {
            spec: Some(LeaseSpec { lease_duration_seconds: Some(-5), ..LeaseSpec::default() }),
            ..Lease::default()
        };
        assert_eq!(record(&nonsense).lasts, Duration::from_secs(1));
        assert_eq!(record(&nonsense).holder, "");
    }
}
