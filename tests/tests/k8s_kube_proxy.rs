//! kube-proxy on the edge node. XDP comes before its rules, and a Service's status says `ipMode: Proxy`, so that it makes none for our
//! addresses; and its own Services, by node port and cluster address, are served as if we were not there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ingress_agent::model::snapshot::Protocol::{self, Tcp, Udp};
use ingress_tests::cluster::endpoints::ready_when;
use ingress_tests::cluster::{ControlPlane, Kubelet, Node, PATIENCE, kube_proxy};
use ingress_tests::deploy;
use ingress_tests::echo::{Answer, Asker, any};
use ingress_tests::edge::Agent;
use ingress_tests::http::raw::Raw;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::{Namespace, Running};
use ingress_tests::place::Place;
use ingress_tests::wait::within;

const CLIENT: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Of the Service with `externalTrafficPolicy: Cluster`.
const CLUSTER: [&str; 2] = ["10.1.0.100", "fd01::100"];
/// Of the one with `Local`.
const LOCAL: [&str; 2] = ["10.1.0.101", "fd01::101"];
const INGRESS: &str = "10.1.0.102";
const NODE_PORT: u16 = 30900;

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 4
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
      - name: web
        image: none
        command: [demo_backend, $(POD_NAME)]
        env: [{ name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
        readinessProbe: { tcpSocket: { port: 9000 } }
---
apiVersion: v1
kind: Service
metadata: { name: cluster, annotations: { sluicegate.io/vips: '10.1.0.100, fd01::100' } }
spec:
  type: LoadBalancer
  loadBalancerClass: sluicegate.io/xdp
  ipFamilyPolicy: RequireDualStack
  selector: { app: web }
  ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9001, protocol: UDP }]
---
apiVersion: v1
kind: Service
metadata: { name: local, annotations: { sluicegate.io/vips: '10.1.0.101, fd01::101' } }
spec:
  type: LoadBalancer
  loadBalancerClass: sluicegate.io/xdp
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: { app: web }
  ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9001, protocol: UDP }]
---
apiVersion: v1
kind: Service
metadata: { name: plain }
spec:
  type: NodePort
  clusterIP: 10.96.0.77
  selector: { app: web }
  ports: [{ name: tcp, port: 9000, nodePort: 30900 }, { name: http, port: 80, targetPort: 8080 }]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop }
spec:
  ingressClassName: sluicegate
  rules: [{ host: shop.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: plain, port: { name: http } } } }] } }]
";

/// Names the address of Ingresses as its own.
const THIEF: &str = "
apiVersion: v1
kind: Service
metadata: { name: thief }
spec: { selector: { app: web }, externalIPs: [10.1.0.102], ports: [{ port: 80, targetPort: 9000 }] }
";

/// Each ends before what it needs.
struct World {
    proxy: Running,
    _agent: Agent,
    _kubelet: Kubelet,
    cluster: ControlPlane,
    client: Host,
    edge: Node,
    mode: &'static str,
    _place: Place,
    _hosts: Vec<Host>,
    _lan: Lan,
}

impl World {
    fn new(mode: &'static str) -> Self {
        let label = format!("kp{}", &mode[..3]);
        let lan = Lan::new(&label).expect("make a LAN");
        let host = |name: &str, n: u8| {
            let addresses = [format!("10.1.0.{n}/24"), format!("fd01::{n}/64")];
            lan.host(name, &[&addresses[0], &addresses[1]]).expect("plug in a host")
        };
        let (edge, client, worker, control) = (host("edge", 1), host("client", 2), host("worker", 3), host("cp", 9));
        // A cluster address has no route of its own; kube-proxy's rules meet it on the way to the default one.
        edge.route_by(&["10.1.0.254", "fd01::254"]).expect("default routes");
        for other in [&client, &worker] {
            other.receive_xdp().expect("a pass program");
        }
        let cluster = ControlPlane::start(&label, &control.ns, [10, 1, 0, 9].into()).expect("start a control plane");
        let edge = Node::new("edge", &edge, &["10.1.0.1", "fd01::1"], 1);
        let worker_node = Node::new("worker", &worker, &["10.1.0.3", "fd01::3"], 2);
        worker_node.route_pods_from(&edge.host).expect("routes to the worker's pods");
        let kubelet = Kubelet::start(&cluster, vec![edge.clone(), worker_node]).expect("start the kubelet");
        // As it is shipped, rights included; no node here has the label for its DaemonSet.
        let base = deploy::path("kustomize/base").display().to_string();
        cluster.kubectl(&["apply", "-k", &base], "").expect("apply what is shipped");
        let vips = format!("sluicegate.io/vips={INGRESS}");
        cluster.kubectl(&["annotate", "ingressclass", "sluicegate", &vips], "").expect("give Ingresses an address");
        cluster.apply(APP).expect("apply the app");
        let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate").expect("a kubeconfig");
        let place = Place::new(&label).expect("a place");
        let arguments = ["--max-flows=10000", "--workers=1"];
        let mut agent = Agent::of_cluster(&edge.host, &place.directory, &place.pins, &kubeconfig, &arguments);
        agent.start_again().expect("start the agent");
        let proxy = kube_proxy::start(&cluster, &edge, mode).expect("start kube-proxy");
        let hosts = vec![worker, control];
        Self {
            proxy,
            _agent: agent,
            _kubelet: kubelet,
            cluster,
            client,
            edge,
            mode,
            _place: place,
            _hosts: hosts,
            _lan: lan,
        }
    }

    /// kube-proxy's rules, as the kernel has them.
    fn rules(&mut self) -> String {
        assert!(self.proxy.0.try_wait().expect("wait").is_none(), "kube-proxy ended; see its log");
        let programs: &[(&str, &[&str])] = match self.mode {
            "nftables" => &[("nft", &["list", "ruleset"])],
            _ => &[("iptables-save", &[]), ("ip6tables-save", &[])],
        };
        programs.iter().map(|(program, arguments)| self.edge.host.run(program, arguments).expect("list")).collect()
    }

    #[track_caller]
    fn rules_get(&mut self, what: &[&str]) {
        within(PATIENCE, &format!("kube-proxy has rules for {what:?}"), || {
            let rules = self.rules();
            what.iter().all(|what| rules.contains(what)).then_some(())
        });
    }

    /// Who answers, each of a hundred clients, and whether all of them were seen by their own address.
    #[track_caller]
    fn ask(&self, from: &Namespace, protocol: Protocol, to: &str) -> (BTreeSet<String>, bool) {
        let to: SocketAddr = to.parse().expect("an address");
        let ask = || -> anyhow::Result<(Answer, bool)> {
            let local = any(match (std::ptr::eq(from, &*self.client.ns), to.is_ipv6()) {
                (true, v6) => CLIENT[usize::from(v6)],
                (false, false) => "0.0.0.0",
                (false, true) => "::",
            });
            let mut asker = match protocol {
                Tcp => Asker::tcp(from, local, to)?,
                Udp => Asker::udp(from, local, to)?,
            };
            let answer = asker.ask()?;
            // Not always by its port: that may be in use towards the same pod by way of another VIP.
            let kept = answer.seen.ip() == asker.local()?.ip();
            Ok((answer, kept))
        };
        let answers: Vec<_> = (0..100).map(|_| ask().unwrap_or_else(|e| panic!("{protocol} {to}: {e:#}"))).collect();
        let kept = answers.iter().all(|(_, kept)| *kept);
        (answers.into_iter().map(|(answer, _)| answer.name).collect(), kept)
    }

    fn http(&self) -> Option<(u16, String)> {
        let stream = self.client.inside(|| {
            let address = format!("{INGRESS}:80").parse().expect("an address");
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
        let response = Raw::over(stream).send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_owned()).response()?;
        Some((response.status, response.text()))
    }

    /// All that must work whatever kube-proxy has rules for.
    #[track_caller]
    fn everything_works(&self, pods: &[BTreeSet<String>; 2]) {
        let all: BTreeSet<String> = pods.iter().flatten().cloned().collect();
        for v6 in [0, 1] {
            for (protocol, port) in [(Tcp, 9000), (Udp, 9001)] {
                let to = |vips: [&str; 2]| SocketAddr::new(vips[v6].parse().expect("an address"), port).to_string();
                let (answered, kept) = self.ask(&self.client, protocol, &to(CLUSTER));
                assert_eq!(answered, all, "{protocol} {}: pods here and elsewhere", to(CLUSTER));
                assert!(!kept, "those elsewhere see the VIP");
                let (answered, kept) = self.ask(&self.client, protocol, &to(LOCAL));
                assert_eq!(answered, pods[0], "{protocol} {}: the pods here", to(LOCAL));
                assert!(kept, "{protocol} {}: they see the client", to(LOCAL));
            }
        }
        for (from, to) in [(&self.client, format!("10.1.0.1:{NODE_PORT}")), (&self.edge.host, "10.96.0.77:9000".into())]
        {
            assert_eq!(self.ask(from, Tcp, &to).0, all, "kube-proxy's own {to}");
        }
    }
}

fn everything_works_beside_kube_proxy(mode: &'static str) {
    let mut world = World::new(mode);
    let endpoints = ready_when(&world.cluster, "cluster", 8);
    let pods = ["edge", "worker"].map(|node| {
        let there = endpoints.iter().filter(|endpoint| endpoint.node == node);
        there.map(|endpoint| endpoint.name.clone()).collect::<BTreeSet<String>>()
    });
    assert!(pods.iter().all(|pods| pods.len() == 2), "two pods on each node: {endpoints:?}");
    for (service, vips) in [("cluster", CLUSTER), ("local", LOCAL)] {
        let expected = vips.map(|vip| format!("{vip}/Proxy ")).concat();
        let path = "jsonpath={range .status.loadBalancer.ingress[*]}{.ip}/{.ipMode} {end}";
        within(PATIENCE, &format!("the status of {service} is {expected}"), || {
            let status = world.cluster.kubectl(&["get", "service", service, "-o", path], "").ok()?;
            (status == expected).then_some(())
        });
    }
    world.rules_get(&["30900", "10.96.0.77"]);
    within(PATIENCE, "the Ingress is served", || (world.http()?.0 == 200).then_some(()));
    world.everything_works(&pods);
    let rules = world.rules();
    for vip in CLUSTER.iter().chain(&LOCAL).chain(&[INGRESS]) {
        assert!(!rules.contains(vip), "kube-proxy answers for {vip}, though the mode is Proxy:\n{rules}");
    }

    // Now it does have rules for our addresses. Packets that XDP forwards never meet them.
    for (service, vips) in [("cluster", CLUSTER), ("local", LOCAL)] {
        let patch = format!("{{\"spec\": {{\"externalIPs\": [\"{}\", \"{}\"]}}}}", vips[0], vips[1]);
        world.cluster.kubectl(&["patch", "service", service, "-p", &patch], "").expect("name them as externalIPs");
    }
    world.rules_get(&[CLUSTER[0], CLUSTER[1], LOCAL[0], LOCAL[1]]);
    world.everything_works(&pods);

    // What the proxy serves does meet them, and the owner of the Service is told.
    world.cluster.apply(THIEF).expect("apply");
    world.rules_get(&[INGRESS]);
    let (answered, _) = world.ask(&world.client, Tcp, &format!("{INGRESS}:80"));
    assert_eq!(answered, pods.iter().flatten().cloned().collect(), "kube-proxy sends them to its endpoints");
    let told = "before the proxy sees them";
    within(PATIENCE, "its owner is told", || {
        world.cluster.kubectl(&["describe", "service", "thief"], "").ok()?.contains(told).then_some(())
    });
    world.cluster.kubectl(&["delete", "service", "thief"], "").expect("delete");
    within(PATIENCE, "the Ingress is served again", || (world.http()?.0 == 200).then_some(()));
}

#[test]
fn everything_works_beside_kube_proxy_in_nftables_mode() {
    everything_works_beside_kube_proxy("nftables");
}

#[test]
fn everything_works_beside_kube_proxy_in_iptables_mode() {
    everything_works_beside_kube_proxy("iptables");
}
