//! One of the two nodes: an agent of ours, or keepalived.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::pair::Facts;
use crate::edge::{Agent, sibling};
use crate::keepalived::{Instance, Keepalived};
use crate::lan::Host;
use crate::place::Place;

/// Whose nodes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Ours,
    Keepalived,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Ours { "ours" } else { "keepalived" })
    }
}

/// Two services on both addresses: TCP and UDP at L4, and a site at L7. `NAMESPACE` is for an API server, which wants to know it first.
pub(super) const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: { name: a }
---
apiVersion: v1
kind: Node
metadata: { name: b }
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: sluicegate, annotations: { sluicegate.io/vips: '10.1.0.100,fd01::100' } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: demo, annotations: { sluicegate.io/vips: '10.1.0.100,fd01::100' } }
spec:
  type: LoadBalancer
  loadBalancerClass: sluicegate.io/xdp
  ipFamilyPolicy: PreferDualStack
  ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9003, protocol: UDP }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-4, namespace: demo, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9003, protocol: UDP }]
endpoints: [{ addresses: [10.1.0.50], conditions: { ready: true } }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-6, namespace: demo, labels: { kubernetes.io/service-name: echo } }
addressType: IPv6
ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9003, protocol: UDP }]
endpoints: [{ addresses: ['fd01::50'], conditions: { ready: true } }]
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: demo }
spec: { ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-4, namespace: demo, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ port: 8080 }]
endpoints: [{ addresses: [10.1.0.50], conditions: { ready: true } }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web, namespace: demo }
spec:
  ingressClassName: sluicegate
  rules:
    - host: shop.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
";
pub(super) const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: { name: demo }\n---";

pub(super) enum Router {
    Ours(Box<Agent>),
    Theirs { running: Option<Keepalived>, priority: u8 },
}

pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) host: Host,
    /// Of its cable, at the switch.
    pub(super) port: u32,
    pub(super) router: Router,
    pub(super) directory: PathBuf,
    pub(super) pins: PathBuf,
}

/// What both nodes have in common.
pub(super) struct Common<'a> {
    pub(super) who: Who,
    pub(super) place: &'a Place,
    pub(super) interval_ms: u32,
    pub(super) facts: Facts,
    pub(super) kubeconfig: Option<&'a Path>,
}

impl Node {
    pub(super) fn new(common: &Common<'_>, name: &'static str, host: Host, port: u32) -> Result<Self> {
        let Common { place, interval_ms, .. } = common;
        let directory = place.directory.join(name);
        fs::create_dir_all(directory.join("manifests"))?;
        let pins = place.pins.join(name);
        let router = match common.who {
            Who::Ours => {
                let key = place.directory.join("sync.key").display().to_string();
                let interval = interval_ms.to_string();
                let arguments = [
                    ["--node", name],
                    ["--vip-mode", "vrrp"],
                    ["--vrrp-interval-ms", &interval],
                    ["--hash-seed", "5eed"],
                    ["--workers", "1"],
                    ["--sync-peer", "10.1.0.2,10.1.0.3"],
                    ["--sync-key-file", &key],
                ];
                let arguments = arguments.as_flattened();
                let agent = match common.facts {
                    Facts::Manifests => {
                        fs::write(directory.join("manifests/demo.yaml"), OBJECTS)?;
                        Agent::start(&host, &directory, &pins, arguments)?
                    }
                    Facts::ApiServer => {
                        let kubeconfig = common.kubeconfig.context("a kubeconfig")?;
                        let mut agent = Agent::of_cluster(&host, &directory, &pins, kubeconfig, arguments);
                        agent.start_again()?;
                        agent
                    }
                };
                Router::Ours(Box::new(agent))
            }
            Who::Keepalived => {
                let priority = if name == "a" { 150 } else { 100 };
                Router::Theirs { running: Some(keepalived(name, &host, priority, *interval_ms)?), priority }
            }
        };
        Ok(Self { name, host, port, router, directory, pins })
    }

    /// `sluicegate vip ARGUMENTS`, and what it printed.
    pub(super) fn vip(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.host.ns.command(sibling("sluicegate")?);
        command.arg("vip").args(arguments).arg("--admin-socket").arg(self.directory.join("admin.sock"));
        let out = command.output()?;
        anyhow::ensure!(out.status.success(), "vip {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// How often it has become the owner since it runs.
    pub(super) fn takeovers(&self) -> Result<u64> {
        match &self.router {
            Router::Ours(_) => {
                let elections: serde_json::Value = serde_json::from_str(&self.vip(&["list", "-o", "json"])?)?;
                let routers = elections["routers"].as_array().context("a list of routers")?;
                routers.iter().map(|r| r["became_active"].as_u64().context("a count")).sum()
            }
            Router::Theirs { running, .. } => {
                let log = running.as_ref().context("keepalived runs")?.log();
                Ok(log.matches("Entering MASTER STATE").count() as u64)
            }
        }
    }

    pub(super) fn last_words(&self) -> String {
        match &self.router {
            Router::Ours(agent) => agent.last_words(),
            Router::Theirs { running, .. } => running.as_ref().map(Keepalived::log).unwrap_or_default(),
        }
    }
}

pub(super) fn keepalived(name: &str, host: &Host, priority: u8, interval_ms: u32) -> Result<Keepalived> {
    let advert_int = format!("{}", f64::from(interval_ms) / 1000.0);
    let addresses = &["10.1.0.100/32"];
    let more = "virtual_ipaddress_excluded {\n    fd01::100/128\n  }";
    Keepalived::start(
        host,
        &format!("b{name}"),
        &Instance { priority, advert_int: &advert_int, addresses, more, ..Instance::default() },
    )
}
