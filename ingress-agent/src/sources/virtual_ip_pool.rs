//! The custom resource `VirtualIPPool`: its types, from which the CRD in `deploy/crds` is generated (`cargo xtask crds`).
//! What is said here in doc comments is what `kubectl explain virtualippool` says. Nothing is checked here: `parse` does.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses that are given to Services of type LoadBalancer and to IngressClasses.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluicegate.io",
    version = "v1alpha1",
    kind = "VirtualIPPool",
    root = "VirtualIpPool",
    plural = "virtualippools",
    shortname = "vippool",
    category = "sluicegate",
    status = "VirtualIpPoolStatus",
    derive = "PartialEq",
    doc = "Addresses that Sluicegate gives to Services of type LoadBalancer and to IngressClasses, and answers for.",
    printcolumn = r#"{"name":"Addresses", "type":"string", "jsonPath":".spec.addresses"}"#,
    printcolumn = r#"{"name":"Auto", "type":"boolean", "jsonPath":".spec.autoAssign"}"#,
    printcolumn = r#"{"name":"Accepted", "type":"string", "jsonPath":".status.conditions[?(@.type=='Accepted')].reason", "description":"Accepted, or why not"}"#,
    printcolumn = r#"{"name":"IPv4", "type":"integer", "jsonPath":".status.assignedIPv4", "description":"IPv4 addresses that are assigned"}"#,
    printcolumn = r#"{"name":"Left", "type":"integer", "jsonPath":".status.availableIPv4", "description":"IPv4 addresses that are left"}"#,
    printcolumn = r#"{"name":"IPv6", "type":"integer", "jsonPath":".status.assignedIPv6", "description":"IPv6 addresses that are assigned"}"#,
    printcolumn = r#"{"name":"IPv6 left", "type":"integer", "jsonPath":".status.availableIPv6", "priority":1}"#,
    printcolumn = r#"{"name":"Message", "type":"string", "jsonPath":".status.conditions[?(@.type=='Accepted')].message", "priority":1}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIpPoolSpec {
    /// CIDRs (`203.0.113.0/26`), ranges (`203.0.113.10-203.0.113.20`) and single addresses, of IPv4 and of IPv6. No other
    /// pool may hold any of them.
    // Reading does without, so that what is wrong with it can be said by `parse`.
    #[serde(default)]
    #[schemars(!default, length(min = 1, max = 1000))]
    pub addresses: Vec<String>,
    /// Whether Services get an address without asking for this pool. Otherwise they name it
    /// (annotation `sluicegate.io/pool`), or an address of it.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Never give out IPv4 addresses that end in .0 or .255: some old clients and routers take them for networks.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Names of the namespaces whose Services may have these addresses. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels of the Services that may have these addresses. Empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Nodes that may hold these addresses. Empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSelector>,
    /// Network interface that carries these addresses. Nodes that carry addresses on another one do not hold them.
    /// Left out: the one that the node is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub interface: Option<String>,
    /// What is not known here: misspelt, or of a newer definition.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

fn yes() -> bool {
    true
}

/// As in Kubernetes: everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    /// Name of the label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// For `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Names of nodes. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// What became of the pool; written by the agent that holds the Lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIpPoolStatus {
    /// `Accepted`: addresses are given from it; if not, the reason says why (`Overlaps`, `Unusable`, `Invalid`). With the reason
    /// `HoldsNodeAddress` some of them are not given. `Available`: there are addresses left to give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// IPv4 addresses that are given away now. What several Services share counts once.
    #[serde(default, rename = "assignedIPv4", skip_serializing_if = "Option::is_none")]
    pub assigned_v4: Option<i64>,
    /// IPv4 addresses that are left.
    #[serde(default, rename = "availableIPv4", skip_serializing_if = "Option::is_none")]
    pub available_v4: Option<i64>,
    /// IPv6 addresses that are given away now.
    #[serde(default, rename = "assignedIPv6", skip_serializing_if = "Option::is_none")]
    pub assigned_v6: Option<i64>,
    /// IPv6 addresses that are left, as far as a number can say.
    #[serde(default, rename = "availableIPv6", skip_serializing_if = "Option::is_none")]
    pub available_v6: Option<i64>,
}

/// The fields of `metav1.Condition`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word, for programs.
    pub reason: String,
    pub message: String,
    /// RFC 3339.
    pub last_transition_time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The definition that makes an API server know the kind.
pub fn definition() -> CustomResourceDefinition {
    VirtualIpPool::crd()
}
