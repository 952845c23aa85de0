//! Two whole agents on one LAN that elect who has the addresses of a web site and of a TCP service, a backend, and a client.

use std::fs;
use std::path::PathBuf;

use aya::maps::{Map, MapData, PerCpuArray};
use serde_json::Value;
use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{SCHEMA, map};

use crate::edge::{Agent, sibling};
use crate::lan::Host;
use crate::place::Place;
use crate::vip_site::{Site, VIP4, VIP6, has, until_has};
use crate::visitors::{HOST_NAME, backend};
use crate::wait::until;

const PORT: u16 = 8080;
/// Between adverts. A kernel that isn't preempted may keep even a real-time thread waiting for a third of a second, while a neighbour
/// loads its programs; an owner that comes that late steps down, and these tests are about moves that somebody ordered.
const INTERVAL: &str = "--vrrp-interval-ms=500";
/// Of the TCP service, in XDP.
pub const TCP_PORT: u16 = 9000;

const MANIFESTS: &str = "
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
metadata: { name: edge, annotations: { ingressclass.kubernetes.io/is-default-class: 'true' } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web, namespace: demo }
spec:
  ingressClassName: edge
  rules:
    - host: HOST
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
endpoints: [{ addresses: [10.1.0.20], nodeName: elsewhere, conditions: { ready: true } }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: tcp, namespace: demo }
data: { '9000': 'demo/web:80' }
";

pub struct Edge {
    pub name: &'static str,
    pub host: Host,
    pub agent: Agent,
    /// Its cable, for [`Site::cable`].
    pub port: u32,
    pins: PathBuf,
    directory: PathBuf,
}

pub struct TwoAgents {
    pub site: Site,
    pub edges: [Edge; 2],
    _backend: Host,
    _place: Place,
}

impl TwoAgents {
    /// Both agents run, share their flows, and `edges[0]` is the one that has the addresses.
    pub fn new(label: &'static str, arguments: &[&str]) -> Self {
        let site = Site::new(label);
        let place = Place::new(label).expect("make a directory");
        let host = site.host(20);
        backend(&host, PORT).expect("serve");
        let key = place.directory.join("sync.key");
        fs::write(&key, "a key that both of them have\n").expect("write the key");
        let key = format!("--sync-key-file={}", key.display());
        let edge = |name: &'static str, n: u8, other: u8, port: u32| {
            let host = site.host(n);
            let directory = place.directory.join(name);
            fs::create_dir_all(directory.join("manifests")).expect("make its directory");
            let manifests = MANIFESTS.replace("HOST", HOST_NAME);
            fs::write(directory.join("manifests/demo.yaml"), manifests).expect("write its manifests");
            let pins = place.pins.join(name);
            let peer = format!("--sync-peer=10.1.0.{other}");
            let vips = [format!("--ingress-vip={VIP4}"), format!("--ingress-vip={VIP6}")];
            let election = ["--vip-mode=vrrp", INTERVAL, &vips[0], &vips[1]];
            let common = ["--node", name, "--workers=2", "--hash-seed=5eed"];
            let flows = ["--tcp-services-configmap=demo/tcp", "--max-flows=10000", &peer, &key];
            let all = [&common[..], &election, &flows, arguments].concat();
            let agent = Agent::start(&host, &directory, &pins, &all).expect("start the agent");
            Edge { name, host, agent, port, pins, directory }
        };
        let mut edges = [edge("a", 2, 3, 3), edge("b", 3, 2, 4)];
        // Without preemption it is the one that was up first, if that was long enough before the other.
        let stays = arguments.contains(&"--vrrp-nopreempt");
        let first = until("one has them, and nobody else", || {
            let has = edges.each_ref().map(|e| has(&e.host, VIP4) && has(&e.host, VIP6));
            let first = edges[0].elections()["routers"][0]["order"][0].as_str()? == "a";
            (has[0] != has[1] && (stays || has[0] == first)).then_some(has[0])
        });
        if !first {
            edges.swap(0, 1);
        }
        edges[1].until_state("backup");
        Self { site, edges, _backend: host, _place: place }
    }

    #[track_caller]
    pub fn until_on(&self, n: usize) {
        for vip in [VIP4, VIP6] {
            until_has(&self.edges[n].host, vip, true);
            until_has(&self.edges[1 - n].host, vip, false);
        }
    }
}

impl Drop for TwoAgents {
    /// A test that failed is seldom understood without what the agents said.
    fn drop(&mut self) {
        for edge in self.edges.iter().filter(|_| std::thread::panicking()) {
            let log = fs::read_to_string(edge.agent.log_path()).unwrap_or_else(|e| e.to_string());
            eprintln!("the agent on {} said:\n{log}", edge.name);
        }
    }
}

impl Edge {
    /// `sluicegate vip …`: exit code, output, errors.
    pub fn vip(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.host.ns.command(sibling("sluicegate").expect("it is built"));
        let out =
            command.arg("vip").args(arguments).arg("--admin-socket").arg(self.directory.join("admin.sock")).output();
        let out = out.expect("start it");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    pub fn elections(&self) -> Value {
        let (_, out, _) = self.vip(&["list", "-o", "json"]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    #[track_caller]
    pub fn until_state(&self, state: &str) {
        until(&format!("{} is {state}", self.name), || {
            (self.elections()["routers"][0]["state"] == state).then_some(())
        });
    }

    /// Packets with this verdict since the maps were made. The agent need not live.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        let path = self.pins.join(format!("v{SCHEMA}/maps/{}", map::VERDICTS));
        let data = MapData::from_pin(path).expect("a pinned map");
        let counters = PerCpuArray::<_, u64>::try_from(Map::from_map_data(data).expect("of a known type"));
        counters.expect("per CPU").get(&(verdict as u32), 0).expect("read it").iter().sum()
    }

    /// Addresses that its kernel delivers though they are on no interface.
    pub fn lingering(&self) -> String {
        let routes = |family| self.host.ip(&[family, "route", "show", "table", "local", "proto", "83"]);
        [routes("-4"), routes("-6")].map(|r| r.expect("show its routes")).concat()
    }
}
