//! Clients that ask all the while, at L4 and at L7, and a backend for them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ingress_tests::edge::sibling;
use ingress_tests::lan::Host;
use ingress_tests::load::web::{self, Pace, Site};
use ingress_tests::load::{self, Outcome, Stop};
use ingress_tests::netns::Running;
use ingress_tests::wait;
use tokio::sync::watch;

use crate::world::{PATIENCE, World};

/// On `10.1.0.N`; it answers on 8080 (HTTP) and 9000.
pub(crate) struct Backend {
    address: String,
    _running: Running,
    _host: Host,
}

impl Backend {
    pub(crate) fn start(w: &World, name: &str, n: u8) -> Self {
        let address = format!("10.1.0.{n}");
        let host = w.lan.host(&format!("b{n}"), &[&format!("{address}/24")]).expect("plug in a host");
        host.receive_xdp().expect("take XDP frames");
        let mut command = Command::new(sibling("demo_backend").expect("a backend's binary"));
        let running = host.ns.spawn(command.arg(name).stdout(Stdio::null())).expect("start a backend");
        Self { address, _running: running, _host: host }
    }

    pub(crate) fn slice(&self, service: &str, port: u16) -> String {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {service}-1, namespace: demo, labels: {{ kubernetes.io/service-name: {service} }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: [{}], nodeName: worker, conditions: {{ ready: true }} }}]
---
",
            self.address
        )
    }

    /// The Service `web`, for Ingresses, on ports 80 and 9000.
    pub(crate) fn web(&self) -> String {
        let service = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: demo }
spec: { ports: [{ name: http, port: 80, targetPort: 8080 }, { name: also, port: 9000, targetPort: 8080 }] }
---
";
        let slice = self.slice("web", 8080).replace(
            "ports: [{ port: 8080, protocol: TCP }]",
            "ports: [{ name: http, port: 8080, protocol: TCP }, { name: also, port: 8080, protocol: TCP }]",
        );
        service.to_owned() + &slice
    }
}

/// New TCP connections to one VIP and HTTP requests to another.
pub(crate) struct Traffic {
    stop: watch::Sender<bool>,
    thread: JoinHandle<[Outcome; 2]>,
    _client: Host,
}

impl Traffic {
    /// Waits until both answer.
    pub(crate) fn start(w: &World, l4: &str, (vip, host): (&str, &str)) -> Self {
        let client = w.lan.host("c", &["10.1.0.4/24"]).expect("plug in a host");
        client.receive_xdp().expect("take XDP frames");
        let at = |vip: &str, port| SocketAddr::new(vip.parse().expect("an address"), port);
        let (l4, site) = (at(l4, 9000), Site::plain(at(vip, 80), host, "/"));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        wait::within(PATIENCE, "both are served", || {
            client.inside(|| {
                runtime().block_on(async {
                    let (connected, mut connection) =
                        (load::tcp(l4, 1).await.ok()?, web::Connection::open(&site).await.ok()?);
                    (!connected.is_empty() && connection.get().await.is_ok()).then_some(())
                })
            })
        });
        let (stop, stopped) = Stop::by_hand();
        let ns = client.ns.clone();
        let thread = std::thread::spawn(move || {
            ns.enter_thread().expect("enter the client's namespace");
            let pace = Pace { workers: 4, requests_a_connection: 10, pause: Duration::from_millis(2) };
            let all =
                async { tokio::join!(load::connect(l4, stopped.clone()), web::load(&site, pace, stopped.clone())) };
            runtime().block_on(all).into()
        });
        Self { stop, thread, _client: client }
    }

    #[track_caller]
    pub(crate) fn end_without_a_failure(self) {
        self.stop.send_replace(true);
        for (outcome, what) in self.thread.join().expect("the load runs").into_iter().zip(["connections", "requests"]) {
            assert_eq!(outcome.failures, [], "{what}");
            assert!(outcome.ok > 100, "{} {what}", outcome.ok);
        }
    }
}
