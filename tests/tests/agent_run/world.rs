//! A LAN with an edge, a client and one backend, and the agent on the edge.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::place::Place;

const PATIENCE: Duration = Duration::from_secs(20);

const WEB: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: sluicegate, annotations: { sluicegate.io/vips: '10.1.0.100' } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop, namespace: demo }
spec:
  ingressClassName: sluicegate
  rules:
    - host: shop.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: demo }
spec: { ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: demo, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.3], nodeName: worker, conditions: { ready: true } }]
";

/// A TCP service on port 9000 of `vip` (and its IPv6 twin for the first of them), with the world's backend.
pub(crate) fn service(name: &str, vip: &str) -> String {
    let vips = if vip == "10.1.0.101" { format!("{vip},fd01::101") } else { vip.to_owned() };
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: demo, annotations: {{ sluicegate.io/vips: '{vips}' }} }}
spec: {{ type: LoadBalancer, ports: [{{ port: 9000 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: demo, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ port: 9000, protocol: TCP }}]
endpoints: [{{ addresses: [10.1.0.3], nodeName: worker, conditions: {{ ready: true }} }}]
"
    )
}

pub(crate) struct World {
    pub(crate) edge: Host,
    pub(crate) client: Host,
    pub(crate) place: Place,
    backend: Arc<Backend>,
    _hosts: Vec<Host>,
    _lan: Lan,
}

/// What the backend's threads share: requests for `/slow` wait here.
#[derive(Default)]
struct Backend {
    slow: AtomicUsize,
    gate: (Mutex<bool>, Condvar),
    ended: AtomicBool,
}

impl World {
    pub(crate) fn new(label: &str) -> Self {
        let world = Self::empty(label);
        world.place.manifest("web.yaml", WEB).expect("write");
        world.place.manifest("echo.yaml", &service("echo", "10.1.0.101")).expect("write");
        world
    }

    /// Without manifests.
    pub(crate) fn empty(label: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let edge = lan.host("e", &["10.1.0.2/24", "fd01::2/64"]).expect("plug in the edge");
        let host = lan.host("b", &["10.1.0.3/24", "fd01::3/64"]).expect("plug in the backend");
        let client = lan.host("c", &["10.1.0.4/24", "fd01::4/64"]).expect("plug in the client");
        for host in [&host, &client] {
            host.receive_xdp().expect("take XDP frames");
        }
        let backend = Arc::new(Backend::default());
        for (port, serve) in [(8080, http as fn(TcpStream, &Backend)), (9000, echo)] {
            let listener = host.inside(|| TcpListener::bind(("0.0.0.0", port))).expect("the backend's port");
            listener.set_nonblocking(true).expect("non-blocking");
            let backend = Arc::clone(&backend);
            std::thread::spawn(move || accept(&listener, &backend, serve));
        }
        Self { edge, client, place: Place::new(label).expect("a place"), backend, _hosts: vec![host], _lan: lan }
    }

    /// The agent, ready.
    pub(crate) fn start(&self) -> Agent {
        Agent::start(&self.edge, &self.place.directory, &self.place.pins, &["--max-flows", "10000", "--workers", "1"])
            .expect("the agent becomes ready")
    }

    /// The agent, started; nobody waits for it.
    pub(crate) fn start_unready(&self) -> Loose<'_> {
        self.start_with(&["--access-log=off"])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Loose<'_> {
        let mut command = std::process::Command::new(sibling("sluicegate").expect("the agent's binary"));
        command.arg("run").arg("--manifests").arg(self.place.directory.join("manifests"));
        command.args(["--interface=eth0", "--node=edge", "--max-flows=10000", "--workers=1"]).args(arguments);
        command.arg("--admin-socket").arg(self.place.directory.join("admin.sock"));
        command.arg("--pin-path").arg(&self.place.pins).stdout(Stdio::null()).stderr(Stdio::null());
        Loose { world: self, running: self.edge.spawn(&mut command).expect("start") }
    }

    /// A start that must fail: exit code, standard output and standard error.
    pub(crate) fn run_wrongly(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.edge.command(sibling("sluicegate").expect("the agent's binary"));
        command.arg("run").arg("--manifests").arg(self.place.directory.join("manifests"));
        if !arguments.iter().any(|a| a.starts_with("--access-log")) {
            command.arg("--access-log=off");
        }
        let child = command.arg("--node=edge").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("start");
        let end = Instant::now() + PATIENCE;
        while child.try_wait().expect("wait").is_none() {
            if Instant::now() > end {
                child.kill().expect("kill");
                panic!("it did not end: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        finished(child.wait_with_output().expect("its output"))
    }

    /// The binary with these arguments, on the edge; `status` and `explain` find the agent.
    pub(crate) fn sluicegate(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.edge.command(sibling("sluicegate").expect("the agent's binary"));
        command.env("SLUICEGATE_ADMIN_SOCKET", self.place.directory.join("admin.sock"));
        finished(command.args(arguments).output().expect("start"))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.place.directory.join("agent.log")).unwrap_or_default()
    }

    /// What the client gets for a request on port 80 of `vip`.
    pub(crate) fn http(&self, vip: &str, head: &str) -> String {
        let head = if head.contains("connection:") {
            head.to_owned()
        } else {
            head.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1)
        };
        self.client.inside(|| request(&format!("{vip}:80"), &head))
    }

    /// What the L4 service on port 9000 of `vip` says to the client, if it is reached.
    pub(crate) fn echo(&self, vip: &str) -> Option<String> {
        self.client.inside(|| {
            let address: SocketAddr = format!("{vip}:9000").parse().expect("an address");
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(b"hello\n").ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            (!line.is_empty()).then_some(line)
        })
    }

    pub(crate) fn slow_requests(&self) -> usize {
        self.backend.slow.load(Ordering::Acquire)
    }

    pub(crate) fn let_slow_requests_go(&self) {
        *self.backend.gate.0.lock().expect("no panic under the lock") = true;
        self.backend.gate.1.notify_all();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.backend.ended.store(true, Ordering::Release);
        self.let_slow_requests_go();
    }
}

/// An agent that was not waited for.
pub(crate) struct Loose<'a> {
    world: &'a World,
    running: ingress_tests::netns::Running,
}

impl Loose<'_> {
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = self.world.edge.inside(|| request("127.0.0.1:10254", &head));
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        status.map(|s| (s, body)).ok_or_else(|| anyhow::anyhow!("no answer: {answer:?}"))
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.running.signal(signal);
    }
}

fn finished(output: std::process::Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// Sends `head` and reads to the end; empty if there was no connection or no answer.
pub(crate) fn request(to: &str, head: &str) -> String {
    let address: SocketAddr = to.parse().expect("an address");
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // The other side may have closed already; what it said is still to be read.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn accept(listener: &TcpListener, backend: &Arc<Backend>, serve: fn(TcpStream, &Backend)) {
    while !backend.ended.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) => {
                let backend = Arc::clone(backend);
                std::thread::spawn(move || serve(stream, &backend));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => return,
        }
    }
}

fn http(stream: TcpStream, backend: &Backend) {
    let _ = stream.set_nonblocking(false);
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if !matches!(reader.read_line(&mut first), Ok(n) if n > 0) {
            return;
        }
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
                return;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = format!("backend {}", first.rsplit_once(' ').map_or("", |(start, _)| start));
        if first.contains(" /slow ") {
            backend.slow.fetch_add(1, Ordering::AcqRel);
            let mut open = backend.gate.0.lock().expect("no panic under the lock");
            while !*open {
                open = backend.gate.1.wait(open).expect("no panic under the lock");
            }
            body = "slow".into();
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn echo(mut stream: TcpStream, _: &Backend) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.write_all(b"backend here\n");
    let mut buffer = [0; 1024];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 || stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
