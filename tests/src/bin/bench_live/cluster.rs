//! A cluster of many services on few hosts: each service has 100 endpoints, 99 of them addresses of one host and one of
//! another, so that a client can tell when that one changes. Each object that changes has a file of its own, as the API server
//! tells of each on its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::place::Place;

pub(crate) const ENDPOINTS: u8 = 100;
/// Where the last endpoint of a service moves to.
const MOVED: u8 = 200;
pub(crate) const HOST: &str = "live.example";
const FIRST_PORT: u16 = 10_000;
const ECHO_PORT: u16 = 9_000;
const L4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
const L7: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

pub(crate) struct Cluster {
    pub(crate) services: usize,
}

/// The hosts of 99 endpoints and of the last.
pub(crate) fn backends(lan: &Lan) -> Result<(Host, Host)> {
    let mut addresses: Vec<String> = (1..ENDPOINTS).chain([MOVED]).map(|n| format!("10.50.0.{n}/24")).collect();
    addresses.push("192.0.2.11/24".to_owned());
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let many = lan.host("many", &addresses)?;
    let one = lan.host("one", &[&format!("10.50.0.{ENDPOINTS}/24"), "192.0.2.12/24"])?;
    Ok((many, one))
}

/// Where a service is reached at L4.
pub(crate) fn frontend(service: usize) -> SocketAddr {
    (L4, FIRST_PORT + service as u16).into()
}

pub(crate) fn web() -> SocketAddr {
    (L7, 80).into()
}

pub(crate) fn echo() -> SocketAddr {
    (L4, ECHO_PORT).into()
}

/// Where a service is reached at L7, before and after its change.
pub(crate) fn path(service: usize, changed: bool) -> String {
    format!("/s/{service}/{}", if changed { "new" } else { "old" })
}

pub(crate) fn slice_file(service: usize) -> String {
    format!("s{service}-slice.yaml")
}

pub(crate) fn ingress_file(service: usize) -> String {
    format!("s{service}-ingress.yaml")
}

/// How the endpoints of a service stand, and what becomes of the last one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// All are ready.
    All,
    /// The last one is gone.
    AllButLast,
    /// Only the last one is ready: whoever asks is answered by it, also where endpoints take turns.
    OnlyLast,
    /// The same, at another address.
    OnlyLastMoved,
}

impl Cluster {
    pub(crate) fn write(&self, place: &Place) -> Result<()> {
        place.manifest("class.yaml", CLASS)?;
        place.manifest("echo.yaml", ECHO)?;
        for service in 0..self.services {
            place.manifest(&format!("s{service}.yaml"), &exposed(service))?;
            place.manifest(&ingress_file(service), &ingress(service, false))?;
            place.manifest(&slice_file(service), &slice(service, self.before(service)))?;
        }
        Ok(())
    }

    /// The services that are watched through the proxy, one in three, and all others.
    pub(crate) fn before(&self, service: usize) -> Endpoints {
        if service % 3 == 1 && service + 1 < self.services { Endpoints::OnlyLast } else { Endpoints::All }
    }
}

fn exposed(service: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{ name: s{service}, namespace: live, annotations: {{ sluicegate.io/vips: \"{L4}\" }} }}\n\
         spec:\n  type: LoadBalancer\n  ports: [{{ name: http, port: {port}, targetPort: 8080, protocol: TCP }}]\n",
        port = FIRST_PORT + service as u16,
    )
}

pub(crate) fn ingress(service: usize, changed: bool) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: s{service}, namespace: live }}\n\
         spec:\n  ingressClassName: sluicegate\n  rules:\n    - host: {HOST}\n      http:\n        paths:\n\
         \x20         - path: {path}\n            pathType: Prefix\n\
         \x20           backend: {{ service: {{ name: s{service}, port: {{ number: {port} }} }} }}\n",
        port = FIRST_PORT + service as u16,
        path = path(service, changed),
    )
}

pub(crate) fn slice(service: usize, endpoints: Endpoints) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: s{service}-v4, namespace: live, labels: {{ kubernetes.io/service-name: s{service} }} }}\n\
         addressType: IPv4\nports: [{{ name: http, port: 8080, protocol: TCP }}]\nendpoints:\n",
    );
    let mut add = |address: u8, ready: bool| {
        let _ = writeln!(
            text,
            "  - {{ addresses: [10.50.0.{address}], nodeName: n{address}, conditions: {{ ready: {ready} }} }}"
        );
    };
    for endpoint in 1..ENDPOINTS {
        add(endpoint, matches!(endpoints, Endpoints::All | Endpoints::AllButLast));
    }
    match endpoints {
        Endpoints::All | Endpoints::OnlyLast => add(ENDPOINTS, true),
        Endpoints::OnlyLastMoved => add(MOVED, true),
        Endpoints::AllButLast => {}
    }
    text
}

const CLASS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: sluicegate, annotations: { sluicegate.io/vips: "192.0.2.100" } }
spec: { controller: sluicegate.io/ingress-controller }
"#;

const ECHO: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: live, annotations: { sluicegate.io/vips: "192.0.2.101" } }
spec:
  type: LoadBalancer
  ports: [{ name: echo, port: 9000, protocol: TCP }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-v4, namespace: live, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ name: echo, port: 9000, protocol: TCP }]
endpoints:
  - { addresses: [192.0.2.11], conditions: { ready: true } }
  - { addresses: [192.0.2.12], conditions: { ready: true } }
"#;
