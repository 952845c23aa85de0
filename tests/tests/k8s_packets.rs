//! From a Deployment to packets: pods that a controller asked for and the kubelet runs are backends of the data plane, `local` behind
//! the edge and `nat` behind another host.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ingress_agent::model::snapshot::Protocol::{Tcp, Udp};
use ingress_tests::cluster::endpoints::ready_when;
use ingress_tests::cluster::{ControlPlane, Kubelet, Node};
use ingress_tests::l4::{Snapshots, local, nat};
use ingress_tests::l4_lan::L4Lan;

const WEB: &str = r#"
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
        command: [demo_backend, "$(POD_NAME)"]
        env: [{ name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
        readinessProbe: { tcpSocket: { port: 9000 } }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: web }
  ports: [{ name: tcp, port: 9000 }, { name: udp, port: 9001, protocol: UDP }]
"#;

#[test]
fn pods_behind_the_edge_and_behind_another_host_are_reached_through_a_vip() {
    let lan = L4Lan::new("k8spkt").expect("make the LAN");
    let edge = Node::new("edge", &lan.edge, &["10.0.0.1", "fd00::1"], 1);
    let worker = Node::new("worker", &lan.backends[0], &["10.0.0.11", "fd00::11"], 2);
    worker.route_pods_from(&lan.edge).expect("routes to the worker's pods");
    let control = &lan.backends[2].ns;
    let cluster = ControlPlane::start("pkt", control, "10.0.0.13".parse().expect("an address")).expect("start it");
    let _kubelet = Kubelet::start(&cluster, vec![edge, worker]).expect("start the kubelet");
    cluster.apply(WEB).expect("apply");
    // Each pod twice, by its IPv4 and its IPv6 address.
    let endpoints = ready_when(&cluster, "web", 8);
    let mut dataplane = lan.open();
    for (name, protocol, port) in [("tcp", Tcp, 9000), ("udp", Udp, 9001)] {
        for vip in ["203.0.113.10", "2001:db8::10"] {
            let vip = SocketAddr::new(vip.parse().expect("an address"), port).to_string();
            for (node, keeps_client) in [("edge", true), ("worker", false)] {
                let there = endpoints.iter().filter(|e| e.node == node && e.address.is_ipv6() == vip.contains("db8"));
                let there: Vec<_> = there.collect();
                assert_eq!(there.len(), 2, "two pods on each node: {endpoints:?}");
                let backend = |address: &str| if keeps_client { local(address) } else { nat(address) };
                let backends: Vec<_> =
                    there.iter().map(|e| backend(&SocketAddr::new(e.address, port).to_string())).collect();
                let mut world = Snapshots::default();
                world.set(name, protocol, &vip, &backends);
                assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
                let mut answered = BTreeSet::new();
                // A hundred clients; that one of two pods has none of them is as good as impossible.
                for _ in 0..100 {
                    let mut asker =
                        lan.ask(protocol, 0, &vip).unwrap_or_else(|e| panic!("{node} {protocol} {vip}: {e:#}"));
                    let own = asker.local().expect("a local address");
                    let answer = asker.ask().unwrap_or_else(|e| panic!("{node} {protocol} {vip}: {e:#}"));
                    assert_eq!(answer.seen == own, keeps_client, "{node} {protocol} {vip}: it saw {}", answer.seen);
                    answered.insert(answer.name);
                }
                let named: BTreeSet<String> = there.iter().map(|e| e.name.clone()).collect();
                assert_eq!(answered, named, "{node} {protocol} {vip}");
            }
        }
    }
}
