//! Node → [`NodeFacts`]: its labels and addresses, and none of what its heartbeats change.

use k8s_openapi::api::core::v1::Node;

use super::{Notes, address};
use crate::model::facts::NodeFacts;
use crate::model::rejection::Rejection;

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
    Ok(NodeFacts {
        labels: object.metadata.labels.clone().unwrap_or_default(),
        addresses,
        origin: notes.origin.clone(),
    })
}
