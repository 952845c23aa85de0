//! Two real agents that share their flows: what the operator sees of it, and an agent that dies with its node.

use std::path::Path;

use ingress_tests::echo::Asker;
use ingress_tests::edge::Agent;
use ingress_tests::edges::Edges;
use ingress_tests::lan::Host;
use ingress_tests::place::Place;
use ingress_tests::wait::until;

/// Both edges, over IPv6; each finds itself among them.
const PEERS: &str = "fd00::1,fd00::3";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: demo, annotations: { sluicegate.io/vips: '10.0.0.100' } }
spec: { type: LoadBalancer, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, namespace: demo, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ port: 8080, protocol: TCP }]
endpoints:
  - { addresses: [10.0.0.11], nodeName: w1, conditions: { ready: true } }
  - { addresses: [10.0.0.12], nodeName: w2, conditions: { ready: true } }
  - { addresses: [10.0.0.13], nodeName: w3, conditions: { ready: true } }
";

fn start(host: &Host, place: &Place, key: &Path, hold: &str) -> Agent {
    place.manifest("echo.yaml", SERVICE).expect("write the manifest");
    let key = key.display().to_string();
    let arguments: [[&str; 2]; 6] = [
        ["--hold-vips", hold],
        ["--sync-peer", PEERS],
        ["--sync-key-file", &key],
        ["--hash-seed", "5eed"],
        ["--max-flows", "16384"],
        ["--workers", "1"],
    ];
    Agent::start(host, &place.directory, &place.pins, arguments.as_flattened()).expect("the agent becomes ready")
}

#[test]
fn connections_outlive_an_edge_and_the_status_shows_its_peer() {
    let edges = Edges::new("agsync").expect("make the LAN");
    let places = ["agsync-a", "agsync-b"].map(|label| Place::new(label).expect("a place"));
    let mut a = start(&edges.a, &places[0], &edges.key, "all");
    let b = start(&edges.b, &places[1], &edges.key, "none");
    until("the address answers", || edges.connect(30_000, false).ok()?.ask().ok());
    let mut connections: Vec<(Asker, _)> = (40_000..40_100)
        .map(|port| {
            let mut asker = edges.connect(port, false).expect("connect");
            let answer = asker.ask().expect("an answer");
            (asker, answer)
        })
        .collect();
    let metric = |agent: &Agent, name: &str| -> u64 {
        let (_, text) = agent.get("/metrics").expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.trim().parse::<f64>().expect("a number") as u64
    };
    until("they are shared", || {
        let taken = metric(&b, "sluicegate_sync_entries_received_total{result=\"taken\"}");
        (taken >= 100 && metric(&a, "sluicegate_sync_flows") >= 100).then_some(())
    });
    let peer = until("the peer is in step", || {
        let status = b.status().expect("status");
        let line = status.lines().find(|line| line.trim_start().starts_with("fd00::1 ")).map(str::to_owned);
        line.filter(|line| line.contains("in step"))
    });
    assert!(!peer.is_empty());
    assert_eq!(metric(&b, "sluicegate_sync_settled"), 1);

    a.kill().expect("kill -9");
    edges.a.ip(&["link", "set", "eth0", "down"]).expect("cut the link");
    edges.b.ip(&["addr", "add", "10.0.0.100/32", "dev", "eth0"]).expect("move the address");
    edges.forget_neighbours().expect("announce it");
    for (asker, before) in &mut connections {
        let answer = asker.ask().unwrap_or_else(|e| panic!("{:?}: {e:#}", asker.local()));
        assert_eq!(answer, *before);
    }
    until("the silent peer is shown", || b.status().ok().filter(|s| s.contains("silent for")));
    let (code, ready) = b.get("/readyz").expect("readyz");
    assert!(code == 200 && ready.contains("flow sync: fd00::1 is silent"), "{code}: {ready}");
    assert_eq!(metric(&b, "sluicegate_xdp_packets_total{verdict=\"flow_miss\"}"), 0);
}
