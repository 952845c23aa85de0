//! A cluster with one edge node, a backend and a client; the shipped objects applied; and this test in the place of the kubelet: it runs
//! the DaemonSet's pod, as the real controller made it, from the image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use ingress_tests::cluster::ControlPlane;
use ingress_tests::container::{Machine, Unpacked};
use ingress_tests::deploy;
use ingress_tests::edge::sibling;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::wait::within;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
pub(crate) const NAMESPACE: &str = "sluicegate-system";
pub(crate) const VIP: &str = "10.3.0.100";
pub(crate) const WEB_VIP: &str = "10.3.0.101";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An ordinary app: a Service of type `LoadBalancer` and an Ingress. Its endpoint is written by hand, since no pod runs here.
const APP: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: echo, annotations: { sluicegate.io/vips: "10.3.0.100" } }
spec:
  type: LoadBalancer
  loadBalancerClass: sluicegate.io/xdp
  ports: [{ name: tcp, port: 9000 }, { name: http, port: 80, targetPort: 8080 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ name: tcp, port: 9000, protocol: TCP }, { name: http, port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.3.0.3], nodeName: worker, conditions: { ready: true } }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop }
spec:
  ingressClassName: sluicegate
  rules: [{ host: shop.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: echo, port: { name: http } } } }] } }]
"#;

pub(crate) struct World {
    pub(crate) cluster: ControlPlane,
    pub(crate) edge: Host,
    pub(crate) client: Host,
    pub(crate) image: Unpacked,
    pub(crate) place: Place,
    _backend: Running,
    _worker: Host,
    _lan: Lan,
}

impl World {
    pub(crate) fn new(label: &str) -> Self {
        let lan = Lan::new(label).expect("make the LAN");
        let host = |name: &str, n: u8| lan.host(name, &[&format!("10.3.0.{n}/24")]).expect("plug in a host");
        let (edge, worker, client, control) = (host("edge", 2), host("worker", 3), host("client", 4), host("cp", 5));
        // Somewhere to go: the edge's interface is found by it.
        edge.route_by(&["10.3.0.1"]).expect("a default route");
        for other in [&worker, &client] {
            other.receive_xdp().expect("a pass program");
        }
        let program = sibling("demo_backend").expect("the backend's program");
        let backend = worker.ns.spawn(Command::new(program).arg("worker")).expect("start a backend");
        let cluster =
            ControlPlane::start(label, &control.ns, "10.3.0.5".parse().expect("an address")).expect("start it");
        let place = Place::new(&format!("{label}-edge")).expect("make a place");
        fs::create_dir_all(&place.pins).expect("make the node's /sys/fs/bpf");
        let archive = place.directory.join("image.tar");
        deploy::pack(&archive).expect("pack the image");
        let image = deploy::unpack(&archive, &place.directory).expect("unpack it");
        let world = Self { cluster, edge, client, image, place, _backend: backend, _worker: worker, _lan: lan };
        world.kubectl(&["apply", "-f", "-"], &node("edge", "node-role.kubernetes.io/edge: \"\""));
        world.kubectl(&["apply", "-f", "-"], &node("worker", "plain: \"yes\""));
        world
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.cluster.kubectl(arguments, input).unwrap_or_else(|e| panic!("{e:#}"))
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.kubectl(&[arguments, &["-o", "json"]].concat(), "");
        serde_json::from_str(&said).expect("kubectl prints JSON")
    }

    /// `kubectl ARGUMENTS -k deploy/NAME`.
    pub(crate) fn kustomize(&self, arguments: &[&str], name: &str) -> String {
        let directory = deploy::path(name).display().to_string();
        self.kubectl(&[arguments, &["-k", &directory]].concat(), "")
    }

    pub(crate) fn apply_app(&self) {
        self.kubectl(&["apply", "-f", "-"], APP);
        let vips = format!("sluicegate.io/vips={WEB_VIP}");
        self.kubectl(&["annotate", "ingressclass", "sluicegate", &vips], "");
    }

    /// The pod that the DaemonSet's controller made for the edge node, which is not `before`; bound to it, as the scheduler would.
    pub(crate) fn pod(&self, before: Option<&Pod>) -> Pod {
        let pod: Pod = within(PATIENCE, "the DaemonSet has a pod on the edge node", || {
            let list = self.json(&["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sluicegate"]);
            let pods: Vec<Pod> = serde_json::from_value(list["items"].clone()).expect("pods");
            pods.into_iter().find(|pod| before.is_none_or(|b| b.metadata.uid != pod.metadata.uid))
        });
        let name = pod.metadata.name.as_deref().expect("a name");
        let binding = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Binding\", \"metadata\": {{\"name\": \"{name}\"}}, \
             \"target\": {{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"name\": \"edge\"}}}}"
        );
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/binding");
        self.kubectl(&["create", "--raw", &path, "-f", "-"], &binding);
        pod
    }

    pub(crate) fn machine(&self) -> Machine<'_> {
        let state = self.place.directory.join("state");
        fs::create_dir_all(&state).expect("the node's /var/lib/sluicegate");
        Machine {
            ns: &self.edge.ns,
            name: "edge",
            address: "10.3.0.2",
            paths: BTreeMap::from([
                ("/sys/fs/bpf", self.place.pins.clone()),
                ("/proc/sys/net", PathBuf::from("/proc/sys/net")),
                ("/var/lib/sluicegate", state),
            ]),
            directory: &self.place.directory,
        }
    }

    /// A container of a pod, with the token of the pod's service account, its output in a log.
    pub(crate) fn command(&self, pod: &Pod, container: &Container) -> Command {
        let spec = pod.spec.as_ref().expect("a spec");
        let mut mounts = Vec::new();
        if spec.automount_service_account_token != Some(false) {
            mounts.push((TOKEN, self.token(spec.service_account_name.as_deref().expect("a service account"))));
        }
        let (host, port) = (self.cluster.address.ip().to_string(), self.cluster.address.port().to_string());
        let api = [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
        let mut command = self.machine().container(&self.image, pod, container, &mounts, &api).expect("a container");
        let log = File::options().create(true).append(true).open(self.log()).expect("open the log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share it")).stderr(log);
        command
    }

    fn token(&self, account: &str) -> PathBuf {
        let directory = self.place.directory.join("token");
        fs::create_dir_all(&directory).expect("a directory for the token");
        let token = self.kubectl(&["create", "token", account, "-n", NAMESPACE], "");
        let authority = fs::read_to_string(self.cluster.directory().join("ca.crt")).expect("the authority");
        for (name, text) in [("token", token.trim()), ("ca.crt", &authority), ("namespace", NAMESPACE)] {
            fs::write(directory.join(name), text).expect("write the token");
        }
        directory
    }

    /// Starts the agent of a pod and waits for `/readyz`.
    pub(crate) fn start(&self, pod: &Pod) -> Running {
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let mut running = Running(self.command(pod, container).spawn().expect("start the container"));
        within(PATIENCE, "the agent is ready", || {
            if let Some(status) = running.0.try_wait().expect("wait") {
                panic!("the agent ended ({status}):\n{}", self.last_words());
            }
            (self.readyz().0 == 200).then_some(())
        });
        running
    }

    pub(crate) fn readyz(&self) -> (u16, String) {
        let answer = self.edge.inside(|| ask("127.0.0.1:10254", "GET /readyz HTTP/1.0\r\n\r\n"));
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    fn log(&self) -> PathBuf {
        self.place.directory.join("agent.log")
    }

    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// What the kubelet would say of a pod that runs.
    pub(crate) fn say_ready(&self, pod: &Pod) {
        let status = r#"{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
        let name = pod.metadata.name.as_deref().expect("a name");
        self.kubectl(&["patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "-p", status], "");
    }

    /// What the kubelet does when a pod is to go: SIGTERM, and the object goes when the process has.
    pub(crate) fn end(&self, pod: &Pod, mut running: Running) {
        running.signal(libc::SIGTERM);
        within(PATIENCE, "the container ends by SIGTERM", || running.0.try_wait().expect("wait"));
        let name = pod.metadata.name.as_deref().expect("a name");
        self.kubectl(
            &["delete", "pod", name, "-n", NAMESPACE, "--force", "--grace-period=0", "--ignore-not-found"],
            "",
        );
    }

    /// A client's HTTP request by way of the proxy.
    pub(crate) fn web(&self) -> String {
        let request = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
        self.client.inside(|| ask(&format!("{WEB_VIP}:80"), request))
    }

    /// A client's TCP connection by way of XDP: what the backend says first.
    pub(crate) fn tcp(&self) -> Option<BufReader<TcpStream>> {
        self.client.inside(|| {
            let address = format!("{VIP}:9000").parse().expect("an address");
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            line.starts_with("worker ").then_some(reader)
        })
    }

    pub(crate) fn addresses(&self) -> String {
        self.edge.ip(&["addr", "show", "dev", "eth0"]).expect("show addresses")
    }
}

/// Sends a request and reads to the end; empty if nobody answers.
pub(crate) fn ask(address: &str, request: &str) -> String {
    use std::io::{Read, Write};
    let address = address.parse().expect("an address");
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
        return String::new();
    };
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn node(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{ name: {name}, labels: {{ kubernetes.io/os: linux, {label} }} }}\n"
    )
}
