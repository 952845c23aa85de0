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
    String::from_utf8_lossy(&talk_bytes(world, to, say.as_bytes())).into_owned()
}

fn talk_bytes(world: &World, to: &str, say: &[u8]) -> Vec<u8> {
    world.client.inside(|| {
        let Ok(mut stream) = TcpStream::connect(to) else { return Vec::new() };
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let mut answer = Vec::new();
        // A refused connection may be gone already.
        let _ = stream.write_all(say).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = stream.read_to_end(&mut answer);
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

/// `--enable-ssl-passthrough` on the command line: the backend gets a client's first TLS message as it is, and without the flag does not.
#[test]
fn tls_is_passed_through_where_the_command_line_allows_it() {
    let world = World::empty("passrun");
    let ingress = "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: pass, namespace: demo, annotations: { nginx.ingress.kubernetes.io/ssl-passthrough: 'true' } }
spec: { rules: [{ host: pass.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: echo, port: { number: 9000 } } } }] } }] }
";
    world.place.manifest("all.yaml", &[MANIFESTS, ingress].concat()).expect("write");
    let name = rustls::pki_types::ServerName::try_from("pass.example").expect("a name");
    let mut hello = Vec::new();
    let mut tls = rustls::ClientConnection::new(ingress_tests::http::tls::client_config(&[]), name).expect("a client");
    tls.write_tls(&mut hello).expect("a hello");
    for flag in [Some("--enable-ssl-passthrough"), None] {
        let flags = ["--ingress-vip=10.1.0.100", "--watch-ingress-without-class", "--workers=1", "--max-flows=10000"];
        let flags: Vec<&str> = flags.into_iter().chain(flag).collect();
        let agent = Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags).expect("it is ready");
        let answer = talk_bytes(&world, "10.1.0.100:443", &hello);
        let (_, out, _) = world.sluicegate(&["explain", "https://pass.example/x"]);
        let passed = [b"backend here\n".as_slice(), &hello].concat();
        assert_eq!(answer == passed, flag.is_some(), "{}", String::from_utf8_lossy(&answer));
        let said = "TLS of host `pass.example` is passed through to the Service demo/echo";
        assert_eq!(out.contains(said), flag.is_some(), "{out}");
        let counted = format!("sluicegate_tls_passed_through_total {}", u8::from(flag.is_some()));
        let metrics = agent.get("/metrics").expect("metrics").1;
        assert!(metrics.lines().any(|l| l == counted), "{metrics}");
        let status = agent.status().expect("status");
        assert_eq!(status.contains("needs `--enable-ssl-passthrough`"), flag.is_none(), "{status}");
    }
}

/// `--annotations-prefix`: annotations that begin so are heeded and named so, and those of ingress-nginx's own prefix are somebody else's.
#[test]
fn annotations_begin_with_what_the_command_line_says() {
    let world = World::new("prefrun");
    let ingress = |name: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {name}, namespace: demo, annotations: {{ {annotations} }} }}\n\
             spec: {{ ingressClassName: sluicegate, rules: [{{ host: {name}.example, http: {{ paths: [{{ path: /, pathType: Prefix, \
             backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }} }}] }}\n---\n"
        )
    };
    let manifests = [
        ingress("theirs", "nginx.ingress.kubernetes.io/permanent-redirect: https://theirs.example/"),
        ingress(
            "ours",
            "edge.example.com/permanent-redirect: https://ours.example/, edge.example.com/enable-cors: perhaps",
        ),
    ];
    world.place.manifest("prefix.yaml", &manifests.concat()).expect("write");
    let wrongly = ["--interface=eth0", "--annotations-prefix=edge.example.com/"];
    let (code, _, error) = world.run_wrongly(&wrongly);
    let why = "--annotations-prefix edge.example.com/: is not a DNS name in lower case, without the `/`";
    assert!(code == 2 && error.contains(why), "{error}");
    let flags =
        ["--ingress-vip=10.1.0.100", "--workers=1", "--max-flows=10000", "--annotations-prefix=edge.example.com"];
    let agent = Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags).expect("it is ready");
    let ask = |host: &str| world.http("10.1.0.100", &format!("GET / HTTP/1.1\r\nhost: {host}.example\r\n\r\n"));
    let answer = until("it serves", || Some(ask("ours")).filter(|answer| !answer.is_empty()));
    assert!(answer.starts_with("HTTP/1.1 301") && answer.contains("location: https://ours.example/"), "{answer}");
    assert!(ask("theirs").starts_with("HTTP/1.1 200"), "{}", ask("theirs"));
    let rejections = agent.get("/debug/rejections").expect("rejections").1;
    assert!(rejections.contains("\"metadata.annotations[edge.example.com/enable-cors]\""), "{rejections}");
    assert!(!rejections.contains("theirs"), "{rejections}");
}

/// `--enable-topology-aware-routing`: requests go to the endpoints of the node's zone, whichever that is at the time. What XDP forwards goes to all.
#[test]
fn requests_stay_in_the_zone_of_the_node() {
    let world = World::new("zonerun");
    let node = |zone: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{ name: edge, labels: {{ topology.kubernetes.io/zone: {zone} }} }}\n"
        )
    };
    let endpoint = |address: &str, zone: &str| {
        format!("{{ addresses: [{address}], hints: {{ forZones: [{{ name: {zone} }}] }} }}")
    };
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: web-1, namespace: demo, labels: {{ kubernetes.io/service-name: web }} }}\naddressType: IPv4\n\
         ports: [{{ port: 8080, protocol: TCP }}]\nendpoints: [{}, {}]\n",
        endpoint("10.1.0.3", "west"),
        endpoint("10.1.0.99", "east")
    );
    let web = std::fs::read_to_string(world.place.directory.join("manifests/web.yaml")).expect("the world's manifests");
    let (rest, _) = web.split_once("---\napiVersion: discovery.k8s.io").expect("its slice is the last");
    world.place.manifest("web.yaml", &format!("{rest}---\n{slice}")).expect("write");
    world.place.manifest("node.yaml", &node("west")).expect("write");
    let backends = |agent: &Agent, pool: &str| -> Option<Vec<String>> {
        let snapshot: Value = serde_json::from_str(&agent.get("/debug/snapshot").ok()?.1).ok()?;
        let pool = snapshot["pools"].as_array()?.iter().find(|p| p["name"] == pool)?.clone();
        let backends = pool["backends"].as_array()?.iter();
        Some(backends.filter_map(|b| b["address"].as_str().map(str::to_owned)).collect())
    };
    let flags = ["--ingress-vip=10.1.0.100", "--workers=1", "--max-flows=10000", "--enable-topology-aware-routing"];
    let agent = Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags).expect("it is ready");
    assert_eq!(backends(&agent, "demo/web:80/zone").as_deref(), Some(&["10.1.0.3:8080".to_owned()][..]));
    for _ in 0..4 {
        let answer = world.http("10.1.0.100", "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    world.place.manifest("node.yaml", &node("east")).expect("write");
    until("the node is in another zone", || {
        backends(&agent, "demo/web:80/zone").filter(|found| *found == ["10.1.0.99:8080"])
    });
    // Nobody is meant for this one.
    world.place.manifest("node.yaml", &node("south")).expect("write");
    until("all endpoints are asked", || backends(&agent, "demo/web:80/zone").filter(|found| found.len() == 2));
    drop(agent);
    let agent = Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags[..3]).expect("it is ready");
    assert_eq!(backends(&agent, "demo/web:80").map(|found| found.len()), Some(2), "without the flag");
}

/// Objects of ingress-nginx, taken over with its own flags: by the class's controller, by its name, by the annotation's value.
#[test]
fn the_class_flags_of_ingress_nginx_choose_the_same_objects() {
    let world = World::empty("clsrun");
    let class = |name: &str, controller: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{ name: {name} }}\nspec: {{ controller: {controller} }}\n---\n"
        )
    };
    let ingress = |name: &str, annotations: &str, class: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {name}, namespace: demo, annotations: {{ {annotations} }} }}\n\
             spec: {{ {class} rules: [{{ host: {name}.example, http: {{ paths: [{{ path: /, pathType: Prefix, \
             backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }} }}] }}\n---\n"
        )
    };
    let by = |name: &str| format!("kubernetes.io/ingress.class: {name}");
    let manifests = [
        "apiVersion: v1\nkind: Service\nmetadata: { name: web, namespace: demo }\nspec: { ports: [{ port: 80, targetPort: 8080 }] }\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: { name: web-1, namespace: demo, labels: { kubernetes.io/service-name: web } }\naddressType: IPv4\n\
         ports: [{ port: 8080, protocol: TCP }]\nendpoints: [{ addresses: [10.1.0.3], nodeName: worker }]\n---\n"
            .to_owned(),
        class("nginx", "k8s.io/ingress-nginx"),
        class("front", "example.com/other"),
        ingress("controller", "", "ingressClassName: nginx,"),
        ingress("name", "", "ingressClassName: front,"),
        ingress("value", &by("front"), ""),
        ingress("other-value", &by("nginx"), ""),
        ingress("nothing", "", ""),
    ];
    world.place.manifest("all.yaml", &manifests.concat()).expect("write");
    let nginx =
        ["--controller-class=k8s.io/ingress-nginx", "--ingress-vip=10.1.0.100", "--workers=1", "--max-flows=10000"];
    let served = |flags: &[&str]| {
        let flags = [&nginx[..], flags].concat();
        let mut agent =
            Agent::start(&world.edge, &world.place.directory, &world.place.pins, &flags).expect("it is ready");
        let all = ["controller", "name", "value", "other-value", "nothing"];
        let answers = |host: &&&str| {
            let head = format!("GET / HTTP/1.1\r\nhost: {host}.example\r\n\r\n");
            world.http("10.1.0.100", &head).starts_with("HTTP/1.1 200")
        };
        until("it serves", || answers(&&"controller").then_some(()));
        let served: Vec<&str> = all.iter().filter(answers).copied().collect();
        agent.stop().expect("stop the agent");
        served
    };
    assert_eq!(
        served(&[]),
        ["controller", "other-value"],
        "the annotation's value is nginx unless it is told otherwise"
    );
    assert_eq!(served(&["--ingress-class=front", "--ingress-class-by-name"]), ["controller", "name", "value"]);
    assert_eq!(served(&["--ingress-class=front", "--watch-ingress-without-class"]), ["controller", "value", "nothing"]);
}
