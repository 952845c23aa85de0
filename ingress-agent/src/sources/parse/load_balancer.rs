//! What a Service says about being reached from outside → [`Exposure`]. Which addresses it gets is the plan's business.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    ALLOW_SHARED_IP, ASSIGNED, Notes, address, annotation, annotation_field, ingress, pool, port_number, protocol, vips,
};
use crate::model::facts::{Exposure, ExternalNameFacts, Families, Family, HostFacts, LoadBalancerFacts, VipFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::Protocol;

/// The `loadBalancerClass` that is ours.
const OUR_CLASS: &str = "sluicegate.io/xdp";

pub(super) fn exposure(object: &Service, spec: &ServiceSpec, notes: &mut Notes) -> Result<Exposure, Rejection> {
    match spec.type_.as_deref() {
        None | Some("ClusterIP" | "NodePort" | "") => return Ok(Exposure::Internal),
        Some("ExternalName") => return Ok(Exposure::ExternalName(external_name(spec, notes))),
        Some("LoadBalancer") => {}
        Some(other) => return Err(notes.error("spec.type", format!("`{other}` is not a type of Service"))),
    }
    let class = spec.load_balancer_class.as_deref().filter(|class| !class.is_empty());
    if class.is_some_and(|class| class != OUR_CLASS) {
        return Ok(Exposure::OtherLoadBalancer);
    }
    let metadata = &object.metadata;
    Ok(Exposure::LoadBalancer(Box::new(LoadBalancerFacts {
        classless: class.is_none(),
        wanted: wanted(object, spec, notes),
        recorded: recorded(object, notes),
        assigned: assigned(object, notes),
        families: families(spec, notes)?,
        pool: pool(metadata),
        share_key: annotation(metadata, ALLOW_SHARED_IP).filter(|key| !key.is_empty()).map(str::to_owned),
    })))
}

fn external_name(spec: &ServiceSpec, notes: &mut Notes) -> Option<Box<ExternalNameFacts>> {
    let written = spec.external_name.as_deref().unwrap_or_default();
    let host = match ingress::host(written.strip_suffix('.').unwrap_or(written)) {
        Ok(HostFacts::Exact(host)) => host,
        Ok(_) => {
            notes.reject("spec.externalName", format!("`{written}` is a pattern, not a name"));
            return None;
        }
        Err(reason) => {
            notes.reject("spec.externalName", reason);
            return None;
        }
    };
    let mut targets = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        // What is wrong with `port` and `protocol` is told where all ports are read.
        let (Ok(own), Ok(Protocol::Tcp)) = (port_number(port.port), protocol(port.protocol.as_deref())) else {
            continue;
        };
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => {}
            Some(IntOrString::Int(target)) => match port_number(*target) {
                Ok(target) => targets.push((own, target)),
                Err(reason) => notes.reject(format!("spec.ports[{i}].targetPort"), reason),
            },
            Some(IntOrString::String(name)) => {
                let reason = format!("`{name}` is a name, which only pods give a port: {own} is used");
                notes.reject(format!("spec.ports[{i}].targetPort"), reason);
            }
        }
    }
    Some(Box::new(ExternalNameFacts { host, targets }))
}

/// The annotation can name one of each family, so it comes before the field.
fn wanted(object: &Service, spec: &ServiceSpec, notes: &mut Notes) -> Option<Vec<VipFacts>> {
    if let Some(vips) = vips(&object.metadata, notes) {
        return Some(vips);
    }
    let text = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty())?;
    Some(addresses([("spec.loadBalancerIP".to_owned(), text)].into_iter(), notes))
}

fn recorded(object: &Service, notes: &mut Notes) -> Vec<VipFacts> {
    let status = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let written = status.into_iter().flatten().enumerate();
    let written = written.filter_map(|(i, ingress)| {
        Some((format!("status.loadBalancer.ingress[{i}].ip"), ingress.ip.as_deref().filter(|ip| !ip.is_empty())?))
    });
    addresses(written, notes)
}

/// Addresses in its status for which kube-proxy has rules: all of those whose mode is not Proxy (KEP-1860). Whatever its class, since
/// kube-proxy does not look at that.
pub(super) fn bound_elsewhere(object: &Service, notes: &mut Notes) -> Vec<VipFacts> {
    if object.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return Vec::new();
    }
    let status = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let bound = status.into_iter().flatten().enumerate().filter(|(_, i)| i.ip_mode.as_deref() != Some("Proxy"));
    let written = bound.filter_map(|(i, ingress)| {
        Some((format!("status.loadBalancer.ingress[{i}].ip"), ingress.ip.as_deref().filter(|ip| !ip.is_empty())?))
    });
    // What cannot be read is told of by `recorded`, if the Service is ours, and else is not ours to judge.
    addresses(written, &mut Notes { kind: notes.kind, origin: notes.origin.clone(), list: Vec::new() })
}

fn assigned(object: &Service, notes: &mut Notes) -> Vec<VipFacts> {
    let written = annotation(&object.metadata, ASSIGNED).unwrap_or_default().split(',').filter(|part| !part.is_empty());
    addresses(written.map(|text| (annotation_field(ASSIGNED), text)), notes)
}

/// On which other addresses it is to be reached; off unless the options say so.
pub(super) fn external_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<VipFacts> {
    let written = spec.external_ips.iter().flatten().enumerate();
    addresses(written.map(|(i, text)| (format!("spec.externalIPs[{i}]"), text.as_str())), notes)
}

fn addresses<'a>(written: impl Iterator<Item = (String, &'a str)>, notes: &mut Notes) -> Vec<VipFacts> {
    let mut vips: Vec<VipFacts> = Vec::new();
    for (field, text) in written {
        match address(text) {
            Ok(address) if vips.iter().any(|v| v.address == address) => {}
            Ok(address) => vips.push(VipFacts { address, field }),
            Err(reason) => notes.reject(field, reason),
        }
    }
    vips
}

/// The API server fills both fields in; manifests may leave them out.
fn families(spec: &ServiceSpec, notes: &Notes) -> Result<Families, Rejection> {
    let mut named = Vec::new();
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        named.push(match family.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => {
                let reason = format!("`{other}` is neither `IPv4` nor `IPv6`");
                return Err(notes.error(format!("spec.ipFamilies[{i}]"), reason));
            }
        });
    }
    named.dedup();
    match (spec.ip_family_policy.as_deref(), named.as_slice()) {
        (None | Some("SingleStack" | ""), []) => Ok(Families::Either),
        (None | Some("SingleStack" | ""), [first, ..]) => Ok(Families::Only(*first)),
        // Where the cluster has one family only, the API server names that one.
        (Some("PreferDualStack"), [one]) => Ok(Families::Only(*one)),
        (Some("PreferDualStack"), _) => Ok(Families::Prefer),
        (Some("RequireDualStack"), _) => Ok(Families::Both),
        (Some(other), _) => {
            let reason = format!("`{other}` is none of SingleStack, PreferDualStack, RequireDualStack");
            Err(notes.error("spec.ipFamilyPolicy", reason))
        }
    }
}
