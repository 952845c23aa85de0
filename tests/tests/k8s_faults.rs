//! Faults of a cluster and of those who use it, each against a real API server: the one who can mend it is told, nothing is lost, and
//! nobody else is affected. That a watch which is too old (410 Gone) lists again, and that a missing right is named, is shown by
//! `k8s_watch` and `k8s_status`.

#[path = "k8s_status/world.rs"]
#[expect(dead_code, reason = "it serves k8s_status as well")]
mod world;

#[path = "k8s_faults/traffic.rs"]
mod traffic;

use ingress_tests::wait;
use traffic::{Backend, Traffic};
use world::{Edge, PATIENCE, POOLS, World, class, ingress, pool, service};

#[track_caller]
fn readyz(edge: &Edge, what: &str, holds: impl Fn(u16, &str) -> bool) {
    let mut last = String::new();
    let found = wait::holds(PATIENCE, || {
        edge.agent.get("/readyz").is_ok_and(|(status, text)| {
            last = format!("{status} {text}");
            holds(status, &text)
        })
    });
    assert!(found, "waited {PATIENCE:?} in vain: {what}; /readyz says {last}; the agent's log:\n{}", log(edge));
}

fn log(edge: &Edge) -> String {
    std::fs::read_to_string(edge.agent.log_path()).expect("read the agent's log")
}

/// What the status of a pool says: reasons of its conditions, and IPv4 addresses assigned and left.
#[track_caller]
fn pool_is(w: &World, name: &str, expected: &str) {
    let path =
        "jsonpath={range .status.conditions[*]}{.type}={.reason} {end}{.status.assignedIPv4} {.status.availableIPv4}";
    let mut last = String::new();
    wait::within(PATIENCE, &format!("the status of the pool {name} is `{expected}`"), || {
        last = w.kubectl(&["get", "virtualippool", name, "-o", path]);
        (last == expected).then_some(())
    });
}

/// A Service that takes an address of a pool.
fn asking(name: &str) -> String {
    service(name, "").replace(", annotations: { sluicegate.io/vips: '' }", "")
}

#[test]
fn the_api_server_is_killed_and_restarted_and_no_request_fails() {
    let w = World::new("kfkill");
    let backend = Backend::start(&w, "one", 11);
    w.cluster
        .apply(&(service("echo", "10.1.0.101") + &class("10.1.0.100") + &ingress("shop", "sluicegate", "web")))
        .expect("apply");
    w.cluster.apply(&(backend.web() + &backend.slice("echo", 9000))).expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("start the agent");
    let traffic = Traffic::start(&w, "10.1.0.101", ("10.1.0.100", "shop.example"));
    let mut w = w;
    for _ in 0..2 {
        w.cluster.kill_api_server().expect("kill it");
        readyz(&edge, "the age is told", |status, text| status == 200 && text.contains("may have been missed"));
        w.cluster.start_api_server().expect("start it again");
        readyz(&edge, "all is well again", |status, text| status == 200 && text == "ok\n");
    }
    // What is changed afterwards is followed as before.
    w.cluster.apply(&service("more", "10.1.0.103")).expect("apply");
    w.status_becomes("service/more", "10.1.0.103/Proxy");
    traffic.end_without_a_failure();
}

#[test]
fn two_agents_of_one_name_are_each_told() {
    let w = World::new("kftwins");
    w.cluster.apply(&service("echo", "10.1.0.101")).expect("apply");
    let mut first = w.edge("one", 2, &["--hold-vips", "10.1.0.101"]);
    first.agent.start_again().expect("start the first");
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
    let mut second = w.edge_as("two", "one", 3, &["--hold-vips", "none"]);
    second.agent.start_again().expect("start the second");
    let told = |status: u16, text: &str| {
        status == 200
            && text.contains("another agent calls itself node one, too")
            && text.contains("give each a name of its own (--node)")
    };
    readyz(&first, "the first is told", told);
    readyz(&second, "the second is told", told);
    for edge in [&first, &second] {
        assert!(log(edge).contains("another agent calls itself node one, too"), "{}", log(edge));
    }
    // The mistake is mended, and both are content.
    second.agent.kill().expect("kill the second");
    readyz(&first, "the first has its name for itself", |_, text| text == "ok\n");
    w.status_becomes("service/echo", "10.1.0.101/Proxy");
}

#[test]
fn a_pool_that_overlaps_another_or_holds_a_nodes_address_is_told_of() {
    let w = World::new("kfpools");
    w.define_pools();
    w.cluster.apply("apiVersion: v1\nkind: Node\nmetadata: { name: worker }\n").expect("make a node");
    let own = r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.1.0.120"}]}}"#;
    w.kubectl(&["patch", "node/worker", "--subresource=status", "--type=merge", "-p", own]);
    w.cluster.apply(&pool("first", "10.1.0.101-10.1.0.102", "")).expect("apply");
    w.cluster.apply(&asking("echo")).expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("start the agent");
    let address = |w: &World, object: &str| {
        wait::within(PATIENCE, "an address", || Some(w.status(object)).filter(|s| !s.is_empty()))
    };
    let before = address(&w, "service/echo");
    pool_is(&w, "first", "Accepted=Accepted Available=AddressesLeft 1 1");

    // Older objects win, and creation times are whole seconds: the name decides between equals.
    w.cluster.apply(&pool("overlaps", "10.1.0.102-10.1.0.110", "")).expect("apply");
    w.describes(
        "virtualippool/overlaps",
        &["Rejected", "10.1.0.102-10.1.0.110 overlaps 10.1.0.101-10.1.0.102 of VirtualIPPool first"],
    );
    pool_is(&w, "overlaps", "Accepted=Overlaps Available=NotAccepted 0 0");
    w.cluster.apply(&pool("reaches", "10.1.0.120-10.1.0.121", ", autoAssign: false")).expect("apply");
    w.describes("virtualippool/reaches", &["10.1.0.120, an address of Node worker: it is not given out"]);
    pool_is(&w, "reaches", "Accepted=HoldsNodeAddress Available=AddressesLeft 0 1");
    // The rest of that pool is of use, and who had an address keeps it.
    let asks =
        asking("rest").replace("namespace: demo", "namespace: demo, annotations: { sluicegate.io/pool: reaches }");
    w.cluster.apply(&asks).expect("apply");
    w.status_becomes("service/rest", "10.1.0.121/Proxy");
    assert_eq!(w.status("service/echo"), before);
    // One address is left in the first pool, and then none.
    w.cluster.apply(&asking("second")).expect("apply");
    address(&w, "service/second");
    w.cluster.apply(&asking("third")).expect("apply");
    w.describes("service/third", &["VirtualIPPool first (2 addresses)"]);
    assert_eq!(w.status("service/echo"), before);
    // The pools say so themselves, and what is told changes with what is so.
    pool_is(&w, "first", "Accepted=Accepted Available=Exhausted 2 0");
    pool_is(&w, "reaches", "Accepted=HoldsNodeAddress Available=Exhausted 1 0");
    w.describes("virtualippool/first", &["Exhausted", "no IPv4 address is left (2 assigned)"]);
    let shown = w.kubectl(&["get", "virtualippools"]);
    let header: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "ADDRESSES", "AUTO", "ACCEPTED", "IPV4", "LEFT", "IPV6", "AGE"]);
    let path = "jsonpath={.status.conditions[0].observedGeneration} {.metadata.generation}";
    let generation = |name: &str| w.kubectl(&["get", "virtualippool", name, "-o", path]);
    assert_eq!(generation("first"), "1 1");
    w.kubectl(&["delete", "service/rest", "--namespace=demo"]);
    pool_is(&w, "reaches", "Accepted=HoldsNodeAddress Available=AddressesLeft 0 1");
    let apart = r#"{"spec":{"addresses":["10.1.0.103-10.1.0.110"]}}"#;
    w.kubectl(&["patch", "virtualippool/overlaps", "--type=merge", "-p", apart]);
    // The third Service has its address now.
    pool_is(&w, "overlaps", "Accepted=Accepted Available=AddressesLeft 1 7");
    assert_eq!(generation("overlaps"), "2 2");
    assert_eq!(w.status("service/echo"), before);
    readyz(&edge, "nothing else is wrong", |status, text| status == 200 && text == "ok\n");
}

#[test]
fn a_definition_of_a_newer_version_takes_nothing_away() {
    let w = World::new("kfcrd");
    w.define_pools();
    w.cluster.apply(&(pool("front", "10.1.0.101-10.1.0.104", "") + &asking("echo"))).expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("start the agent");
    let before = wait::within(PATIENCE, "an address", || Some(w.status("service/echo")).filter(|s| !s.is_empty()));
    let define = |patch: &str| w.kubectl(&["patch", &format!("crd/{POOLS}"), "--type=json", "-p", patch]);
    // The API server needs a moment until it goes by what a definition says, and a watch that began before ends after a minute; until
    // then it is given objects by the old definition. So the pool is written again and again, each time a little different.
    let until_told = |spec: &str, words: &str| {
        let mut turn = 0;
        wait::within(PATIENCE, &format!("the pool is said to have {words}"), || {
            turn += 1;
            let patch = format!(r#"{{"metadata":{{"labels":{{"turn":"t{turn}"}}}},"spec":{spec}}}"#);
            w.cluster.kubectl(&["patch", "virtualippool/front", "--type=merge", "-p", &patch], "").ok()?;
            w.kubectl(&["describe", "virtualippool/front"]).contains(words).then_some(())
        });
    };
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

    // A field more: served without it, and said so.
    define(&format!(r#"[{{"op":"add","path":"{spec}/x-kubernetes-preserve-unknown-fields","value":true}}]"#));
    until_told(r#"{"bgp":{"asn":65000}}"#, "spec.bgp: is not known to this version of the agent");
    assert_eq!(w.status("service/echo"), before);

    // A field of another type: the last state that could be read stays.
    define(&format!(
        r#"[{{"op":"replace","path":"{spec}/properties/addresses/items","value":{{"x-kubernetes-preserve-unknown-fields":true}}}}]"#
    ));
    let objects = r#"{"addresses":[{"from":"10.1.0.150","to":"10.1.0.160"}]}"#;
    until_told(objects, "spec.addresses[0]: invalid type: map, expected a string");
    pool_is(&w, "front", "Accepted=Invalid Available=AddressesLeft 1 3");
    w.cluster.apply(&asking("more")).expect("apply");
    let more = wait::within(PATIENCE, "an address of the pool as it was", || {
        Some(w.status("service/more")).filter(|s| !s.is_empty())
    });
    assert!(more.starts_with("10.1.0.10"), "{more}");
    assert_eq!(w.status("service/echo"), before);

    // Another version altogether: what was read before stays, and this is told for as long as it lasts.
    define(
        r#"[{"op":"copy","from":"/spec/versions/0","path":"/spec/versions/1"},
            {"op":"replace","path":"/spec/versions/1/name","value":"v1"},
            {"op":"replace","path":"/spec/versions/0/storage","value":false},
            {"op":"replace","path":"/spec/versions/0/served","value":false}]"#,
    );
    let told = "this agent knows v1alpha1 of sluicegate.io, and the API server serves v1; what was read before stays";
    readyz(&edge, "the version is told", |status, text| status == 200 && text.contains(told));
    w.cluster.apply(&asking("third")).expect("apply");
    wait::within(PATIENCE, "the pools are still there", || Some(w.status("service/third")).filter(|s| !s.is_empty()));
    assert_eq!(w.status("service/echo"), before);
    // A restart finds the pools that were saved.
    edge.agent.stop().expect("stop the agent");
    edge.agent.launch().expect("start the agent");
    readyz(&edge, "it serves what was saved", |status, text| status == 200 && text.contains(told));
    define(r#"[{"op":"replace","path":"/spec/versions/0/served","value":true}]"#);
    readyz(&edge, "it is served again", |status, text| status == 200 && text == "ok\n");
    w.status_becomes("service/echo", &before);
}

/// What somebody would like to see in a log, or to have done to a terminal.
const FORGED: &str = "2026-01-01T00:00:00.000000Z  INFO ingress_agent: all is well";

#[test]
fn a_hostile_ingress_hurts_only_itself_and_forges_no_line() {
    let w = World::new("kfevil");
    let backend = Backend::start(&w, "one", 11);
    w.cluster
        .apply(&(service("echo", "10.1.0.101") + &class("10.1.0.100") + &ingress("shop", "sluicegate", "web")))
        .expect("apply");
    w.cluster.apply(&(backend.web() + &backend.slice("echo", 9000))).expect("apply");
    let mut edge = w.edge("one", 2, &[]);
    edge.agent.start_again().expect("start the agent");
    w.status_becomes("ingress/shop", "10.1.0.100/");
    let traffic = Traffic::start(&w, "10.1.0.101", ("10.1.0.100", "shop.example"));

    let evil = format!("x\n{FORGED}\r\u{1b}[2J\u{7}\u{85}{FORGED}\u{202e}y");
    let bomb = "/(((((a+)+)+)+)+)+$".to_owned() + &"(.*)*".repeat(400);
    // The API server takes 256 KiB of annotations an object, all together.
    let large = "L".repeat(250_000);
    let annotated = |key: &str, value: &str| vec![("metadata.annotations", key.to_owned(), value.to_owned())];
    let path = |path: &str| vec![("path", String::new(), path.to_owned())];
    let tries = [
        ("balance", annotated("sluicegate.io/balance", &evil)),
        ("large", annotated("sluicegate.io/balance", &large)),
        ("class", annotated("kubernetes.io/ingress.class", &evil)),
        ("bomb", path(&bomb)),
        ("lines", path(&format!("/a{evil}"))),
        ("secret", vec![("secret", String::new(), evil.clone())]),
        ("resource", vec![("resource", String::new(), evil.replace(['/', '%'], ""))]),
        ("host", vec![("host", String::new(), format!("{evil}.example"))]),
        ("port", vec![("port", String::new(), evil.clone())]),
    ];
    let mut taken = Vec::new();
    for (name, changes) in &tries {
        // Of a cluster whose validation is laxer than this one's the same would be expected.
        if w.cluster.kubectl(&["create", "-f", "-"], &hostile(name, changes)).is_ok() {
            taken.push(*name);
        }
    }
    w.cluster
        .apply(&service("evil", "").replace("vips: ''", &format!("vips: {}", serde_json::json!(evil))))
        .expect("apply");
    for name in ["balance", "large", "bomb", "lines", "resource"] {
        assert!(taken.contains(&name), "the API server let only {taken:?} through");
    }
    w.describes("ingress/balance", &["is neither `round-robin` nor `least-request`"]);
    w.describes("ingress/large", &["`LLLL", "is neither `round-robin` nor `least-request`"]);
    w.describes("ingress/lines", &["contains a control character"]);
    w.describes("ingress/resource", &["is not supported: name a Service"]);
    w.describes("service/evil", &["is not an IP address"]);
    // What is no regular expression here is a path like any other.
    w.status_becomes("ingress/bomb", "10.1.0.100/");
    traffic.end_without_a_failure();

    let (log, status) = (log(&edge), edge.agent.status().expect("status"));
    let told = edge.agent.get("/debug/rejections").expect("rejections").1;
    assert!(log.contains("`x\\n2026-01-01"), "it is quoted: {log}");
    for text in [&log, &status, &told] {
        let forged = text.lines().find(|line| line.trim_start().starts_with(FORGED));
        assert_eq!(forged, None, "a line that nobody wrote");
        let hidden = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(hidden, None, "{text}");
    }
    for text in [&log, &status] {
        let long = text.lines().find(|line| line.len() > 2_000);
        assert_eq!(long, None, "a line that is too long");
    }
    readyz(&edge, "nothing else is wrong", |status, text| status == 200 && text == "ok\n");
}

/// An Ingress of ours with strange values in some of its fields.
fn hostile(name: &str, changes: &[(&str, String, String)]) -> String {
    let mut object = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "demo", "annotations": {}},
        "spec": {"ingressClassName": "sluicegate", "rules": [{"host": format!("{name}.example"), "http": {"paths": [
            {"path": "/", "pathType": "ImplementationSpecific", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
        ]}}]},
    });
    for (field, key, value) in changes {
        let rule = &mut object["spec"]["rules"][0];
        match *field {
            "path" => rule["http"]["paths"][0]["path"] = value.as_str().into(),
            "host" => rule["host"] = value.as_str().into(),
            "port" => rule["http"]["paths"][0]["backend"]["service"]["port"] = serde_json::json!({"name": value}),
            "resource" => {
                let resource = serde_json::json!({"apiGroup": "example.com", "kind": value, "name": value});
                rule["http"]["paths"][0]["backend"] = serde_json::json!({"resource": resource});
            }
            "secret" => object["spec"]["tls"] = serde_json::json!([{"secretName": value}]),
            _ => object["metadata"]["annotations"][key] = value.as_str().into(),
        }
    }
    object.to_string()
}
