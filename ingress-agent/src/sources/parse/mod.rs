//! From Kubernetes' types to facts, a file a kind. The same functions serve manifests and the API server.
//!
//! `Err` rejects the whole object; what is wrong with a part of it goes to [`Notes`] and only that part is left out.
//! No clock is read and no other object is looked at.

mod annotations;
mod care;
pub mod config_map;
pub mod ingress;
pub mod ingress_class;
mod limit_drop;
mod load_balancer;
pub mod node;
pub mod secret;
pub mod service;
pub mod slice;
pub mod virtual_ip_pool;

pub use annotations::is_heeded;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::facts::{Origin, PoolRef, Remark, UNDATED, VipFacts};
use crate::model::rejection::Rejection;
use crate::model::route::Balance;
use crate::model::snapshot::{ObjectName, Protocol};

/// Our annotations.
pub const VIPS: &str = "sluicegate.io/vips";
pub const FORWARDING: &str = "sluicegate.io/forwarding";
pub const BALANCE: &str = "sluicegate.io/balance";
pub const TABLE_SIZE: &str = "sluicegate.io/table-size";
pub const POOL: &str = "sluicegate.io/pool";
pub const ALLOW_SHARED_IP: &str = "sluicegate.io/allow-shared-ip";
/// Written by `status`; see there.
pub const ASSIGNED: &str = "sluicegate.io/assigned";
pub const WEIGHT: &str = "sluicegate.io/weight";
pub const LIMIT_SHARED: &str = "sluicegate.io/limit-shared";

/// Where an object comes from, and what was found wrong with parts of it.
#[derive(Debug)]
pub struct Notes {
    pub kind: &'static str,
    pub origin: Origin,
    pub list: Vec<Rejection>,
}

impl Notes {
    /// `namespace` is `None` for cluster-scoped kinds; the API server's default otherwise applies to manifests, too.
    pub fn new(kind: &'static str, metadata: &ObjectMeta, namespaced: bool, place: &str) -> Result<Self, Rejection> {
        let namespace = match (&metadata.namespace, namespaced) {
            (Some(namespace), true) if !namespace.is_empty() => namespace.clone(),
            (_, true) => "default".to_owned(),
            (_, false) => String::new(),
        };
        let name = ObjectName::new(namespace, metadata.name.clone().unwrap_or_default());
        let created = metadata.creation_timestamp.as_ref().map_or(UNDATED, |t| t.0.as_second());
        // A uid in a file was copied from some cluster, and means nothing here.
        let uid = if place.is_empty() { metadata.uid.clone().unwrap_or_default() } else { String::new() };
        let origin = Origin { name, place: place.to_owned(), created, uid };
        let notes = Self { kind, origin, list: Vec::new() };
        let name = &notes.origin.name;
        if name.name.is_empty() {
            return Err(notes.error("metadata.name", "is missing"));
        }
        for (field, text) in [("metadata.name", &name.name), ("metadata.namespace", &name.namespace)] {
            if text.len() > 253 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
                return Err(notes.error(field, "is not a Kubernetes name: letters, digits, `-` and `.`, at most 253"));
            }
        }
        Ok(notes)
    }

    /// For `return Err(..)`: the whole object.
    pub fn error(&self, field: impl Into<String>, reason: impl Into<String>) -> Rejection {
        self.origin.reject(self.kind, field, reason)
    }

    pub fn reject(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.list.push(self.origin.reject(self.kind, field, reason));
    }

    pub fn warn(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.list.push(self.origin.warn(self.kind, field, reason));
    }

    /// What is wrong at the door, whoever's the object is.
    fn remarks(&mut self, remarks: impl IntoIterator<Item = Remark>) {
        for remark in remarks {
            self.warn(remark.field, remark.reason);
        }
    }
}

/// The object's own name in its namespace, for references.
pub fn sibling(notes: &Notes, name: &str) -> ObjectName {
    ObjectName::new(notes.origin.name.namespace.clone(), name)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = metadata.annotations.as_ref()?;
    annotations.get(key).map(|v| v.trim())
}

fn annotation_field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// 1 to 65535.
fn port_number(port: i32) -> Result<u16, String> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("port {port} is not between 1 and 65535")),
    }
}

fn protocol(name: Option<&str>) -> Result<Protocol, String> {
    match name {
        None | Some("TCP" | "") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Err("SCTP is not balanced: TCP and UDP are".to_owned()),
        Some(other) => Err(format!("protocol `{other}` is unknown: TCP and UDP are balanced")),
    }
}

/// An address in the form that packets carry: an IPv4 address inside IPv6 is IPv4.
fn address(text: &str) -> Result<IpAddr, String> {
    let address: Result<IpAddr, _> = text.trim().parse();
    address.map(|a| a.to_canonical()).map_err(|_| format!("`{}` is not an IP address", text.trim()))
}

/// `sluicegate.io/vips: "a, b"`. `None` without the annotation; bad addresses are noted and left out.
fn vips(metadata: &ObjectMeta, notes: &mut Notes) -> Option<Vec<VipFacts>> {
    let text = annotation(metadata, VIPS)?;
    let field = annotation_field(VIPS);
    let mut vips: Vec<VipFacts> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match address(part) {
            Ok(address) if vips.iter().any(|v| v.address == address) => {}
            Ok(address) => vips.push(VipFacts { address, field: field.clone() }),
            Err(reason) => notes.reject(field.clone(), reason),
        }
    }
    if vips.is_empty() && text.trim_matches([',', ' ']).is_empty() {
        notes.warn(field, "names no address");
    }
    Some(vips)
}

/// `sluicegate.io/pool: NAME`.
fn pool(metadata: &ObjectMeta) -> Option<PoolRef> {
    let name = annotation(metadata, POOL).filter(|name| !name.is_empty())?;
    Some(PoolRef { name: ObjectName::new("", name), field: annotation_field(POOL) })
}

/// `sluicegate.io/balance`.
fn balance(metadata: &ObjectMeta, notes: &mut Notes) -> Option<Balance> {
    match annotation(metadata, BALANCE)? {
        "round-robin" => Some(Balance::RoundRobin),
        "least-request" => Some(Balance::LeastRequest),
        other => {
            notes.reject(
                annotation_field(BALANCE),
                format!("`{other}` is neither `round-robin` nor `least-request`; round-robin is used"),
            );
            None
        }
    }
}

/// `sluicegate.io/limit-shared`.
fn limit_shared(metadata: &ObjectMeta, notes: &mut Notes) -> bool {
    match annotation(metadata, LIMIT_SHARED) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            let reason = format!("`{other}` is neither `true` nor `false`; each edge limits by itself");
            notes.reject(annotation_field(LIMIT_SHARED), reason);
            false
        }
    }
}
