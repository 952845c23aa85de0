//! A real API server that asks the real webhook, installed from the files that are shipped. There are no nodes, so the webhook
//! runs as a process that listens on the address of its Service, which is where the API server calls.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::ControlPlane;
use crate::edge::sibling;
use crate::netns::{Namespace, Running};
use crate::place::Place;
use crate::wait;

pub const PATIENCE: Duration = Duration::from_mins(1);

const PARTS: [&str; 8] = [
    "service-account",
    "cluster-role",
    "role",
    "deployment",
    "service",
    "pod-disruption-budget",
    "network-policy",
    "validating-webhook-configuration",
];

/// What there is before anybody asks.
const BEFORE: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: sluicegate-system }
---
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Namespace
metadata: { name: tenant }
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: sluicegate, annotations: { sluicegate.io/vips: 203.0.113.100 } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: foreign }
spec: { controller: example.com/other }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: tenant }
spec: { ports: [{ port: 80 }] }
---
apiVersion: sluicegate.io/v1alpha1
kind: VirtualIPPool
metadata: { name: first }
spec: { addresses: [203.0.113.0/28] }
";

pub struct WebhookSite {
    webhook: Option<Running>,
    pub cluster: ControlPlane,
    pub ns: Arc<Namespace>,
    pub place: Place,
    kubeconfig: PathBuf,
    /// Of its Service; port 443.
    pub address: IpAddr,
}

impl WebhookSite {
    /// Everything is installed, and the webhook is not started yet.
    pub fn new(label: &str) -> Self {
        let ns = Namespace::new(label).expect("make a namespace");
        let cluster = ControlPlane::start(label, &ns, Ipv4Addr::LOCALHOST.into()).expect("start a control plane");
        cluster.apply(&shipped("crds/virtualippools")).expect("apply the CRD");
        cluster
            .kubectl(&["wait", "--for=condition=Established", "crd/virtualippools.sluicegate.io", "--timeout=60s"], "")
            .expect("the CRD is served");
        cluster.apply(BEFORE).expect("apply what is there before");
        for part in PARTS {
            cluster.apply(&shipped(&format!("kustomize/webhook/{part}"))).expect("install the webhook");
        }
        let path = ["get", "service", "sluicegate-webhook", "-n", "sluicegate-system", "-o=jsonpath={.spec.clusterIP}"];
        let address = cluster.kubectl(&path, "").expect("the Service's address");
        // What kube-proxy does on other machines.
        ns.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]).expect("add the address");
        let address = address.parse().expect("an address");
        let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate-webhook");
        let kubeconfig = kubeconfig.expect("a kubeconfig");
        let place = Place::new(label).expect("a place");
        Self { webhook: None, cluster, ns, place, kubeconfig, address }
    }

    /// Starts the webhook with the rights of its own `ServiceAccount`, and waits until it says that it is ready.
    pub fn start(&mut self, arguments: &[&str]) {
        let running = self.launch(SocketAddr::new(self.address, 443), 8081, "webhook.log", arguments);
        self.webhook = Some(running);
        self.ready(8081);
    }

    pub fn launch(&self, address: SocketAddr, admin: u16, log: &str, arguments: &[&str]) -> Running {
        let log = File::options().create(true).append(true).open(self.place.directory.join(log)).expect("open the log");
        let mut command = self.ns.command(sibling("sluicegate").expect("the binary"));
        command.args(["webhook", "--listen-address", &address.to_string()]);
        command.args(["--admin-address", &format!("127.0.0.1:{admin}")]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(["--tcp-services-configmap", "sluicegate-system/tcp-services"]).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log);
        self.ns.spawn(&mut command).expect("start the webhook")
    }

    #[track_caller]
    pub fn ready(&self, admin: u16) {
        wait::within(PATIENCE, &format!("the webhook is ready; its log:\n{}", self.log()), || {
            self.admin(admin, "/readyz").starts_with("HTTP/1.1 200").then_some(())
        });
    }

    pub fn kill(&mut self) {
        drop(self.webhook.take().expect("it runs"));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.directory.join("webhook.log")).unwrap_or_default()
    }

    /// An answer of the admin address, head and body.
    pub fn admin(&self, port: u16, path: &str) -> String {
        let asked = self.ns.inside(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        asked.unwrap_or_default()
    }

    /// What the webhook itself answers to these bytes, past the API server.
    pub fn directly(&self, request: &[u8]) -> String {
        self.ns.inside(|| {
            let stream = TcpStream::connect((self.address, 443)).expect("the webhook listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
            let name = rustls::pki_types::ServerName::try_from("x.example").expect("a name");
            let config = crate::http::tls::client_config(&[]);
            let tls = rustls::ClientConnection::new(config, name).expect("a client");
            let mut tls = rustls::StreamOwned::new(tls, stream);
            // It may refuse before all is sent.
            let _ = tls.write_all(request);
            let mut answer = Vec::new();
            let _ = tls.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
    }

    /// The certificate that is shown, as DER.
    pub fn shown(&self) -> Option<Vec<u8>> {
        self.ns.inside(|| {
            let mut stream = TcpStream::connect((self.address, 443)).ok()?;
            let name = rustls::pki_types::ServerName::try_from("x.example").expect("a name");
            let config = crate::http::tls::client_config(&[]);
            let mut tls = rustls::ClientConnection::new(config, name).expect("a client");
            while tls.is_handshaking() {
                tls.complete_io(&mut stream).ok()?;
            }
            tls.peer_certificates()?.first().map(|c| c.to_vec())
        })
    }

    /// What `kubectl apply` printed, to both outputs: `Ok` where it was admitted.
    pub fn apply(&self, manifest: &str) -> Result<String, String> {
        self.kubectl(&["apply", "-f", "-"], manifest)
    }

    /// The same, and nothing is stored.
    pub fn try_out(&self, manifest: &str) -> Result<String, String> {
        self.kubectl(&["apply", "--dry-run=server", "-f", "-"], manifest)
    }

    fn kubectl(&self, arguments: &[&str], manifest: &str) -> Result<String, String> {
        let told = self.cluster.kubectl_told(self.cluster.admin_kubeconfig(), arguments, manifest);
        told.map(|(said, warned)| said + &warned).map_err(|e| format!("{e:#}"))
    }

    /// Waits until the API server has heard of a new authority, or of a webhook that is back: until a bad object is denied.
    #[track_caller]
    pub fn is_asked(&self) {
        wait::within(PATIENCE, &format!("the API server asks the webhook; its log:\n{}", self.log()), || {
            self.try_out(&bad()).is_err().then_some(())
        });
    }

    pub fn secret(&self, key: &str) -> String {
        let key = key.replace('.', "\\.");
        let template = format!("-o=jsonpath={{.data.{key}}}");
        let name = ["get", "secret", "sluicegate-webhook-certificate", "-n", "sluicegate-system", &template];
        self.cluster.kubectl(&name, "").expect("the Secret")
    }

    /// Of the first webhook, as base64.
    pub fn authorities(&self) -> String {
        let path = "-o=jsonpath={.webhooks[0].clientConfig.caBundle}";
        self.cluster
            .kubectl(&["get", "validatingwebhookconfiguration", "sluicegate", path], "")
            .expect("the configuration")
    }
}

/// A file below `deploy`.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(format!("{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An Ingress with one rule.
pub fn ingress(namespace: &str, name: &str, class: &str, host: &str, path: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  ingressClassName: {class}
  rules:
  - host: {host}
    http: {{ paths: [{{ path: '{path}', pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }}
"
    )
}

/// Taken by the API server, and nothing that the agent can serve.
pub fn bad() -> String {
    ingress("shop", "bad", "sluicegate", "bad.example", "/(.*)")
}
