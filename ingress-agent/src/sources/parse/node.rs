//! Node → [`NodeFacts`]: its labels, its addresses and whether it drains, and none of what its heartbeats change.

use k8s_openapi::api::core::v1::Node;

use super::{Notes, address};
use crate::model::facts::NodeFacts;
use crate::model::rejection::Rejection;

/// On a Node: the virtual addresses leave it. Not so for a mere cordon, which is about pods (MetalLB's backlash of its PR 2470).
const DRAIN: &str = "sluicegate.io/drain";

pub fn parse(object: &Node, notes: &mut Notes) -> Result<NodeFacts, Rejection> {
    let mut addresses = Vec::new();
    for (i, written) in object.status.iter().flat_map(|s| s.addresses.iter().flatten()).enumerate() {
        // The others are names.
        if !matches!(written.type_.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match address(&written.address) {
            Ok(address) => addresses.push(address),
            Err(reason) => notes.reject(format!("status.addresses[{i}].address"), reason),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    let annotations = object.metadata.annotations.as_ref();
    let draining = match annotations.and_then(|a| a.get(DRAIN)).map(|v| v.trim()) {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(other) => {
            notes.reject(format!("metadata.annotations[{DRAIN}]"), format!("`{other}` is neither true nor false"));
            false
        }
    };
    Ok(NodeFacts {
        labels: object.metadata.labels.clone().unwrap_or_default(),
        addresses,
        draining,
        origin: notes.origin.clone(),
    })
}
