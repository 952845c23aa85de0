//! One object's change, folded into the facts. The cost does not grow with the number of objects.

use std::sync::Arc;

use super::document::Object;
use crate::model::facts::{Facts, ServiceSlices, SliceFacts};
use crate::model::objects::{Named, Objects};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{ObjectName, Protocol};

/// The object `name` was `before` and is `after`. Both are of one kind; `before` is what was folded in last. Returns whether
/// anything changed: the same `Arc` again is no change.
pub fn fold(facts: &mut Facts, name: &ObjectName, before: Option<&Object>, after: Option<&Object>) -> bool {
    match (before, after) {
        (_, Some(Object::Service(o))) => put(&mut facts.services, o),
        (_, Some(Object::Ingress(o))) => put(&mut facts.ingresses, o),
        (_, Some(Object::Class(o))) => put(&mut facts.classes, o),
        (_, Some(Object::Certificate(o))) => {
            facts.secrets.remove(name);
            put(&mut facts.certificates, o)
        }
        (Some(Object::Slice(old)), Some(Object::Slice(new))) if Arc::ptr_eq(old, new) => false,
        (before, Some(Object::Slice(new))) => {
            // A slice keeps its Service in practice; where its label was edited, the old Service loses it.
            if let Some(Object::Slice(old)) = before
                && old.service != new.service
            {
                edit_slices(facts, &old.service, |slices| slices.retain(|s| s.origin.name != *name));
            }
            edit_slices(facts, &new.service, |slices| put_slice(slices, new));
            true
        }
        (_, Some(Object::Streams(o))) => {
            let streams = streams(facts, o.protocol);
            let changed = streams.as_ref().is_none_or(|old| !Arc::ptr_eq(old, o));
            *streams = Some(Arc::clone(o));
            changed
        }
        (_, Some(Object::ConfigMap(o))) => put(&mut facts.config_maps, o),
        (_, Some(Object::Secret(o))) => {
            // A Secret that changed its type.
            facts.certificates.remove(name);
            put(&mut facts.secrets, o)
        }
        (_, Some(Object::VirtualIpPool(o))) => put(&mut facts.virtual_ip_pools, o),
        (_, Some(Object::Node(o))) => put(&mut facts.nodes, o),
        (_, Some(Object::Namespace(o))) => put(&mut facts.namespaces, o),
        (Some(Object::Service(_)), None) => facts.services.remove(name).is_some(),
        (Some(Object::Ingress(_)), None) => facts.ingresses.remove(name).is_some(),
        (Some(Object::Class(_)), None) => facts.classes.remove(name).is_some(),
        (Some(Object::Certificate(_)), None) => facts.certificates.remove(name).is_some(),
        (Some(Object::ConfigMap(_)), None) => facts.config_maps.remove(name).is_some(),
        (Some(Object::Secret(_)), None) => facts.secrets.remove(name).is_some(),
        (Some(Object::VirtualIpPool(_)), None) => facts.virtual_ip_pools.remove(name).is_some(),
        (Some(Object::Node(_)), None) => facts.nodes.remove(name).is_some(),
        (Some(Object::Namespace(_)), None) => facts.namespaces.remove(name).is_some(),
        (Some(Object::Slice(old)), None) => {
            edit_slices(facts, &old.service, |slices| slices.retain(|s| s.origin.name != *name));
            true
        }
        (Some(Object::Streams(old)), None) => streams(facts, old.protocol).take().is_some(),
        (None, None) => false,
    }
}

/// What could not be read or parsed is this now, in any order. Returns whether anything changed.
pub fn tell(facts: &mut Facts, mut rejections: Vec<Rejection>) -> bool {
    rejections.sort();
    rejections.dedup();
    let changed = *facts.rejections != rejections;
    if changed {
        facts.rejections = Arc::new(rejections);
    }
    changed
}

fn put<T: Named>(objects: &mut Objects<T>, object: &Arc<T>) -> bool {
    if objects.find(object.name()).is_some_and(|old| Arc::ptr_eq(old, object)) {
        return false;
    }
    objects.insert(Arc::clone(object));
    true
}

fn put_slice(slices: &mut Vec<Arc<SliceFacts>>, slice: &Arc<SliceFacts>) {
    match slices.binary_search_by(|s| s.origin.name.cmp(&slice.origin.name)) {
        Ok(i) => slices[i] = Arc::clone(slice),
        Err(i) => slices.insert(i, Arc::clone(slice)),
    }
}

fn edit_slices(facts: &mut Facts, service: &ObjectName, edit: impl FnOnce(&mut Vec<Arc<SliceFacts>>)) {
    let mut slices = facts.slices.find(service).map(|s| s.slices.clone()).unwrap_or_default();
    edit(&mut slices);
    if slices.is_empty() {
        facts.slices.remove(service);
    } else {
        facts.slices.insert(Arc::new(ServiceSlices { service: service.clone(), slices }));
    }
}

fn streams(facts: &mut Facts, protocol: Protocol) -> &mut Option<Arc<crate::model::facts::StreamFacts>> {
    match protocol {
        Protocol::Tcp => &mut facts.tcp_streams,
        Protocol::Udp => &mut facts.udp_streams,
    }
}
