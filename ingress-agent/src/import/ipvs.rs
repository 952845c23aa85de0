//! `virtual_server` and `virtual_server_group`: what IPVS forwards becomes Services of type LoadBalancer with hand-written
//! EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::syntax::Statement;
use super::{Imported, NAMESPACE};

/// The label that ties a slice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const VIPS: &str = "sluicegate.io/vips";
const WEIGHT: &str = "sluicegate.io/weight";
const CLASS: &str = "sluicegate.io/xdp";

/// A `virtual_server`.
#[derive(Default)]
struct Server {
    udp: bool,
    /// Seconds.
    persistence: Option<i32>,
    /// By port, weight and whether new connections may come: one slice each.
    endpoints: BTreeMap<(u16, u32, bool), Vec<IpAddr>>,
}

/// `held`: the addresses of all instances.
pub(super) fn convert(statements: &[&Statement], held: &[IpAddr], out: &mut Imported) {
    let groups: BTreeMap<&str, Vec<(IpAddr, u16)>> = statements
        .iter()
        .filter(|s| s.keyword() == "virtual_server_group")
        .filter_map(|s| Some((s.argument(0)?, group(s, out))))
        .collect();
    let mut served = BTreeSet::new();
    for statement in statements {
        match statement.keyword() {
            "virtual_server_group" => {}
            "virtual_server" => {
                let Some(addresses) = addresses(statement, &groups, out) else { continue };
                served.extend(addresses.iter().map(|(address, _)| *address));
                let Some(server) = server(statement, out) else { continue };
                let foreign = addresses.iter().find(|(a, _)| !held.is_empty() && !held.contains(a));
                if let Some((address, _)) = foreign {
                    out.note(statement, format!("{address} is in no vrrp_instance: a VRID is chosen for it"));
                }
                write(&addresses, &server, out);
            }
            "" => out.left_out(statement, "a block without a name"),
            _ => out.left_out(statement, "there is no counterpart"),
        }
    }
    for address in held.iter().filter(|a| !served.contains(*a)) {
        let why = format!(
            "{address} has no virtual_server. An address is held for the Services and Ingresses that use it: give it to one \
             (annotation {VIPS}), or name it in --ingress-vip"
        );
        let place = out.notes.first().map(|(place, _)| place.clone()).unwrap_or_default();
        out.notes.push((super::syntax::Place { line: 0, ..place }, why));
    }
}

/// Those of `virtual_server IP PORT`, or of the group that it names.
fn addresses(
    statement: &Statement,
    groups: &BTreeMap<&str, Vec<(IpAddr, u16)>>,
    out: &mut Imported,
) -> Option<Vec<(IpAddr, u16)>> {
    match statement.argument(0) {
        Some("fwmark") => {
            out.left_out(statement, "packets are chosen by address and port, not by mark");
            None
        }
        Some("group") => {
            let found = statement.argument(1).and_then(|name| groups.get(name)).filter(|g| !g.is_empty());
            if found.is_none() {
                out.left_out(statement, "its group has no address with a port");
            }
            found.cloned()
        }
        Some(address) => {
            let (address, port) = (address.parse().ok(), statement.argument(1).and_then(|p| p.parse::<u16>().ok()));
            if let (Some(address), Some(port)) = (address, port.filter(|p| *p != 0)) {
                return Some(vec![(address, port)]);
            }
            out.left_out(statement, "an address and a port from 1 to 65535 are needed");
            None
        }
        None => {
            out.left_out(statement, "it names no address");
            None
        }
    }
}

/// `ADDRESS PORT` and `FIRST-LAST PORT` (the last byte of the last address), a line each.
fn group(statement: &Statement, out: &mut Imported) -> Vec<(IpAddr, u16)> {
    let mut found = Vec::new();
    for s in &statement.block {
        let port = s.argument(0).and_then(|p| p.parse::<u16>().ok()).filter(|p| *p != 0);
        let range = match s.keyword().split_once('-') {
            Some((first, last)) => first.parse::<Ipv4Addr>().ok().zip(last.parse::<u8>().ok()).map(|(first, last)| {
                let [a, b, c, d] = first.octets();
                (d..=last).map(|d| IpAddr::from([a, b, c, d])).collect()
            }),
            None => s.keyword().parse().ok().map(|address| vec![address]),
        };
        match (range, port) {
            (Some(range), Some(port)) => found.extend(range.into_iter().map(|address| (address, port))),
            _ => out.left_out(s, "an address, or IPv4 range, and a port are needed"),
        }
    }
    found
}

fn server(statement: &Statement, out: &mut Imported) -> Option<Server> {
    let mut server = Server::default();
    for s in &statement.block {
        match (s.keyword(), s.argument(0)) {
            // The default, and what works as it did.
            ("protocol", Some("TCP"))
            | ("lb_algo" | "lvs_sched", Some("sh" | "mh" | "dh"))
            | ("delay_loop" | "delay_before_retry" | "retry", _) => {}
            ("protocol", Some("UDP")) => server.udp = true,
            ("protocol", _) => {
                out.left_out(statement, "only TCP and UDP are forwarded");
                return None;
            }
            ("persistence_timeout", seconds) => server.persistence = Some(seconds.and_then(|s| s.parse().ok()).unwrap_or(360)),
            ("real_server", _) => real_server(s, &mut server, out),
            ("lb_algo" | "lvs_sched", _) => out.note(s, format!("`{}`: connections are spread by a consistent hash instead, with weights", s.text())),
            ("lb_kind" | "lvs_method", _) => out.note(s, format!(
                "`{}`: packets go out with the virtual address as source, so real servers need no route back and no address on lo, and see no \
                 client address (nodes that are endpoints themselves do)",
                s.text()
            )),
            ("sorry_server", _) => out.left_out(s, "there is no second choice; without a ready endpoint connections are refused"),
            ("quorum" | "quorum_up" | "quorum_down" | "hysteresis", _) => out.left_out(s, "there is no quorum"),
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
    if server.endpoints.is_empty() {
        out.note(statement, "it has no real_server: the Service has no endpoint");
    }
    Some(server)
}

fn real_server(statement: &Statement, server: &mut Server, out: &mut Imported) {
    let address = statement.argument(0).and_then(|a| a.parse().ok());
    let port = statement.argument(1).and_then(|p| p.parse::<u16>().ok()).filter(|p| *p != 0);
    let (Some(address), Some(port)) = (address, port) else {
        return out.left_out(statement, "an address and a port from 1 to 65535 are needed");
    };
    let mut weight = 1u32;
    for s in &statement.block {
        match s.keyword() {
            "weight" => weight = s.argument(0).and_then(|w| w.parse().ok()).unwrap_or(1),
            "HTTP_GET" | "SSL_GET" | "TCP_CHECK" | "SMTP_CHECK" | "DNS_CHECK" | "MISC_CHECK" | "UDP_CHECK"
            | "PING_CHECK" | "FILE_CHECK" => {
                out.left_out(s, "real servers are not checked from here: who keeps the EndpointSlice says `ready`, in a cluster a pod's readinessProbe");
            }
            "inhibit_on_failure" => {}
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
    // Weight 0 takes no new connection and keeps those that it has: so does an endpoint that is not ready.
    server.endpoints.entry((port, weight.max(1), weight > 0)).or_default().push(address);
}

/// One Service for each port.
fn write(addresses: &[(IpAddr, u16)], server: &Server, out: &mut Imported) {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for (address, port) in addresses {
        by_port.entry(*port).or_default().push(*address);
    }
    let protocol = if server.udp { "UDP" } else { "TCP" };
    for (port, vips) in by_port {
        let Some(first) = vips.first() else { continue };
        let spelt: String =
            first.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = format!("{}-{spelt}-{port}", protocol.to_lowercase());
        let list: Vec<String> = vips.iter().map(IpAddr::to_string).collect();
        let affinity =
            |seconds| SessionAffinityConfig { client_ip: Some(ClientIPConfig { timeout_seconds: Some(seconds) }) };
        let service = Service {
            metadata: named(&name, &[(VIPS, list.join(","))]),
            spec: Some(ServiceSpec {
                type_: Some("LoadBalancer".into()),
                load_balancer_class: Some(CLASS.into()),
                allocate_load_balancer_node_ports: Some(false),
                session_affinity: server.persistence.map(|_| "ClientIP".into()),
                session_affinity_config: server.persistence.map(affinity),
                ports: Some(vec![ServicePort {
                    name: Some("main".into()),
                    port: i32::from(port),
                    protocol: Some(protocol.into()),
                    target_port: Some(IntOrString::String("main".into())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        push(&service, out);
        for (i, ((target, weight, ready), endpoints)) in server.endpoints.iter().enumerate() {
            // A slice holds one family.
            for v4 in [true, false] {
                let of_family: Vec<&IpAddr> = endpoints.iter().filter(|a| a.is_ipv4() == v4).collect();
                if of_family.is_empty() {
                    continue;
                }
                let slice_name = format!("{name}-{}{i}", if v4 { "v4-" } else { "v6-" });
                let mut metadata = named(&slice_name, &[(WEIGHT, weight.to_string())]);
                metadata.labels = Some([(SERVICE_NAME.to_owned(), name.clone())].into());
                push(&slice(metadata, v4, *target, protocol, *ready, &of_family), out);
            }
        }
    }
}

fn slice(
    metadata: ObjectMeta,
    v4: bool,
    port: u16,
    protocol: &str,
    ready: bool,
    endpoints: &[&IpAddr],
) -> EndpointSlice {
    let endpoint = |address: &&IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata,
        address_type: if v4 { "IPv4" } else { "IPv6" }.into(),
        endpoints: Some(endpoints.iter().map(endpoint).collect()),
        ports: Some(vec![EndpointPort {
            name: Some("main".into()),
            port: Some(i32::from(port)),
            protocol: Some(protocol.into()),
            ..EndpointPort::default()
        }]),
    }
}

fn named(name: &str, annotations: &[(&str, String)]) -> ObjectMeta {
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn push(object: &impl Serialize, out: &mut Imported) {
    // Plain strings and numbers: nothing that YAML cannot say.
    out.manifests.extend(serde_saphyr::to_string(object).ok());
}
