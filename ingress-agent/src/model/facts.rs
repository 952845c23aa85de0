//! What is known, parsed and nothing decided: the input of the plan. Kubernetes' own types have been left behind in
//! `sources`; which object wins, what is served where and what an endpoint's state means is the plan's business.
//!
//! A clone of [`Facts`] is a few pointers. An object that did not change keeps its `Arc`, and that is how the plan
//! finds out that it has nothing to do.
//!
//! Objects are serialised for a start without an API server (`sources::kube::saved`), and for nothing else.

mod exposure;

mod names;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::difference::Contrast;
use super::objects::Objects;
use super::policy::{Care, LimitDrop, RetryBudget};
use super::rejection::{Finding, Rejection, Severity, one_line};
use super::route::Balance;
use super::selector::Labels;
use super::snapshot::{AppProtocol, Certificate, Forwarding, ObjectName, Protocol};
use super::stream::ProxyProtocol;

pub use exposure::{
    Exposure, ExternalNameFacts, Families, Family, LoadBalancerFacts, NodeFacts, NodeSelector, PoolRef, VipFacts,
    VirtualIpPoolFacts,
};

/// What stands before the `/` of ingress-nginx's annotations, unless options say otherwise.
pub const NGINX_PREFIX: &str = "nginx.ingress.kubernetes.io";

/// All that the sources know.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Grows with each published change, from 1. 0: nothing has been read yet, and nothing must be concluded.
    pub revision: u64,
    pub services: Objects<ServiceFacts>,
    /// By Service: all its EndpointSlices.
    pub slices: Objects<ServiceSlices>,
    pub ingresses: Objects<IngressFacts>,
    pub classes: Objects<IngressClassFacts>,
    pub certificates: Objects<CertificateFacts>,
    pub virtual_ip_pools: Objects<VirtualIpPoolFacts>,
    pub nodes: Objects<NodeFacts>,
    /// Those that a label selector of the options chose; none where there is no such option.
    pub namespaces: Objects<NamespaceFacts>,
    /// TCP and UDP ports that a ConfigMap maps to Services: the two ConfigMaps that the options name.
    pub tcp_streams: Option<Arc<StreamFacts>>,
    pub udp_streams: Option<Arc<StreamFacts>>,
    /// Other ConfigMaps and Secrets that were read; who needs them names them.
    pub config_maps: Objects<ConfigMapFacts>,
    pub secrets: Objects<SecretFacts>,
    /// What could not be read or parsed. Sorted.
    pub rejections: Arc<Vec<Rejection>>,
}

/// Which object it was, where it was read and how old it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub name: ObjectName,
    /// `shop.yaml, document 2`; empty for objects from the API server.
    pub place: String,
    /// `metadata.creationTimestamp` in seconds since 1970, or [`UNDATED`].
    pub created: i64,
    /// `metadata.uid`, by which the API server tells objects of one name apart; empty for objects that did not come from one.
    pub uid: String,
}

/// The age of an object without a creation time: younger than any that has one.
pub const UNDATED: i64 = i64::MAX;

impl Origin {
    /// Who comes first where two objects claim the same thing: the older one, then the one whose name sorts first.
    pub fn seniority(&self) -> (i64, &ObjectName) {
        (self.created, &self.name)
    }

    /// In words, for the one that lost.
    pub fn why_before(&self, loser: &Self) -> &'static str {
        if self.created < loser.created { "which is older" } else { "whose name comes first" }
    }

    /// This part is not served.
    pub fn reject(&self, kind: &str, field: impl Into<String>, reason: impl Into<String>) -> Rejection {
        self.finding(kind, field.into(), reason.into(), Severity::Rejected)
    }

    /// It is served, but not as its owner may think.
    pub fn warn(&self, kind: &str, field: impl Into<String>, reason: impl Into<String>) -> Rejection {
        self.finding(kind, field.into(), reason.into(), Severity::Warning)
    }

    fn finding(&self, kind: &str, field: String, reason: String, severity: Severity) -> Rejection {
        let (kind, name, place) = (kind.to_owned(), self.name.clone(), self.place.clone());
        let (field, reason) = (one_line(field), one_line(reason));
        let (uid, contrast) = (self.uid.clone(), Contrast::Alike);
        Finding { kind, name, place, field, reason, severity, uid, contrast }.into()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    pub origin: Origin,
    pub labels: Labels,
    pub exposure: Exposure,
    /// `spec.externalIPs`; the plan knows whether they count.
    pub external_ips: Vec<VipFacts>,
    /// `spec.clusterIP`. `None`: headless, or not given one yet.
    #[serde(default)]
    pub cluster_ip: Option<IpAddr>,
    /// Addresses in its status, whatever its class, that kube-proxy takes for the node's own: their `ipMode` is not `Proxy`.
    pub bound_elsewhere: Vec<VipFacts>,
    /// `spec.selector`: Services of one selector have the same endpoints.
    pub selector: Labels,
    /// Without those that were rejected. Port numbers are never 0.
    pub ports: Vec<PortFacts>,
    /// `sessionAffinity: ClientIP`: for how many seconds after its last connection a client keeps its endpoint.
    pub client_ip_affinity: Option<u32>,
    /// `loadBalancerSourceRanges`: the clients that its owner admits from outside. `None`: all.
    pub source_ranges: Option<Vec<IpNet>>,
    /// `externalTrafficPolicy: Local`: its owner wants only endpoints of the receiving node.
    pub external_traffic_local: bool,
    /// Endpoints count as ready whatever their conditions say.
    pub publish_not_ready: bool,
    /// Overrides the choice by node name.
    pub forwarding: Option<Forwarding>,
    /// As asked for; the plan knows which sizes there are.
    pub table_size: Option<u32>,
    pub balance: Option<Balance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFacts {
    /// Empty where the Service has one port without a name. Slices are matched by it.
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    pub app_protocol: AppProtocol,
    /// Place in `spec.ports`, for messages.
    pub index: usize,
}

/// The EndpointSlices of one Service; their union counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSlices {
    pub service: ObjectName,
    /// Sorted by name.
    pub slices: Vec<Arc<SliceFacts>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceFacts {
    pub origin: Origin,
    /// The Service it belongs to, in the same namespace.
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<EndpointFacts>,
    /// Of each endpoint, relative to the Service's other slices; 0 takes no new flow.
    pub weight: u32,
}

/// Weight of endpoints whose slice says nothing.
pub const DEFAULT_WEIGHT: u32 = 100;
/// Largest weight: keeps the filling of a table short, which takes rounds in proportion to the largest over the smallest.
pub const MOST_WEIGHT: u32 = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    pub name: String,
    /// Never 0.
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFacts {
    pub address: IpAddr,
    /// Passed its readiness probe and is not terminating.
    pub ready: bool,
    /// Answers, whether terminating or not.
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<Arc<str>>,
    /// Zones whose clients it is meant for (`hints.forZones`), where these are asked for. Endpoints of a slice share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Arc<Vec<String>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressFacts {
    pub origin: Origin,
    pub class: ClassChoice,
    /// It has no rules at all (rather than none that could be used): its default backend is for every unknown host.
    pub catch_all: bool,
    pub default_backend: Option<BackendRef>,
    pub rules: Vec<RuleFacts>,
    pub tls: Vec<TlsFacts>,
    pub balance: Option<Balance>,
    #[serde(default)]
    pub limit_shared: bool,
    #[serde(default)]
    pub care: Option<Arc<Care>>,
    #[serde(default)]
    pub retry_budget: Option<RetryBudget>,
    #[serde(default)]
    pub limit_drop: Option<LimitDrop>,
    /// Those of ingress-nginx, without their prefix.
    pub annotations: BTreeMap<String, String>,
    /// That prefix, where it is not [`NGINX_PREFIX`] (`--annotations-prefix`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations_prefix: Option<Arc<str>>,
    /// Secrets that those name.
    pub secrets: Vec<ObjectName>,
    /// ConfigMaps that those name.
    #[serde(default)]
    pub config_maps: Vec<ObjectName>,
    /// Of annotations that change nothing although their prefix says that they should.
    pub unheeded: Vec<Remark>,
}

impl IngressFacts {
    /// What messages call an annotation of ingress-nginx.
    pub fn annotation_field(&self, key: &str) -> String {
        format!("metadata.annotations[{}/{key}]", self.annotations_prefix.as_deref().unwrap_or(NGINX_PREFIX))
    }
}

/// A Namespace. That it is there is all that matters of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceFacts {
    pub origin: Origin,
}

/// Something that the owner of an object should know if the object turns out to be ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    pub field: Box<str>,
    pub reason: Box<str>,
}

/// How an Ingress says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClassChoice {
    /// `spec.ingressClassName`.
    Named(String),
    /// The deprecated annotation `kubernetes.io/ingress.class`.
    Annotation(String),
    None,
}

/// All paths of one host; what was rejected is gone already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// `spec.rules[2]`.
    pub field: String,
    pub host: HostFacts,
    pub paths: Vec<PathFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HostFacts {
    /// No host in the rule: hosts that nobody names.
    Any,
    /// `*.example.com` without the `*.`, lower case.
    Wildcard(String),
    /// Lower case.
    Exact(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// `spec.rules[2].http.paths[0]`.
    pub field: String,
    /// As written; starts with a slash.
    pub path: String,
    pub kind: PathKind,
    pub backend: BackendRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRef {
    /// Where the reference stands, for messages.
    pub field: String,
    pub service: ObjectName,
    pub port: PortRef,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// `spec.tls[0]`.
    pub field: String,
    /// Lower case, with `*.`. Empty: every host of the rules that the certificate covers.
    pub hosts: Vec<String>,
    /// None: the default certificate.
    pub secret: Option<ObjectName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressClassFacts {
    pub origin: Origin,
    /// `spec.controller`.
    pub controller: String,
    /// `ingressclass.kubernetes.io/is-default-class`.
    pub default: bool,
    /// `sluicegate.io/vips`: where its Ingresses are served.
    pub vips: Vec<VipFacts>,
    /// `spec.parameters`: the pool that gives it addresses. With neither it is served on the addresses of the options.
    pub pool: Option<PoolRef>,
}

/// A `kubernetes.io/tls` Secret whose key was found to match its certificate.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    pub origin: Origin,
    pub certificate: Arc<Certificate>,
    /// `ca.crt`, as it stands there.
    pub authority: Option<Vec<u8>>,
    /// `ca.crl`, as it stands there.
    pub revoked: Option<Vec<u8>>,
}

/// What a ConfigMap says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMapFacts {
    pub origin: Origin,
    pub data: BTreeMap<String, String>,
}

/// What a Secret of any type but `kubernetes.io/tls` says: users, authorities, keys.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFacts {
    pub origin: Origin,
    pub data: BTreeMap<String, Vec<u8>>,
}

/// Never prints the values.
impl std::fmt::Debug for SecretFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFacts").field("origin", &self.origin).field("keys", &self.data.keys()).finish()
    }
}

/// By content: the rest of a certificate is derived from the chain.
impl PartialEq for CertificateFacts {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.certificate, &other.certificate);
        self.origin == other.origin && self.authority == other.authority && a.chain == b.chain && a.key == b.key
    }
}

/// `"9000": "ns/svc:port"` of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFacts {
    pub origin: Origin,
    pub protocol: Protocol,
    pub ports: Vec<StreamPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPort {
    /// On the ingress addresses. Never 0.
    pub port: u16,
    pub backend: BackendRef,
    /// Never of UDP.
    pub proxy_protocol: ProxyProtocol,
}
