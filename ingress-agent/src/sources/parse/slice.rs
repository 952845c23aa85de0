//! EndpointSlice → [`SliceFacts`].

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Notes, WEIGHT, address, annotation, annotation_field, annotations, port_number, protocol, sibling};
use crate::model::facts::{DEFAULT_WEIGHT, EndpointFacts, MOST_WEIGHT, SliceFacts, SlicePort};
use crate::model::rejection::Rejection;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// `zones`: those that endpoints are meant for are read.
pub fn parse(object: &EndpointSlice, notes: &mut Notes, zones: bool) -> Result<SliceFacts, Rejection> {
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|l| l.get(SERVICE_LABEL)).filter(|s| !s.is_empty()) else {
        let field = format!("metadata.labels[{SERVICE_LABEL}]");
        return Err(notes.error(field, "is missing: it says which Service the endpoints belong to"));
    };
    let v6 = match object.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        "FQDN" => return Err(notes.error("addressType", "FQDN has no addresses to balance over: use IPv4 or IPv6")),
        other => return Err(notes.error("addressType", format!("`{other}` is neither `IPv4` nor `IPv6`"))),
    };
    let (mut nodes, mut hints): (Vec<Arc<str>>, Vec<Arc<Vec<String>>>) = Default::default();
    let mut endpoints = Vec::new();
    for (i, endpoint) in object.endpoints.iter().flatten().enumerate() {
        let field = || format!("endpoints[{i}].addresses");
        // Kubernetes: the addresses of one endpoint are interchangeable, and consumers use the first.
        let Some(first) = endpoint.addresses.first() else {
            notes.reject(field(), "is empty");
            continue;
        };
        match endpoint_address(first, v6) {
            Ok(address) => {
                let zones = if zones { for_zones(endpoint, &mut hints) } else { None };
                endpoints.push(EndpointFacts { zones, ..facts(endpoint, address, &mut nodes) });
            }
            Err(reason) => notes.reject(format!("{}[0]", field()), reason),
        }
        if endpoint.addresses.len() > 1 {
            notes.warn(field(), "has several addresses of one endpoint: the first is used");
        }
    }
    notes.remarks(annotations::unknown(&object.metadata, "an EndpointSlice", &[WEIGHT]));
    Ok(SliceFacts {
        service: sibling(notes, service),
        ports: ports(object.ports.as_deref().unwrap_or_default(), notes),
        endpoints,
        weight: weight(object, notes),
        origin: notes.origin.clone(),
    })
}

fn endpoint_address(text: &str, v6: bool) -> Result<IpAddr, String> {
    let address = address(text)?;
    if address.is_ipv6() != v6 {
        return Err(format!("{address} is not of the slice's addressType"));
    }
    if unfit(address) {
        return Err(format!("{address} is no address of an endpoint (unspecified, loopback, link-local or multicast)"));
    }
    Ok(address)
}

/// The API server refuses these, too: no packet could be sent there from another machine. For a name that leads there it is more: what
/// listens on the node's loopback, and a cloud's metadata service, are nobody's to reach from outside.
pub(in crate::sources) fn unfit(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local
}

/// Kubernetes has no weight of an endpoint; who writes slices by hand, or runs two slice controllers, gives one to the slice.
fn weight(object: &EndpointSlice, notes: &mut Notes) -> u32 {
    let Some(text) = annotation(&object.metadata, WEIGHT) else { return DEFAULT_WEIGHT };
    match text.parse() {
        Ok(weight) if weight <= MOST_WEIGHT => weight,
        _ => {
            let reason = format!("`{text}` is not a number from 0 to {MOST_WEIGHT}; {DEFAULT_WEIGHT} is used");
            notes.reject(annotation_field(WEIGHT), reason);
            DEFAULT_WEIGHT
        }
    }
}

/// `nodes` lets the endpoints of one node share its name.
fn facts(endpoint: &Endpoint, address: IpAddr, nodes: &mut Vec<Arc<str>>) -> EndpointFacts {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // discovery/v1: nil means ready; `serving` nil defers to `ready`; `ready` is never true for terminating endpoints.
    let said_ready = conditions.ready.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    let node = endpoint.node_name.as_deref().filter(|n| !n.is_empty()).map(|name| {
        nodes.iter().find(|n| &***n == name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            nodes.push(Arc::clone(&name));
            name
        })
    });
    EndpointFacts {
        address,
        ready: said_ready && !terminating,
        serving: conditions.serving.unwrap_or(said_ready),
        terminating,
        node,
        zones: None,
    }
}

/// `known` lets endpoints that are meant for the same zones share their names.
fn for_zones(endpoint: &Endpoint, known: &mut Vec<Arc<Vec<String>>>) -> Option<Arc<Vec<String>>> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_ref()?;
    let names: Vec<String> = zones.iter().map(|zone| zone.name.clone()).collect();
    if names.is_empty() {
        return None;
    }
    Some(known.iter().find(|k| ***k == names).cloned().unwrap_or_else(|| {
        let names = Arc::new(names);
        known.push(Arc::clone(&names));
        names
    }))
}

fn ports(ports: &[EndpointPort], notes: &mut Notes) -> Vec<SlicePort> {
    let mut taken = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let Some(number) = port.port else {
            notes.reject(format!("ports[{i}].port"), "is missing: a slice for all ports cannot be balanced");
            continue;
        };
        match (port_number(number), protocol(port.protocol.as_deref())) {
            (Ok(port_number), Ok(protocol)) => {
                let name = port.name.clone().unwrap_or_default();
                taken.push(SlicePort { name, port: port_number, protocol });
            }
            (Err(reason), _) => notes.reject(format!("ports[{i}].port"), reason),
            (_, Err(reason)) => notes.reject(format!("ports[{i}].protocol"), reason),
        }
    }
    taken
}
