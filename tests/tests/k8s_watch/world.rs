//! A LAN with an edge, a client, two backends and a real API server; and the agent on the edge with rights of its own.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ingress_tests::cluster::ControlPlane;
use ingress_tests::deploy;
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::http::raw::{Raw, Response};
use ingress_tests::http::tls::client_config;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::wait;

/// A cluster takes its time on a busy machine; a condition that holds ends the wait at once.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const VIP: &str = "10.1.0.100";

/// Of all Secrets it may see one, so that a request too many is refused.
const DEMO: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: demo }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: certificates, namespace: demo }
rules: [{ apiGroups: [''], resources: [secrets], resourceNames: [tls], verbs: [get, list, watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: certificates, namespace: demo }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: certificates }
subjects: [{ kind: ServiceAccount, name: sluicegate, namespace: sluicegate-system }]
";

pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) cluster: ControlPlane,
    client: Host,
    _backends: Vec<Running>,
    pub(crate) place: Place,
    _hosts: Vec<Host>,
    _lan: Lan,
}

impl World {
    /// The agent is not started yet. It has the rights that are shipped, but for Secrets; `option` is one that it is told.
    pub(crate) fn new(label: &str, option: &str) -> Self {
        Self::granted(label, &deploy::rights(), option)
    }

    pub(crate) fn granted(label: &str, rights: &str, option: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let host = |name: &str, n: u8| lan.host(name, &[&format!("10.1.0.{n}/24")]).expect("plug in a host");
        let (edge, client, control) = (host("e", 2), host("c", 4), host("k", 9));
        let hosts = vec![host("b1", 11), host("b2", 12)];
        for host in hosts.iter().chain([&client]) {
            host.receive_xdp().expect("take XDP frames");
        }
        let backends = hosts.iter().zip(["one", "two"]).map(|(host, name)| {
            let mut command = Command::new(sibling("demo_backend").expect("a backend's binary"));
            host.ns.spawn(command.arg(name).stdout(Stdio::null())).expect("start a backend")
        });
        let backends = backends.collect();
        let cluster = ControlPlane::start(label, &control.ns, [10, 1, 0, 9].into()).expect("start a control plane");
        let others = rights.split("---\n").filter(|document| !document.contains("name: sluicegate-certificates"));
        cluster.apply(&others.collect::<Vec<_>>().join("---\n")).expect("grant rights");
        cluster.apply(DEMO).expect("grant the right to one Secret");
        let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate").expect("a kubeconfig");
        let place = Place::new(label).expect("a place");
        let arguments = ["--max-flows=10000", "--workers=1", option];
        let agent = Agent::of_cluster(&edge, &place.directory, &place.pins, &kubeconfig, &arguments);
        Self { agent, cluster, client, _backends: backends, place, _hosts: hosts, _lan: lan }
    }

    pub(crate) fn apply(&self, manifest: &str) {
        self.cluster.apply(manifest).expect("apply");
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) {
        self.cluster.kubectl(&["delete", kind, name, "--namespace=demo", "--wait=false"], "").expect("delete");
    }

    /// Who answers on port 9000 of the VIP; nothing if nobody does.
    pub(crate) fn asked(&self, vip: &str) -> Option<String> {
        self.client.inside(|| {
            let address: SocketAddr = format!("{vip}:9000").parse().expect("an address");
            let stream = TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a read timeout");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.split(' ').next().filter(|name| !name.is_empty()).map(str::to_owned)
        })
    }

    #[track_caller]
    pub(crate) fn answers(&self, vip: &str, name: &str) {
        wait::within(PATIENCE, &format!("{vip} answers as {name}"), || {
            (self.asked(vip).as_deref() == Some(name)).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn is_gone(&self, vip: &str) {
        wait::within(PATIENCE, &format!("{vip} is gone"), || self.asked(vip).is_none().then_some(()));
    }

    /// Status, body and shown certificate (DER) of `https://HOST/` on the VIP.
    pub(crate) fn https(&self, host: &'static str) -> Option<(u16, String, Vec<u8>)> {
        let (response, shown) = self.answer(host)?;
        Some((response.status, response.text(), shown))
    }

    /// The answer, and the certificate.
    pub(crate) fn answer(&self, host: &'static str) -> Option<(Response, Vec<u8>)> {
        self.client.inside(|| {
            let address: SocketAddr = format!("{VIP}:443").parse().expect("an address");
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
            let name = rustls::pki_types::ServerName::try_from(host).expect("a name");
            let tls = rustls::ClientConnection::new(Arc::clone(&client_config(&[])), name).expect("a client");
            let mut raw = Raw::over(rustls::StreamOwned::new(tls, stream));
            let response = raw.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).response()?;
            let shown = raw.stream.conn.peer_certificates()?.first()?.to_vec();
            Some((response, shown))
        })
    }

    /// Waits until `/readyz` holds, and gives its text.
    #[track_caller]
    pub(crate) fn readyz(&self, what: &str, holds: impl Fn(u16, &str) -> bool) -> String {
        wait::within(PATIENCE, what, || {
            let (status, text) = self.agent.get("/readyz").ok()?;
            holds(status, &text).then_some(text)
        })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.agent.log_path()).unwrap_or_default()
    }

    pub(crate) fn saved(&self) -> PathBuf {
        self.place.directory.join("state/facts.json")
    }
}

/// A TCP service on port 9000 of `vip`, of one of the backends (`one` is 11, `two` is 12).
pub(crate) fn service(name: &str, vip: &str, backend: u8) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: demo, annotations: {{ sluicegate.io/vips: '{vip}' }} }}
spec: {{ type: LoadBalancer, loadBalancerClass: sluicegate.io/xdp, ports: [{{ port: 9000 }}] }}
---
{}",
        slice(name, 9000, backend)
    )
}

pub(crate) fn slice(service: &str, port: u16, backend: u8) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {service}-1, namespace: demo, labels: {{ kubernetes.io/service-name: {service} }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: [10.1.0.{backend}], nodeName: worker, conditions: {{ ready: true }} }}]
"
    )
}

/// `https://HOST/` on the VIP, with the certificate of a Secret.
pub(crate) fn ingress(name: &str, host: &str, secret: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: {name}, namespace: demo }}
spec:
  ingressClassName: sluicegate
  tls: [{{ hosts: [{host}], secretName: {secret} }}]
  rules:
  - host: {host}
    http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }}
"
    )
}

/// What an Ingress needs beside itself.
pub(crate) fn web() -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{ name: sluicegate, annotations: {{ sluicegate.io/vips: '{VIP}' }} }}
spec: {{ controller: sluicegate.io/ingress-controller }}
---
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: demo }}
spec: {{ ports: [{{ port: 80, targetPort: 8080 }}] }}
---
{}",
        slice("web", 8080, 11)
    )
}

/// A Secret with a new certificate for `host`, and the certificate (DER).
pub(crate) fn secret(name: &str, host: &str) -> (String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    let indent = |pem: &str| pem.trim().replace('\n', "\n    ");
    let text = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: demo }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
        indent(&made.cert.pem()),
        indent(&made.signing_key.serialize_pem())
    );
    (text, made.cert.der().to_vec())
}
