//! VirtualIPPool → [`VirtualIpPoolFacts`]. All or nothing: without a range that was mistyped, Services would lose the
//! addresses that they have of it; without a selector, others would get some. So the last good state stays.

use ipnet::IpNet;

use super::{Notes, address};
use crate::model::addresses::AddressRange;
use crate::model::facts::{NodeSelector, VirtualIpPoolFacts};
use crate::model::rejection::Rejection;
use crate::model::selector::{LabelOperator, LabelRequirement, LabelSelector, Labels};
use crate::sources::virtual_ip_pool::{self as written, VirtualIpPool};

/// linux/if.h: IFNAMSIZ with its final zero.
const LONGEST_INTERFACE: usize = 15;

const MOST_RANGES: usize = 1000;

pub fn parse(object: &VirtualIpPool, notes: &mut Notes) -> Result<VirtualIpPoolFacts, Rejection> {
    let spec = &object.spec;
    for field in spec.unknown.keys() {
        // Not a rejection: during an upgrade of the definition older agents must go on serving.
        notes.warn(format!("spec.{field}"), "is not known to this version of the agent, which does without it");
    }
    let ranges = ranges(&spec.addresses, notes)?;
    let services = spec.service_selector.clone().unwrap_or_default();
    let mut requirements = equals(&services.match_labels);
    for (i, expression) in services.match_expressions.iter().enumerate() {
        let requirement = requirement(expression)
            .map_err(|reason| notes.error(format!("spec.serviceSelector.matchExpressions[{i}]"), reason))?;
        requirements.push(requirement);
    }
    let nodes = spec.nodes.clone().unwrap_or_default();
    let interface = spec.interface.clone().filter(|name| !name.is_empty());
    if let Some(name) = interface.as_ref().filter(|name| name.len() > LONGEST_INTERFACE) {
        return Err(notes.error("spec.interface", format!("`{name}` is longer than an interface's name can be")));
    }
    Ok(VirtualIpPoolFacts {
        generation: object.metadata.generation.unwrap_or_default(),
        ranges,
        auto_assign: spec.auto_assign,
        avoid_buggy: spec.avoid_buggy_ips,
        namespaces: spec.namespaces.clone(),
        services: LabelSelector(requirements),
        nodes: NodeSelector { names: nodes.names, labels: LabelSelector(equals(&nodes.match_labels)) },
        interface,
        origin: notes.origin.clone(),
    })
}

fn ranges(written: &[String], notes: &Notes) -> Result<Vec<AddressRange>, Rejection> {
    // The API server holds the same bound; manifests have no other.
    if written.len() > MOST_RANGES {
        return Err(notes.error("spec.addresses", format!("has {} entries, above {MOST_RANGES}", written.len())));
    }
    let mut ranges: Vec<AddressRange> = Vec::new();
    for (i, text) in written.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let range = range(text.trim()).map_err(|reason| notes.error(field.as_str(), reason))?;
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            return Err(notes.error(field, format!("{range} overlaps {other} of the same pool")));
        }
        ranges.push(range);
    }
    if ranges.is_empty() {
        return Err(notes.error("spec.addresses", "is empty: it wants CIDRs, ranges or addresses"));
    }
    ranges.sort_unstable();
    Ok(ranges)
}

fn range(text: &str) -> Result<AddressRange, String> {
    if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| format!("`{text}` is not a CIDR such as 203.0.113.0/24"))?;
        let whole = net.trunc();
        if whole != net {
            // Whoever wrote 203.0.113.10/24 meant either one address or all; guessing would give away others.
            return Err(format!("`{text}` has bits behind its prefix: {whole}, or a range, is meant"));
        }
        let (first, last) = (net.network().to_canonical(), net.broadcast().to_canonical());
        return AddressRange::new(first, last).ok_or_else(|| format!("`{text}` is partly IPv4 and partly IPv6"));
    }
    let Some((first, last)) = text.split_once('-') else {
        let one = address(text).map_err(|_| format!("`{text}` is neither a CIDR, a range nor an address"))?;
        return AddressRange::new(one, one).ok_or_else(|| format!("`{text}` is not an address"));
    };
    let (first, last) = (address(first)?, address(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("`{text}` begins in one family and ends in the other"));
    }
    AddressRange::new(first, last).ok_or_else(|| format!("`{text}` ends before it begins"))
}

fn equals(labels: &Labels) -> Vec<LabelRequirement> {
    let requirement = |(key, value): (&String, &String)| LabelRequirement {
        key: key.clone(),
        operator: LabelOperator::In(vec![value.clone()]),
    };
    labels.iter().map(requirement).collect()
}

fn requirement(written: &written::LabelRequirement) -> Result<LabelRequirement, String> {
    let values = written.values.clone();
    let operator = match (written.operator.as_str(), values.is_empty()) {
        ("In", false) => LabelOperator::In(values),
        ("NotIn", false) => LabelOperator::NotIn(values),
        ("In" | "NotIn", true) => return Err(format!("`{}` needs values", written.operator)),
        ("Exists", true) => LabelOperator::Exists,
        ("DoesNotExist", true) => LabelOperator::DoesNotExist,
        ("Exists" | "DoesNotExist", false) => return Err(format!("`{}` takes no values", written.operator)),
        (other, _) => return Err(format!("`{other}` is none of In, NotIn, Exists, DoesNotExist")),
    };
    Ok(LabelRequirement { key: written.key.clone(), operator })
}
