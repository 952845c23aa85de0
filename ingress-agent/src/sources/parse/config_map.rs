//! ConfigMap `"9000": "namespace/service:port"` (the `tcp-services` form of ingress-nginx) → [`StreamFacts`]. For TCP,
//! `:PROXY` behind it wants the PROXY protocol from the client, `:PROXY:PROXY` towards the backend as well, and `::PROXY` only there.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Notes, port_number};
use crate::model::facts::{BackendRef, ConfigMapFacts, PortRef, StreamFacts, StreamPort};
use crate::model::snapshot::{ObjectName, Protocol};
use crate::model::stream::ProxyProtocol;

pub fn parse(object: &ConfigMap, protocol: Protocol, notes: &mut Notes) -> StreamFacts {
    let mut ports: Vec<StreamPort> = Vec::new();
    for (key, value) in object.data.iter().flatten() {
        let field = format!("data[{key}]");
        let parsed = listen_port(key).and_then(|port| {
            let (service, service_port, proxy_protocol) = target(value)?;
            if proxy_protocol.is_spoken() && protocol == Protocol::Udp {
                return Err(format!("`{value}` asks for the PROXY protocol, which is for TCP: leave the suffix out"));
            }
            let backend = BackendRef { field: field.clone(), service, port: service_port };
            Ok(StreamPort { port, backend, proxy_protocol })
        });
        match parsed {
            Ok(stream) => ports.push(stream),
            Err(reason) => notes.reject(field, reason),
        }
    }
    ports.sort_by_key(|p| p.port);
    StreamFacts { origin: notes.origin.clone(), protocol, ports }
}

/// Any other ConfigMap: what it says is its reader's business.
pub fn plain(object: &ConfigMap, notes: &Notes) -> ConfigMapFacts {
    ConfigMapFacts { origin: notes.origin.clone(), data: object.data.clone().unwrap_or_default() }
}

fn listen_port(key: &str) -> Result<u16, String> {
    // "080" would be another key for 80.
    let number = key.parse().ok().filter(|n: &i32| n.to_string() == key);
    port_number(number.ok_or_else(|| format!("`{key}` is not a port number"))?)
}

/// `namespace/service:port[:[PROXY][:PROXY]]`, the port by number or name.
fn target(value: &str) -> Result<(ObjectName, PortRef, ProxyProtocol), String> {
    let form = || format!("`{value}` is not of the form `namespace/service:port`");
    let spoken = |part: Option<&str>| match part.map(str::trim) {
        None | Some("") => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("PROXY") => Ok(true),
        // Serving it without would hand the backend, or take from the client, a stream in another format.
        Some(other) => Err(format!("`{other}` in `{value}` is not `PROXY`")),
    };
    let (namespace, rest) = value.trim().split_once('/').ok_or_else(form)?;
    let mut parts = rest.split(':');
    let (Some(service), Some(port)) = (parts.next(), parts.next()) else {
        return Err(form());
    };
    if namespace.is_empty() || service.is_empty() || port.is_empty() {
        return Err(form());
    }
    let proxy_protocol = ProxyProtocol { received: spoken(parts.next())?, sent: spoken(parts.next())? };
    if parts.next().is_some() {
        return Err(form());
    }
    let port = match port.parse() {
        Ok(number) => PortRef::Number(port_number(number)?),
        Err(_) => PortRef::Name(port.to_owned()),
    };
    Ok((ObjectName::new(namespace, service), port, proxy_protocol))
}
