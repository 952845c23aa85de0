//! Service → [`ServiceFacts`].

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::load_balancer::{bound_elsewhere, exposure, external_ips};
use super::{
    ALLOW_SHARED_IP, ASSIGNED, BALANCE, FORWARDING, Notes, POOL, TABLE_SIZE, VIPS, annotation, annotation_field,
    annotations, balance, port_number, protocol,
};
use crate::model::facts::{PortFacts, ServiceFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{AppProtocol, Forwarding};

/// The form of `spec.loadBalancerSourceRanges` from before there was the field; the field comes first.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub fn parse(object: &Service, notes: &mut Notes) -> Result<ServiceFacts, Rejection> {
    let Some(spec) = &object.spec else {
        return Err(notes.error("spec", "is missing"));
    };
    unheeded(object, notes);
    Ok(ServiceFacts {
        labels: object.metadata.labels.clone().unwrap_or_default(),
        exposure: exposure(object, spec, notes)?,
        external_ips: external_ips(spec, notes),
        // `None` is the word for a headless one.
        cluster_ip: spec.cluster_ip.as_deref().and_then(|text| text.parse().ok()),
        bound_elsewhere: bound_elsewhere(object, notes),
        selector: spec.selector.clone().unwrap_or_default(),
        ports: ports(spec.ports.as_deref().unwrap_or_default(), notes),
        client_ip_affinity: affinity(spec, notes),
        source_ranges: source_ranges(object, spec, notes),
        external_traffic_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        forwarding: forwarding(object, notes),
        table_size: table_size(object, notes),
        balance: balance(&object.metadata, notes),
        origin: notes.origin.clone(),
    })
}

/// Annotations that do nothing here, by their name or by the type of the Service.
fn unheeded(object: &Service, notes: &mut Notes) {
    let known = [VIPS, POOL, ALLOW_SHARED_IP, FORWARDING, TABLE_SIZE, BALANCE, ASSIGNED];
    notes.remarks(annotations::unknown(&object.metadata, "a Service", &known));
    if object.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
        return;
    }
    for name in [VIPS, POOL, ALLOW_SHARED_IP] {
        if annotation(&object.metadata, name).is_some() {
            notes.warn(annotation_field(name), "changes nothing: the Service is not of type LoadBalancer");
        }
    }
}

fn ports(ports: &[ServicePort], notes: &mut Notes) -> Vec<PortFacts> {
    let mut taken: Vec<PortFacts> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let number = match port_number(port.port) {
            Ok(number) => number,
            Err(reason) => {
                notes.reject(format!("{field}.port"), reason);
                continue;
            }
        };
        let protocol = match protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(reason) => {
                notes.reject(format!("{field}.protocol"), reason);
                continue;
            }
        };
        let name = port.name.clone().unwrap_or_default();
        if let Some(other) = taken.iter().find(|p| p.port == number && p.protocol == protocol) {
            notes.reject(format!("{field}.port"), format!("{number} is spec.ports[{}] already", other.index));
            continue;
        }
        // EndpointSlices name ports and nothing else; two of one name could not be told apart.
        if let Some(other) = taken.iter().find(|p| p.name == name && p.protocol == protocol) {
            let reason = match name.as_str() {
                "" => "is required where a Service has several ports".to_owned(),
                name => format!("`{name}` is spec.ports[{}] already", other.index),
            };
            notes.reject(format!("{field}.name"), reason);
            continue;
        }
        let app_protocol = app_protocol(port.app_protocol.as_deref());
        taken.push(PortFacts { name, port: number, protocol, app_protocol, index });
    }
    taken
}

/// KEP-3726 for the `kubernetes.io/` names; unknown ones are not ours to judge (`mysql`).
fn app_protocol(name: Option<&str>) -> AppProtocol {
    match name.unwrap_or_default().to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "h2c" | "grpc" => AppProtocol::H2c,
        "https" | "kubernetes.io/wss" | "wss" => AppProtocol::Https,
        _ => AppProtocol::Http1,
    }
}

/// Seconds; the default, and the bounds, are the API server's.
fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> Option<u32> {
    const DEFAULT: u32 = 3 * 60 * 60;
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            notes.reject("spec.sessionAffinity", format!("`{other}` is neither `ClientIP` nor `None`; `None` is used"));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let Some(written) = config.and_then(|c| c.timeout_seconds) else { return Some(DEFAULT) };
    let seconds = u32::try_from(written).ok().filter(|seconds| (1..=86_400).contains(seconds));
    if seconds.is_none() {
        let reason = format!("{written} is not from 1 to 86400; {DEFAULT} is used");
        notes.reject("spec.sessionAffinityConfig.clientIP.timeoutSeconds", reason);
    }
    seconds.or(Some(DEFAULT))
}

/// A range that cannot be read admits nobody, and does not open the Service to everybody either.
fn source_ranges(object: &Service, spec: &ServiceSpec, notes: &mut Notes) -> Option<Vec<IpNet>> {
    let mut written: Vec<(String, &str)> = Vec::new();
    for (i, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        written.push((format!("spec.loadBalancerSourceRanges[{i}]"), range.trim()));
    }
    if written.is_empty() {
        let text = annotation(&object.metadata, SOURCE_RANGES).unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        written.extend(parts.map(|part| (annotation_field(SOURCE_RANGES), part)));
    }
    if written.is_empty() {
        return None;
    }
    let mut ranges = Vec::new();
    for (field, text) in written {
        match text.parse::<IpNet>() {
            Ok(range) => ranges.push(canonical(range.trunc())),
            Err(_) => notes.reject(field, format!("`{text}` is not a range such as 198.51.100.0/24; it admits nobody")),
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges)
}

/// An IPv4 range inside IPv6 is IPv4, as packets are.
fn canonical(range: IpNet) -> IpNet {
    let mapped = match range {
        IpNet::V6(range) => range.addr().to_ipv4_mapped().zip(range.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let v4 = mapped.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
    v4.map_or(range, IpNet::V4)
}

fn forwarding(object: &Service, notes: &mut Notes) -> Option<Forwarding> {
    match annotation(&object.metadata, FORWARDING)? {
        "nat" => Some(Forwarding::Nat),
        "local" => Some(Forwarding::Local),
        other => {
            let reason = format!("`{other}` is neither `nat` nor `local`; the endpoint's node decides");
            notes.reject(annotation_field(FORWARDING), reason);
            None
        }
    }
}

fn table_size(object: &Service, notes: &mut Notes) -> Option<u32> {
    let text = annotation(&object.metadata, TABLE_SIZE)?;
    let size = text.parse().ok();
    if size.is_none() {
        notes.reject(annotation_field(TABLE_SIZE), format!("`{text}` is not a number; the default is used"));
    }
    size
}
