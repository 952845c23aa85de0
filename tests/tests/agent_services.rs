//! Services as an operator runs them: the agent's binary, an address from a pool, a port with the PROXY protocol.

#[path = "agent_run/world.rs"]
#[expect(dead_code, reason = "the world is that of `agent_run`, which uses all of it")]
mod world;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ingress_tests::edge::Agent;
use ingress_tests::wait::until;
use serde_json::Value;
use world::World;

const MANIFESTS: &str = "
apiVersion: sluicegate.io/v1alpha1
kind: VirtualIPPool
metadata: { name: public }
spec: { addresses: [10.1.0.200-10.1.0.203] }
---
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: demo }
spec: { type: LoadBalancer, ports: [{ port: 9000 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, namespace: demo, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ port: 9000, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.3], nodeName: worker }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: tcp, namespace: demo }
data: { '9100': 'demo/echo:9000:PROXY:PROXY', '9101': 'demo/echo:9000::PROXY' }
";

/// What the client reads from `to` when it says this and closes its side; empty if there was no connection.
fn talk(world: &World, to: &str, say: &str) -> String {
    world.client.inside(|| {
        let Ok(mut stream) = TcpStream::connect(to) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let mut answer = String::new();
        // A refused connection may be gone already.
        let _ = stream.write_all(say.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = stream.read_to_string(&mut answer);
        answer
    })
}

#[test]
fn an_address_from_a_pool_and_ports_with_the_proxy_protocol_are_served_shown_and_explained() {
    let world = World::empty("svcrun");
    world.place.manifest("all.yaml", MANIFESTS).expect("write");
    let flags = ["--ingress-vip=10.1.0.100", "--tcp-services-configmap=demo/tcp", "--workers=1", "--max-flows=10000"];
    let agent = Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags).expect("it is ready");

    let snapshot: Value = serde_json::from_str(&agent.get("/debug/snapshot").expect("snapshot").1).expect("JSON");
    let given = snapshot["assigned"]["services"]["demo/echo"].as_array().expect("addresses");
    let [Value::String(vip)] = given.as_slice() else { panic!("{given:?}") };
    assert!(vip.starts_with("10.1.0.20"), "{vip}");
    until("the address from the pool is served", || world.echo(vip).filter(|text| text.starts_with("backend")));

    const LINE: &str = "PROXY TCP4 192.0.2.1 203.0.113.1 40000 443\r\n";
    let told = talk(&world, "10.1.0.100:9100", &format!("{LINE}hello"));
    assert_eq!(told, format!("backend here\n{LINE}hello"));
    assert_eq!(talk(&world, "10.1.0.100:9100", "hello"), "", "without a header it is refused");
    let told = talk(&world, "10.1.0.100:9101", "hello");
    assert!(told.starts_with("backend here\nPROXY TCP4 10.1.0.4 10.1.0.100 "), "{told}");
    assert!(told.ends_with(" 9101\r\nhello"), "{told}");

    let status: Value = serde_json::from_str(&world.sluicegate(&["status", "-o", "json"]).1).expect("JSON");
    let all = status["services"].as_array().expect("services");
    let stream = all.iter().find(|s| s["frontend"] == "tcp 10.1.0.100:9100").expect("the stream");
    assert_eq!((&stream["kind"], &stream["pool"]), (&"stream".into(), &"demo/echo:9000".into()), "{stream}");
    assert_eq!(stream["backends"][0]["forwarding"], "proxy");
    let (_, out, _) = world.sluicegate(&["explain", "tcp", "10.1.0.4:40000", "10.1.0.100:9100"]);
    assert!(out.starts_with("passed up to the proxy") && out.contains("demo/echo:9000"), "{out}");
    let metrics = agent.get("/metrics").expect("metrics").1;
    assert!(metrics.lines().any(|l| l == "sluicegate_proxy_header_failures_total 1"), "{metrics}");
}
