//! Where facts come from. Here, and nowhere else in front of `status`, Kubernetes' words are known; what leaves is
//! `model::facts`. A bad object rejects only itself, and its last good state stays. Nothing is decided here: which of two
//! claims wins, and what is served, is the plan's.
#![forbid(unsafe_code)]

pub mod parse;

pub mod virtual_ip_pool;

pub mod document;

mod fault;

pub mod fold;

mod entries;

pub mod store;

pub mod manifests;

pub mod kube;

pub mod names;

use std::sync::Arc;

use crate::model::snapshot::ObjectName;

/// What a source has to know beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// ConfigMap `"9000": "ns/svc:port"` of TCP ports. Other ConfigMaps are passed over.
    pub tcp_services: Option<ObjectName>,
    /// The same for UDP.
    pub udp_services: Option<ObjectName>,
    /// ingress-nginx's settings (`--configmap`).
    pub config_map: Option<ObjectName>,
    /// Zones that endpoints are meant for are read (`--enable-topology-aware-routing`); they change whenever some controller thinks better of it.
    pub zones: bool,
    /// What stands before the `/` of ingress-nginx's annotations, where it is not its own (`--annotations-prefix`).
    pub annotations_prefix: Option<Arc<str>>,
}
