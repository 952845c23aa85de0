//! From the text of one file to parsed objects: documents, lists, kinds. No file is opened here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parse::{self, Notes};
use super::virtual_ip_pool::VirtualIpPool;
use super::{SourceOptions, fault};
use crate::model::facts::{
    CertificateFacts, ConfigMapFacts, IngressClassFacts, IngressFacts, NamespaceFacts, NodeFacts, Origin, SecretFacts,
    ServiceFacts, SliceFacts, StreamFacts, VirtualIpPoolFacts,
};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{ObjectName, Protocol};

/// A part of a file between `---` lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    pub text: &'a str,
    /// Line of the file on which it starts, from 1.
    pub line: usize,
}

/// YAML 1.2.2 §9.1.2: a `---` or `...` in the first column ends a document wherever it stands, so that the text can be cut
/// before it is parsed and one broken document leaves the others readable.
pub fn split(file: &str) -> Vec<Document<'_>> {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (i, line) in file.split_inclusive('\n').enumerate() {
        let marker = (line.starts_with("---") || line.starts_with("..."))
            && line.as_bytes().get(3).is_none_or(u8::is_ascii_whitespace);
        if marker && at > start {
            documents.push(Document { text: &file[start..at], line: start_line });
            (start, start_line) = (at, i + 1);
        }
        at += line.len();
    }
    documents.push(Document { text: &file[start..], line: start_line });
    documents.retain(|d| d.text.lines().any(|line| !blank(line)));
    documents
}

/// Comments, directives and the markers themselves; `--- {a: 1}` is content.
fn blank(line: &str) -> bool {
    let content = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
    content.is_empty() || content.starts_with('#') || line.starts_with('%')
}

/// What an object is, and its name: the identity of an object across files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub kind: &'static str,
    pub name: ObjectName,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Service(Arc<ServiceFacts>),
    Slice(Arc<SliceFacts>),
    Ingress(Arc<IngressFacts>),
    Class(Arc<IngressClassFacts>),
    Certificate(Arc<CertificateFacts>),
    Streams(Arc<StreamFacts>),
    ConfigMap(Arc<ConfigMapFacts>),
    Secret(Arc<SecretFacts>),
    VirtualIpPool(Arc<VirtualIpPoolFacts>),
    Node(Arc<NodeFacts>),
    Namespace(Arc<NamespaceFacts>),
}

impl Object {
    pub fn place(&self) -> &str {
        let origin = match self {
            Self::Service(o) => &o.origin,
            Self::Slice(o) => &o.origin,
            Self::Ingress(o) => &o.origin,
            Self::Class(o) => &o.origin,
            Self::Certificate(o) => &o.origin,
            Self::Streams(o) => &o.origin,
            Self::ConfigMap(o) => &o.origin,
            Self::Secret(o) => &o.origin,
            Self::VirtualIpPool(o) => &o.origin,
            Self::Node(o) => &o.origin,
            Self::Namespace(o) => &o.origin,
        };
        &origin.place
    }
}

/// One object as it was read.
#[derive(Clone, Debug)]
pub struct Read {
    pub identity: Identity,
    /// `Err`: as a whole not usable; the last good one stays.
    pub object: Result<Object, Rejection>,
    /// About parts of it.
    pub notes: Vec<Rejection>,
}

/// All that one document holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub objects: Vec<Read>,
    /// About the document itself, or an object that could not be named.
    pub faults: Vec<Rejection>,
    /// Kinds that are passed over. A file reports each kind once.
    pub unknown: Vec<Rejection>,
    /// An object may be in it of which not even the name could be read.
    pub unreadable: bool,
}

/// `place` is `shop.yaml, document 2`.
pub fn parse(document: Document<'_>, json: bool, place: &str, options: &SourceOptions) -> Contents {
    let mut contents = Contents::default();
    let value: Result<Value, String> = if json {
        serde_json::from_str(document.text).map_err(|e| json_fault(&e, document.line))
    } else {
        yaml(document.text).map_err(|e| yaml_fault(&e, document.line))
    };
    match value {
        Ok(value) => object(value, place, options, &mut contents),
        Err(reason) => {
            contents.faults.push(file_fault(place, reason));
            contents.unreadable = true;
        }
    }
    // It stays for as long as the document does, mostly with one object in it.
    contents.objects.shrink_to_fit();
    contents
}

/// An object, or a list, that is there as a value.
pub fn read(value: Value, place: &str, options: &SourceOptions) -> Contents {
    let mut contents = Contents::default();
    object(value, place, options, &mut contents);
    contents
}

/// The objects of a document, of any kind; a list is its items.
pub fn values(document: Document<'_>, json: bool) -> Result<Vec<Value>, String> {
    let mut value: Value = if json {
        serde_json::from_str(document.text).map_err(|e| json_fault(&e, document.line))?
    } else {
        yaml(document.text).map_err(|e| yaml_fault(&e, document.line))?
    };
    let list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").filter(|_| list).map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Ok(vec![value]),
    }
}

/// Something wrong with a file or document, before any object is known.
pub fn file_fault(place: &str, reason: impl Into<String>) -> Rejection {
    let (file, _) = place.split_once(", ").unwrap_or((place, ""));
    let origin = Origin { name: ObjectName::new("", file), place: place.to_owned(), ..Origin::default() };
    origin.reject("File", "", reason)
}

fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    // The bound is the size of the file; a document may expand it by aliases only within the crate's own limits.
    let nodes = text.len().max(1000);
    let budget = serde_saphyr::budget! { max_events: nodes * 4, max_nodes: nodes * 2 };
    // YAML 1.2: `n` and `no` are a namespace and a country, not false.
    let options = serde_saphyr::options! { budget: budget, with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
}

fn yaml_fault(e: &serde_saphyr::Error, first_line: usize) -> String {
    let text = e.to_string();
    // The crate's own line counts from the document's start; the file's is of more use.
    let message = text.lines().next().and_then(|l| l.split(" at line ").next()).unwrap_or_default();
    match e.location() {
        Some(at) => {
            let line = first_line + usize::try_from(at.line()).unwrap_or(1).max(1) - 1;
            format!("broken YAML in line {line}, column {}: {message}", at.column())
        }
        None => format!("broken YAML: {message}"),
    }
}

fn json_fault(e: &serde_json::Error, first_line: usize) -> String {
    let text = e.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    format!("broken JSON in line {}, column {}: {message}", first_line + e.line().max(1) - 1, e.column())
}

/// One object, or a list of them.
fn object(mut value: Value, place: &str, options: &SourceOptions, to: &mut Contents) {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if value.is_null() {
        return;
    }
    if kind.is_empty() || version.is_empty() {
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        to.faults.push(file_fault(place, format!("is not a Kubernetes object: it has no `{missing}`")));
        to.unreadable = true;
        return;
    }
    // `v1 List`, and what `kubectl get services -o yaml` or an API list call gives.
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
    {
        let of = kind.trim_end_matches("List").to_owned();
        for (i, mut item) in items.into_iter().enumerate() {
            // Items of a typed list may leave out what the list says.
            if let Some(fields) = item.as_object_mut().filter(|_| !of.is_empty()) {
                fields.entry("kind").or_insert_with(|| of.clone().into());
                fields.entry("apiVersion").or_insert_with(|| version.clone().into());
            }
            object(item, &format!("{place}, item {}", i + 1), options, to);
        }
        return;
    }
    let place = Place { text: place };
    match (version.as_str(), kind.as_str()) {
        ("v1", "Service") => place.read(&value, "Service", true, to, |o: &Service, n| {
            Some(parse::service::parse(o, n).map(|f| Object::Service(f.into())))
        }),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            place.read(&value, "EndpointSlice", true, to, |o: &EndpointSlice, n| {
                Some(parse::slice::parse(o, n, options.zones).map(|f| Object::Slice(f.into())))
            });
        }
        ("networking.k8s.io/v1", "Ingress") => place.read(&value, "Ingress", true, to, |o: &Ingress, n| {
            Some(parse::ingress::parse(o, n, options.annotations_prefix.as_ref()).map(|f| Object::Ingress(f.into())))
        }),
        ("networking.k8s.io/v1", "IngressClass") => {
            place.read(&value, "IngressClass", false, to, |o: &IngressClass, n| {
                Some(parse::ingress_class::parse(o, n).map(|f| Object::Class(f.into())))
            });
        }
        ("v1", "Secret") => place.read(&value, "Secret", true, to, |o: &Secret, n| Some(secret(o, n))),
        ("v1", "ConfigMap") => {
            place.read(&value, "ConfigMap", true, to, |o: &ConfigMap, n| Some(Ok(config_map(o, n, options))));
        }
        ("sluicegate.io/v1alpha1", "VirtualIPPool") => {
            place.read(&value, "VirtualIPPool", false, to, |o: &VirtualIpPool, n| {
                Some(parse::virtual_ip_pool::parse(o, n).map(|f| Object::VirtualIpPool(f.into())))
            });
        }
        ("v1", "Node") => place.read(&value, "Node", false, to, |o: &Node, n| {
            Some(parse::node::parse(o, n).map(|f| Object::Node(f.into())))
        }),
        _ => unknown(&value, &version, &kind, place.text, to),
    }
}

/// A certificate, or a Secret that something may name.
pub(super) fn secret(object: &Secret, notes: &mut Notes) -> Result<Object, Rejection> {
    match parse::secret::parse(object, notes) {
        Some(certificate) => certificate.map(|f| Object::Certificate(f.into())),
        None => Ok(Object::Secret(parse::secret::plain(object, notes).into())),
    }
}

/// Ports, or a ConfigMap that something may name.
pub(super) fn config_map(object: &ConfigMap, notes: &mut Notes, options: &SourceOptions) -> Object {
    match streams(&notes.origin.name, options) {
        Some(protocol) => Object::Streams(parse::config_map::parse(object, protocol, notes).into()),
        None => Object::ConfigMap(parse::config_map::plain(object, notes).into()),
    }
}

/// Which of the two ConfigMaps it is. One named for both serves TCP.
pub(super) fn streams(name: &ObjectName, options: &SourceOptions) -> Option<Protocol> {
    if options.tcp_services.as_ref() == Some(name) {
        return Some(Protocol::Tcp);
    }
    (options.udp_services.as_ref() == Some(name)).then_some(Protocol::Udp)
}

fn unknown(value: &Value, version: &str, kind: &str, place: &str, to: &mut Contents) {
    const VERSIONS: [(&str, &str); 8] = [
        ("Service", "v1"),
        ("EndpointSlice", "discovery.k8s.io/v1"),
        ("Ingress", "networking.k8s.io/v1"),
        ("IngressClass", "networking.k8s.io/v1"),
        ("Secret", "v1"),
        ("ConfigMap", "v1"),
        ("VirtualIPPool", "sluicegate.io/v1alpha1"),
        ("Node", "v1"),
    ];
    let text = |field: &str| value.pointer(field).and_then(Value::as_str).unwrap_or_default();
    let name = ObjectName::new(text("/metadata/namespace"), text("/metadata/name"));
    let origin = Origin { name, place: place.to_owned(), ..Origin::default() };
    if let Some((_, right)) = VERSIONS.into_iter().find(|(known, _)| *known == kind) {
        to.faults.push(origin.reject(kind, "apiVersion", format!("`{version}` is not supported: use `{right}`")));
    } else {
        let reason = format!("`{version} {kind}` is not a kind that is read here; it is passed over");
        to.unknown.push(origin.warn(kind, "kind", reason));
    }
}

struct Place<'a> {
    text: &'a str,
}

impl Place<'_> {
    /// `parse` gives `None` for an object that is none of our business.
    fn read<T>(
        &self,
        value: &Value,
        kind: &'static str,
        namespaced: bool,
        to: &mut Contents,
        parse: impl FnOnce(&T, &mut Notes) -> Option<Result<Object, Rejection>>,
    ) where
        T: DeserializeOwned + kube::Resource,
    {
        let typed = T::deserialize(value);
        let metadata: ObjectMeta = match &typed {
            Ok(object) => object.meta().clone(),
            Err(_) => name_only(value),
        };
        let mut notes = match Notes::new(kind, &metadata, namespaced, self.text) {
            Ok(notes) => notes,
            Err(rejection) => {
                to.faults.push(rejection);
                to.unreadable = true;
                return;
            }
        };
        let identity = Identity { kind, name: notes.origin.name.clone() };
        let outcome = match typed {
            Ok(object) => parse(&object, &mut notes),
            Err(e) => Some(Err(notes.error(fault::field::<T>(value), e.to_string()))),
        };
        if let Some(object) = outcome {
            to.objects.push(Read { identity, object, notes: notes.list });
        }
    }
}

/// Enough of the metadata to name an object whose fields have the wrong types.
fn name_only(object: &Value) -> ObjectMeta {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str).map(str::to_owned);
    ObjectMeta { name: text("/metadata/name"), namespace: text("/metadata/namespace"), ..ObjectMeta::default() }
}
