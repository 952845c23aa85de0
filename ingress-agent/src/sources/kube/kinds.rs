//! The kinds that are watched: a line or two each. From an object of the API server to facts; the object itself, its
//! `managedFields` and whatever else nobody asks for are dropped at once.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Resource;

use super::guard::Guarded;
use crate::model::facts::NamespaceFacts;
use crate::model::rejection::Rejection;
use crate::model::snapshot::ObjectName;
use crate::sources::SourceOptions;
use crate::sources::document::{Identity, Object, Read, config_map, secret};
use crate::sources::parse::{self, Notes};
use crate::sources::virtual_ip_pool::VirtualIpPool;

/// How a kind is read. `parse` gives `None` for an object that is none of our business.
pub(super) struct Kind<K> {
    pub(super) name: &'static str,
    pub(super) namespaced: bool,
    /// A custom resource that may not be installed: then there are no such objects, and nothing waits for them.
    pub(super) optional: bool,
    pub(super) parse: Parse<K>,
}

type Parse<K> = fn(&K, &mut Notes, &SourceOptions) -> Option<Result<Object, Rejection>>;

const fn global<K>(name: &'static str, parse: Parse<K>) -> Kind<K> {
    Kind { name, namespaced: false, optional: false, parse }
}

const fn namespaced<K>(name: &'static str, parse: Parse<K>) -> Kind<K> {
    Kind { name, namespaced: true, optional: false, parse }
}

pub(super) static SERVICE: Kind<Service> =
    namespaced("Service", |o, n, _| Some(parse::service::parse(o, n).map(|f| Object::Service(f.into()))));

pub(super) static SLICE: Kind<EndpointSlice> = namespaced("EndpointSlice", |o, n, options| {
    Some(parse::slice::parse(o, n, options.zones).map(|f| Object::Slice(f.into())))
});

pub(super) static INGRESS: Kind<Ingress> = namespaced("Ingress", |o, n, options| {
    Some(parse::ingress::parse(o, n, options.annotations_prefix.as_ref()).map(|f| Object::Ingress(f.into())))
});

pub(super) static CLASS: Kind<IngressClass> =
    global("IngressClass", |o, n, _| Some(parse::ingress_class::parse(o, n).map(|f| Object::Class(f.into()))));

/// For its labels and addresses. Its heartbeats are Leases, which nobody asks for; the status that it writes every few
/// minutes makes the same facts.
pub(super) static NODE: Kind<Node> =
    global("Node", |o, n, _| Some(parse::node::parse(o, n).map(|f| Object::Node(f.into()))));

pub(super) static POOL: Kind<VirtualIpPool> = Kind {
    optional: true,
    ..global("VirtualIPPool", |o, n, _| {
        Some(parse::virtual_ip_pool::parse(o, n).map(|f| Object::VirtualIpPool(f.into())))
    })
};

/// Asked for by their labels, for nothing but their names.
pub(super) static NAMESPACE: Kind<Namespace> =
    global("Namespace", |_, n, _| Some(Ok(Object::Namespace(NamespaceFacts { origin: n.origin.clone() }.into()))));

pub(super) static SECRET: Kind<Secret> = namespaced("Secret", |o, n, _| Some(secret(o, n)));

pub(super) static CONFIG_MAP: Kind<ConfigMap> =
    namespaced("ConfigMap", |o, n, options| Some(Ok(config_map(o, n, options))));

/// What an object turned out to be.
pub(super) enum Seen {
    Read(Box<Read>),
    /// None of our business, which it may have been before.
    Ignored(ObjectName),
    /// Not even its name can be read.
    Nameless(Rejection),
}

pub(super) fn read<K: Resource>(kind: &Kind<K>, object: Guarded<K>, options: &SourceOptions) -> Seen {
    let mut notes = match Notes::new(kind.name, object.meta(), kind.namespaced, "") {
        Ok(notes) => notes,
        Err(rejection) => return Seen::Nameless(rejection),
    };
    let name = notes.origin.name.clone();
    let outcome = match object.0 {
        Ok(object) => (kind.parse)(&object, &mut notes, options),
        Err(broken) => Some(Err(notes.error(broken.field, broken.reason))),
    };
    match outcome {
        Some(object) => {
            Seen::Read(Box::new(Read { identity: Identity { kind: kind.name, name }, object, notes: notes.list }))
        }
        None => Seen::Ignored(name),
    }
}
