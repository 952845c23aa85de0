//! Two real agents with one rate limit: what a client takes at one edge is gone at the other, and a limit that does not ask for it is each
//! edge's own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use ingress_tests::edge::Agent;
use ingress_tests::edges::{A, B, Edges};
use ingress_tests::http::raw::get;
use ingress_tests::lan::Host;
use ingress_tests::place::Place;
use ingress_tests::visitors::backend;
use ingress_tests::wait::until;

/// Each edge has an address of its own, so that a client can choose.
const VIPS: [&str; 2] = ["10.0.0.100", "10.0.0.101"];
const SHARED: &str = "shared.example";
const OWN: &str = "own.example";
/// `limit-rpm: 2`: one each 30 s, and five times two at once besides.
const AT_ONCE: usize = 11;
const PERIOD_SECONDS: u64 = 30;
/// More than anybody lets through.
const MANY: usize = 25;

const MANIFESTS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: edge, annotations: { ingressclass.kubernetes.io/is-default-class: 'true' } }
spec: { controller: sluicegate.io/ingress-controller }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shared
  namespace: demo
  annotations: { nginx.ingress.kubernetes.io/limit-rpm: '2', sluicegate.io/limit-shared: 'true' }
spec:
  rules:
    - host: shared.example
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: own, namespace: demo, annotations: { nginx.ingress.kubernetes.io/limit-rpm: '2' } }
spec:
  rules:
    - host: own.example
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
endpoints: [{ addresses: [10.0.0.20], nodeName: elsewhere, conditions: { ready: true } }]
";

/// `peers`: of the flow sync; empty: it is off.
fn start(host: &Host, place: &Place, key: &Path, vip: &str, peers: &str) -> Agent {
    place.manifest("web.yaml", MANIFESTS).expect("write the manifests");
    let key = key.display().to_string();
    let common = ["--ingress-vip", vip, "--max-flows", "16384", "--workers", "2"];
    let sync = ["--sync-peer", peers, "--sync-key-file", &key, "--hash-seed", "5eed"];
    let arguments = if peers.is_empty() { common.to_vec() } else { [common, sync].concat() };
    Agent::start(host, &place.directory, &place.pins, &arguments).expect("the agent becomes ready")
}

/// How many of `n` requests pass; the others are refused with 503.
fn ask(client: &Host, vip: &str, host: &str, n: usize) -> usize {
    let to = format!("{vip}:80").parse().expect("an address");
    let answers: Vec<u16> = client.inside(|| (0..n).map(|_| get(to, host, "/").status).collect());
    assert!(answers.iter().all(|status| matches!(status, 200 | 503)), "{answers:?}");
    answers.iter().filter(|status| **status == 200).count()
}

/// What time gave back since the client began, at all edges together.
fn regained(since: Instant) -> usize {
    (since.elapsed().as_secs() / PERIOD_SECONDS) as usize
}

fn requests(agent: &Agent, result: &str) -> usize {
    let (_, text) = agent.get("/metrics").expect("metrics");
    let name = format!("sluicegate_sync_limited_requests_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.trim().parse().expect("a number")
}

fn until_answers(client: &Host, vip: &str) {
    let to: SocketAddr = format!("{vip}:80").parse().expect("an address");
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok();
    until(&format!("{to} answers"), || client.inside(connect).map(drop));
}

#[test]
fn two_edges_drain_one_bucket_and_one_of_them_goes_on_alone() {
    let edges = Edges::new("aglimit").expect("make the LAN");
    let web = edges.lan.host("web", &["10.0.0.20/24"]).expect("plug in the backend");
    backend(&web, 8080).expect("serve");
    let clients: Vec<Host> = (0..4)
        .map(|n| edges.lan.host(&format!("c{n}"), &[&format!("10.0.0.3{n}/24")]).expect("plug in a client"))
        .collect();
    let places = ["aglimit-a", "aglimit-b"].map(|label| Place::new(label).expect("a place"));
    let hosts = [&edges.a, &edges.b];
    let mut agents: Vec<Agent> =
        (0..2).map(|n| start(hosts[n], &places[n], &edges.key, VIPS[n], &format!("{A},{B}"))).collect();
    for client in &clients {
        for vip in VIPS {
            until_answers(client, vip);
        }
    }

    // All at one edge: the other one hears of it, and lets nothing through.
    let (began, mut passed) = (Instant::now(), [0, 0]);
    passed[0] += ask(&clients[0], VIPS[0], SHARED, MANY);
    assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&passed[0]), "{passed:?}");
    until("the other edge heard of it", || (requests(&agents[1], "heard") == passed[0]).then_some(()));
    passed[1] += ask(&clients[0], VIPS[1], SHARED, MANY);
    assert!(passed[0] + passed[1] <= AT_ONCE + regained(began), "{passed:?}");

    // By turns, each of them after the last was heard of: together they are as one.
    let (began, mut of_client) = (Instant::now(), 0);
    for turn in 0..10 {
        let (here, there) = (turn % 2, 1 - turn % 2);
        let n = ask(&clients[1], VIPS[here], SHARED, 2);
        (passed[here], of_client) = (passed[here] + n, of_client + n);
        until("it is heard of", || (requests(&agents[there], "heard") == passed[here]).then_some(()));
    }
    assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&of_client), "{of_client}");

    // Whoever comes to one edge only has the whole of it there.
    let began = Instant::now();
    let alone = ask(&clients[2], VIPS[1], SHARED, MANY);
    assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&alone), "{alone}");
    passed[1] += alone;

    // Without the annotation each edge lets all of it through.
    for vip in VIPS {
        let began = Instant::now();
        let own = ask(&clients[0], vip, OWN, MANY);
        assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&own), "{vip}: {own}");
    }
    until("all is told", || (requests(&agents[1], "told") == passed[1]).then_some(()));
    assert_eq!((requests(&agents[0], "left_out"), requests(&agents[1], "left_out")), (0, 0));

    // The other edge is gone; what was heard of it stays, and everybody else is served as before.
    agents[0].kill().expect("kill -9");
    let began = Instant::now();
    let alone = ask(&clients[3], VIPS[1], SHARED, MANY);
    assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&alone), "{alone}");
}

#[test]
fn an_edge_without_peers_limits_by_itself_and_says_so() {
    let edges = Edges::new("aglimit1").expect("make the LAN");
    let web = edges.lan.host("web", &["10.0.0.20/24"]).expect("plug in the backend");
    backend(&web, 8080).expect("serve");
    let place = Place::new("aglimit1-a").expect("a place");
    let agent = start(&edges.a, &place, &edges.key, VIPS[0], "");
    until_answers(&edges.client, VIPS[0]);
    let began = Instant::now();
    let passed = ask(&edges.client, VIPS[0], SHARED, MANY);
    assert!((AT_ONCE..=AT_ONCE + regained(began)).contains(&passed), "{passed}");
    let status = agent.status().expect("status");
    assert!(status.contains("limit-shared") && status.contains("--sync-peer"), "{status}");
}
