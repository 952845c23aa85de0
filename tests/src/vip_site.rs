//! A LAN for elections: nodes that hold addresses, as many as a test wants, and a client. A node here is the holder of addresses alone,
//! in this process; where the whole agent matters, `edge::Agent` is started on the same hosts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ingress_agent::model::election::{VipGroup, VirtualRouter};
use ingress_agent::vip::{VipOptions, Vips, VrrpOptions};

use crate::lan::{Host, Lan};
use crate::outage::Outage;
use crate::wait::until;

pub const VIP4: &str = "10.1.0.100";
pub const VIP6: &str = "fd01::100";
pub const VRID: u8 = 51;

/// The switch, and a client that reaches every node.
#[derive(Debug)]
pub struct Site {
    pub lan: Lan,
    pub client: Host,
}

impl Site {
    pub fn new(label: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let client = lan.host("c", &["10.1.0.9/24", "fd01::9/64"]).expect("plug in the client");
        Self { lan, client }
    }

    /// `10.1.0.N` and `fd01::N`, reachable from the client.
    pub fn host(&self, n: u8) -> Host {
        let (v4, v6) = (format!("10.1.0.{n}"), format!("fd01::{n}"));
        let host =
            self.lan.host(&format!("n{n}"), &[&format!("{v4}/24"), &format!("{v6}/64")]).expect("plug in a node");
        for address in [&v4, &v6] {
            until("the LAN works", || self.client.run("ping", &["-c1", "-W1", address]).ok());
        }
        until("the link-local address can be used", || {
            let shown = host.ip(&["-6", "address", "show", "dev", "eth0", "scope", "link"]).ok()?;
            (shown.contains("fe80") && !shown.contains("tentative")).then_some(())
        });
        host
    }

    /// The cable of node `n`-th host that was plugged in (the client is the first): cut, or whole again.
    pub fn cable(&self, n: u32, whole: bool) {
        let state = if whole { "up" } else { "down" };
        self.lan.switch.ip(&["link", "set", &format!("p{n}"), state]).expect("set the switch's port");
    }

    pub fn watch(&self, address: &str) -> Outage {
        Outage::watch(&self.client, address).expect("watch the address")
    }
}

/// A holder on a host.
#[derive(Debug)]
pub struct Node {
    pub host: Host,
    pub vips: Option<Vips>,
}

pub fn group(vrid: u8, addresses: &[&str], priority: u8) -> VipGroup {
    let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
    VipGroup { vrid, addresses, order: Vec::new(), priority }
}

impl Node {
    pub fn start(host: &Host, options: VrrpOptions, groups: &[VipGroup]) -> Self {
        let options = VipOptions { interface: "eth0".into(), proc_sys: "/proc/sys".into(), vrrp: Some(options) };
        let vips = host.inside(|| Vips::start(options)).expect("start the holder");
        vips.elect(groups.to_vec().into());
        Self { host: host.clone(), vips: Some(vips) }
    }

    pub fn vips(&self) -> &Vips {
        self.vips.as_ref().expect("not released")
    }

    pub fn router(&self) -> Option<VirtualRouter> {
        self.vips().elections().routers.first().cloned()
    }

    pub fn rejected(&self, reason: &str) -> u64 {
        self.vips().elections().rejected.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
    }

    #[track_caller]
    pub fn until(&self, state: &str) {
        until(&format!("the node is {state}: {:?}", self.router()), || {
            self.router().filter(|r| r.state == state).map(drop)
        });
    }

    /// Polite: priority 0, then the addresses go.
    pub fn release(mut self) {
        let vips = self.vips.take().expect("not released yet");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(vips.release()).expect("release");
    }
}

/// The link-layer address of a host's `eth0`.
pub fn mac(host: &Host) -> String {
    let shown = host.ip(&["-j", "link", "show", "eth0"]).expect("show its link");
    let links: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    links[0]["address"].as_str().expect("its MAC").to_owned()
}

/// Whether the kernel of a host has the address.
pub fn has(host: &Host, address: &str) -> bool {
    let shown = host.ip(&["-o", "address", "show", "dev", "eth0"]).unwrap_or_default();
    shown.split_whitespace().any(|word| word.split('/').next() == Some(address))
}

#[track_caller]
pub fn until_has(host: &Host, address: &str, wanted: bool) {
    until(&format!("{} {} {address}", host.name, if wanted { "has" } else { "does not have" }), || {
        (has(host, address) == wanted).then_some(())
    });
}

pub fn options(interval_ms: u64) -> VrrpOptions {
    VrrpOptions { interval: Duration::from_millis(interval_ms), ..VrrpOptions::default() }
}

/// Two nodes, `a` and `b`, and a TCP service on port 9000 of both addresses with one endpoint.
pub fn manifests(endpoint: &str) -> String {
    SERVICE.replace("ENDPOINT", endpoint)
}

const SERVICE: &str = "
apiVersion: v1
kind: Node
metadata: { name: a }
---
apiVersion: v1
kind: Node
metadata: { name: b }
---
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: demo, annotations: { sluicegate.io/vips: '10.1.0.100,fd01::100' } }
spec: { type: LoadBalancer, ports: [{ port: 9000 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, namespace: demo, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ port: 9000, protocol: TCP }]
endpoints: [{ addresses: [ENDPOINT], nodeName: elsewhere, conditions: { ready: true } }]
";

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The list that [`ingress_agent::vip::Vips::elect`] takes.
pub fn groups(groups: &[VipGroup]) -> Arc<[VipGroup]> {
    groups.to_vec().into()
}
