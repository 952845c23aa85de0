//! From manifests to packets: what Services say about addresses and endpoints, planned and applied, then asked by a real client.

use std::sync::Arc;
use std::time::SystemTime;

use ingress_agent::dataplane::Dataplane;
use ingress_agent::model::snapshot::{ObjectName, Protocol::Tcp, Snapshot};
use ingress_agent::plan::{Plan, PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::l4_lan::{L4Lan, PORT};

/// Manifests, what was planned from them last, and the data plane that has it.
struct Edge {
    store: Store,
    last: Option<Plan>,
    dataplane: Dataplane,
}

impl Edge {
    fn new(lan: &L4Lan) -> Self {
        Self { store: Store::new(SourceOptions::default()), last: None, dataplane: lan.open() }
    }

    fn put(&mut self, name: &str, text: &str) -> Arc<Snapshot> {
        self.store.put(name, Ok(text));
        let facts = self.store.publish(SystemTime::UNIX_EPOCH, &[]).expect("a change");
        let options = PlanOptions { node: "edge-1".to_owned(), ..PlanOptions::default() };
        let planned = plan(&facts, &options, self.last.as_ref());
        let applied = self.dataplane.apply(&planned.snapshot).expect("apply");
        assert_eq!(applied.problems, [""; 0]);
        let snapshot = Arc::clone(&planned.snapshot);
        self.last = Some(planned);
        snapshot
    }

    fn endpoints(&mut self, endpoints: &str) -> Arc<Snapshot> {
        let slice = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{{port: {PORT}}}]\nendpoints: [{endpoints}]\n"
        );
        self.put("slice.yaml", &slice)
    }
}

fn service(more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{type: LoadBalancer, loadBalancerClass: sluicegate.io/xdp, ports: [{{port: 80}}]{more}}}\n"
    )
}

const POOL: &str = "apiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {name: public}\n\
    spec: {addresses: [203.0.113.16/30]}\n";

/// Who answers a new connection to the address that the Service was given.
fn answers(lan: &L4Lan, snapshot: &Snapshot) -> (String, String) {
    let given = &snapshot.assigned.services[&ObjectName::new("shop", "web")];
    let [vip] = given.as_slice() else { panic!("{given:?}, {:?}", snapshot.rejections) };
    let mut asker = lan.ask(Tcp, 0, &format!("{vip}:80")).expect("connect");
    let answer = asker.ask().expect("an answer");
    (answer.name, answer.seen.ip().to_string())
}

#[test]
fn an_address_from_a_pool_is_reached_and_terminating_endpoints_are_the_last_resort() {
    let lan = L4Lan::new("svcpool").expect("make the LAN");
    let mut edge = Edge::new(&lan);
    edge.put("pool.yaml", POOL);
    edge.put("service.yaml", &service(""));
    let snapshot = edge.endpoints("{addresses: [10.0.0.11]}");
    let vip = snapshot.assigned.services.values().flatten().next().expect("an address").to_string();
    assert_eq!(answers(&lan, &snapshot), ("b1".to_owned(), vip.clone()));

    // KEP-1669: nobody is ready, and one that terminates still serves.
    const LEAVING: &str = "{addresses: [10.0.0.11], conditions: {ready: false, serving: true, terminating: true}}";
    let snapshot = edge.endpoints(LEAVING);
    assert_eq!(answers(&lan, &snapshot), ("b1".to_owned(), vip.clone()));
    // It has no more new flows as soon as another is ready.
    let snapshot = edge.endpoints(&format!("{LEAVING}, {{addresses: [10.0.0.12]}}"));
    for _ in 0..16 {
        assert_eq!(answers(&lan, &snapshot), ("b2".to_owned(), vip.clone()));
    }
}

#[test]
fn traffic_policy_local_goes_to_this_node_and_shows_the_client() {
    let mut lan = L4Lan::new("svclocal").expect("make the LAN");
    let _pod = lan.pod().expect("make a pod");
    let mut edge = Edge::new(&lan);
    edge.put("pool.yaml", POOL);
    edge.put("service.yaml", &service(", externalTrafficPolicy: Local"));
    const ELSEWHERE: &str = "{addresses: [10.0.0.11], nodeName: edge-2}, {addresses: [10.0.0.12]}";
    let snapshot = edge.endpoints(&format!("{ELSEWHERE}, {{addresses: [10.9.0.2], nodeName: edge-1}}"));
    for _ in 0..16 {
        assert_eq!(answers(&lan, &snapshot), ("pod".to_owned(), "10.0.0.2".to_owned()));
    }

    // Nobody is left here: no other node's endpoint stands in, and the owner reads it.
    let snapshot = edge.endpoints(ELSEWHERE);
    let told: Vec<_> = snapshot.rejections.iter().map(|r| r.field.as_str()).collect();
    assert_eq!(told, ["spec.externalTrafficPolicy"]);
    let key = *snapshot.frontends.keys().next().expect("a frontend");
    let (client, vip) = ("10.0.0.2:40000".parse().expect("an address"), std::net::SocketAddr::new(key.vip, key.port));
    let told = edge.dataplane.explain(Tcp, client, vip).expect("explain");
    assert_eq!(told.backend, None, "{told:#?}");

    // For everybody again: the same frontend has the others.
    let snapshot = edge.put("service.yaml", &service(""));
    let (name, seen) = answers(&lan, &snapshot);
    assert!(name == "b1" || name == "b2", "{name}");
    assert_eq!(seen, key.vip.to_string());
}
