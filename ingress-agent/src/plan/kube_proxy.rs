//! Where kube-proxy would take a connection before the proxy can. XDP comes before all of its rules; but what the proxy answers goes up
//! to the kernel, and there the rules for `externalIPs`, and for addresses whose `ipMode` is not `Proxy`, come first. Nothing on the
//! node can be done about that, so the owner of the Service is told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::http::Http;
use crate::model::facts::Facts;
use crate::model::rejection::Rejection;
use crate::model::snapshot::Protocol;
use crate::model::stream::Stream;

/// One for each address of a Service that has a port of the proxy's.
pub(super) fn warnings(facts: &Facts, http: &Http, streams: &[Arc<Stream>]) -> Vec<Rejection> {
    let listeners = http.listeners.iter().map(|l| (l.vip, l.port));
    let proxied: BTreeSet<(IpAddr, u16)> = listeners.chain(streams.iter().map(|s| (s.vip, s.port))).collect();
    let mut warnings = Vec::new();
    for service in facts.services.iter() {
        for bound in service.external_ips.iter().chain(&service.bound_elsewhere) {
            let tcp = service.ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.port);
            let taken: Vec<String> =
                tcp.filter(|port| proxied.contains(&(bound.address, *port))).map(|port| port.to_string()).collect();
            if taken.is_empty() {
                continue;
            }
            let reason = format!(
                "is {}, which we answer for: where kube-proxy runs, it sends connections to port {} to this Service, before the \
                 proxy sees them",
                bound.address,
                taken.join(", ")
            );
            warnings.push(service.origin.warn("Service", bound.field.as_str(), reason));
        }
    }
    warnings
}
