//! Tables of requests: what is there, what is asked, what is said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::model::snapshot::ObjectName;
use crate::webhook::review;

/// What everybody's requests meet.
fn world() -> Vec<Value> {
    vec![
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "ours",
            "annotations": {"sluicegate.io/vips": "203.0.113.1"}},
            "spec": {"controller": "sluicegate.io/ingress-controller"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "theirs"},
            "spec": {"controller": "example.com/other"}}),
        service("web", json!({})),
        ingress("a", "first", "2020-01-01T00:00:00Z", &[("shop.example", "/", "Prefix")]),
        pool("old", "203.0.113.0/28"),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.7"}]}}),
        exposed("db", "203.0.113.5", 5432),
    ]
}

fn ingress(namespace: &str, name: &str, created: &str, paths: &[(&str, &str, &str)]) -> Value {
    let rule = |(host, path, kind): &(&str, &str, &str)| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
    };
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "uid": name},
        "spec": {"ingressClassName": "ours", "rules": paths.iter().map(rule).collect::<Vec<_>>()}})
}

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn service(name: &str, annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "a", "annotations": annotations},
        "spec": {"ports": [{"port": 80}]}})
}

fn exposed(name: &str, address: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "a", "creationTimestamp": "2020-01-01T00:00:00Z",
            "annotations": {"sluicegate.io/vips": address}},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "sluicegate.io/xdp", "ports": [{"port": port}]}})
}

fn pool(name: &str, addresses: &str) -> Value {
    json!({"apiVersion": "sluicegate.io/v1alpha1", "kind": "VirtualIPPool",
        "metadata": {"name": name, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"addresses": [addresses]}})
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a parent")[field] = value;
    object
}

fn rules() -> Rules {
    let plan = PlanOptions { watch_services_without_class: false, ..PlanOptions::default() };
    let sources = SourceOptions { tcp_services: Some(ObjectName::new("sys", "tcp")), ..SourceOptions::default() };
    Rules { plan, sources, namespaces: Namespaces::All, conflicts: Conflicts::Deny }
}

fn facts(objects: &[Value]) -> Facts {
    let mut facts = Facts { revision: 1, ..Facts::default() };
    for object in objects {
        for read in read(&object.to_string(), &rules()).objects {
            let object = read.object.expect("a good object");
            fold(&mut facts, &read.identity.name, None, Some(&object));
        }
    }
    facts
}

fn index(objects: &[Value]) -> Index {
    let mut index = Index::default();
    index.update(&Arc::new(facts(objects)));
    index
}

fn asked(index: &Index, rules: &Rules, before: Option<&Value>, object: &Value) -> Verdict {
    let operation = if before.is_some() { "UPDATE" } else { "CREATE" };
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"kind": object["kind"]}, "operation": operation, "object": object, "oldObject": before,
        "dryRun": true, "userInfo": {"username": "somebody"}}});
    let body = Bytes::from(body.to_string());
    judge(&review::read(&body).expect("a review"), index, rules)
}

/// Each of `denied` and `warned` is the beginning of one text, in order, and there are no others.
#[track_caller]
fn check(what: &str, verdict: &Verdict, denied: &[&str], warned: &[&str]) {
    let same = |texts: &[String], wanted: &[&str]| {
        texts.len() == wanted.len() && texts.iter().zip(wanted).all(|(text, wanted)| text.starts_with(wanted))
    };
    assert!(same(&verdict.denials, denied) && same(&verdict.warnings, warned), "{what}: {verdict:#?}");
}

const NEW: &str = "2026-01-01T00:00:00Z";

#[test]
fn a_new_object_is_told_what_is_wrong_with_it() {
    let index = index(&world());
    let good = ingress("a", "new", NEW, &[("new.example", "/", "Prefix")]);
    let theirs = with(good.clone(), "/spec/ingressClassName", "theirs".into());
    let regex = ingress("a", "new", NEW, &[("new.example", "/(.*)", "Prefix")]);
    let foreign_regex = with(regex.clone(), "/spec/ingressClassName", "theirs".into());
    let lost = ingress("b", "new", NEW, &[("shop.example", "/", "Prefix"), ("b.example", "/", "Prefix")]);
    let lost = with(lost, "/spec/rules/1/http/paths/0/backend/service/name", "no".into());
    let lb = exposed("new", "203.0.113.6", 80);
    let new_pool = |addresses: &str| with(pool("new", addresses), "/metadata/creationTimestamp", NEW.into());
    let rows: Vec<(&str, Value, &[&str], &[&str])> = vec![
        ("a good Ingress", good.clone(), &[], &[]),
        ("another class's", theirs, &[], &[]),
        ("a regular expression", regex, &["spec.rules[0].http.paths[0].path: `/(.*)` contains `(`"], &[]),
        ("another class's mistakes", foreign_regex, &[], &[]),
        (
            "a host and path that is taken, and a Service that is not there",
            lost,
            &["spec.rules[0].http.paths[0]: shop.example/ (Prefix) is served by Ingress a/first, which is older"],
            &[
                "spec.rules[0].http.paths[0].backend.service.name: there is no Service b/web",
                "spec.rules[1].http.paths[0].backend.service.name: there is no Service b/no",
            ],
        ),
        (
            "a class that is not there",
            with(good.clone(), "/spec/ingressClassName", "nobody".into()),
            &[],
            &["spec.ingressClassName: there is no IngressClass nobody"],
        ),
        (
            "annotations without effect",
            with(
                good.clone(),
                "/metadata/annotations",
                json!({"nginx.ingress.kubernetes.io/enable-modsecurity": "true", "nginx.ingress.kubernetes.io/ssl-passthrough": "true",
                "sluicegate.io/balanse": "x", "other.io/x": "y"}),
            ),
            &[],
            &[
                "metadata.annotations: nginx.ingress.kubernetes.io/* is not honoured in full, so it is served without: enable-modsecurity",
                "metadata.annotations[nginx.ingress.kubernetes.io/ssl-passthrough]: `true` needs `--enable-ssl-passthrough`",
                "metadata.annotations[sluicegate.io/balanse]: sluicegate.io/balanse is unknown, so it changes nothing",
            ],
        ),
        (
            "a value that means nothing",
            with(good.clone(), "/metadata/annotations", json!({"sluicegate.io/balance": "fair"})),
            &["metadata.annotations[sluicegate.io/balance]: `fair` is neither"],
            &[],
        ),
        (
            "a health check that cannot be",
            with(
                good.clone(),
                "/metadata/annotations",
                json!({"sluicegate.io/health-check": "http", "sluicegate.io/health-check-interval": "1us",
                "sluicegate.io/health-check-service": "x"}),
            ),
            &["metadata.annotations[sluicegate.io/health-check-interval]: `1us` is not a time"],
            &["metadata.annotations[sluicegate.io/health-check-service]: changes nothing: the check is http"],
        ),
        (
            "a Service's bad ranges and its port of SCTP",
            with(
                with(lb.clone(), "/spec/loadBalancerSourceRanges", json!(["10.0.0.0/8", "x"])),
                "/spec/ports",
                json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "SCTP"}]),
            ),
            &["spec.loadBalancerSourceRanges[1]: `x` is not a range"],
            &["spec.ports[1].protocol: SCTP is not balanced"],
        ),
        (
            "a Service of the cluster alone",
            with(service("sctp", json!({})), "/spec/ports", json!([{"name": "a", "port": 80, "protocol": "SCTP"}])),
            &[],
            &[],
        ),
        (
            "its annotations",
            service("plain", json!({"sluicegate.io/vips": "203.0.113.7", "sluicegate.io/forwarding": "x"})),
            &["metadata.annotations[sluicegate.io/forwarding]: `x` is neither"],
            &["metadata.annotations[sluicegate.io/vips]: changes nothing: the Service is not of type LoadBalancer"],
        ),
        (
            "an address that is taken",
            exposed("new", "203.0.113.5", 80),
            &[],
            &["metadata.annotations[sluicegate.io/vips]: 203.0.113.5 cannot be served: Service a/db has it"],
        ),
        (
            "an address of no pool",
            exposed("new", "192.0.2.1", 80),
            &[],
            &["metadata.annotations[sluicegate.io/vips]: 192.0.2.1 cannot be served"],
        ),
        ("a good Service", lb, &[], &[]),
        (
            "a pool over another",
            new_pool("203.0.113.8-203.0.113.40"),
            &["spec.addresses: 203.0.113.8-203.0.113.40 overlaps 203.0.113.0-203.0.113.15 of VirtualIPPool "],
            &[],
        ),
        (
            "a pool with a node's address",
            new_pool("198.51.100.0/24"),
            &["spec.addresses: holds 198.51.100.7, an address of Node n1"],
            &[],
        ),
        ("a pool of nonsense", new_pool("203.0.113.77/24"), &["spec.addresses[0]: `203.0.113.77/24` has bits"], &[]),
        (
            "ports of the wrong form",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "sys", "name": "tcp"},
                "data": {"9000": "a/web:80", "9001": "a/no:80", "x": "a/web:80"}}),
            &["data[x]: `x` is not a port number"],
            &["data[9001]: there is no Service a/no"],
        ),
        (
            "any other ConfigMap",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": "tcp"},
                "data": {"x": "y"}}),
            &[],
            &[],
        ),
        (
            "a field of the wrong type",
            with(good, "/spec/rules/0/host", json!(7)),
            &["spec.rules[0].host: invalid type: integer `7`"],
            &[],
        ),
    ];
    for (what, object, denied, warned) in rows {
        check(what, &asked(&index, &rules(), None, &object), denied, warned);
    }
}

#[test]
fn a_change_is_denied_only_for_what_it_brings_in() {
    let bad = ingress("b", "second", "2021-01-01T00:00:00Z", &[("shop.example", "/", "Prefix"), ("b", "/(", "Exact")]);
    let bad = with(bad, "/metadata/annotations", json!({}));
    let mut objects = world();
    objects.push(with(service("web", json!({})), "/metadata/namespace", "b".into()));
    objects.push(bad.clone());
    let index = index(&objects);
    let edited = with(bad.clone(), "/metadata/annotations", json!({"cert-manager.io/issuer": "x"}));
    check(
        "what was wrong before may be edited",
        &asked(&index, &rules(), Some(&bad), &edited),
        &[],
        &["spec.rules[1].http.paths[0].path: `/(`", "spec.rules[0].http.paths[0]: shop.example/ (Prefix) is served by"],
    );
    let status = with(bad.clone(), "/status", json!({"loadBalancer": {}}));
    check("a status is nobody's business", &asked(&index, &rules(), Some(&bad), &status), &[], &[]);
    // An older one that reaches for what a younger one is served on.
    let old = ingress("a", "first", "2020-01-01T00:00:00Z", &[("shop.example", "/", "Prefix")]);
    let younger = ingress("b", "third", "2022-01-01T00:00:00Z", &[("third.example", "/", "Prefix")]);
    objects.push(younger);
    let index = self::index(&objects);
    let grown = ingress(
        "a",
        "first",
        "2020-01-01T00:00:00Z",
        &[("shop.example", "/", "Prefix"), ("third.example", "/", "Prefix")],
    );
    let takes = "takes from Ingress b/third: third.example/ (Prefix) is served by Ingress a/first, which is older";
    check("an older Ingress takes nothing unseen", &asked(&index, &rules(), Some(&old), &grown), &[takes], &[]);
    let warn = Rules { conflicts: Conflicts::Warn, ..rules() };
    check("or it is only told", &asked(&index, &warn, Some(&old), &grown), &[], &[takes]);
    let wider = pool("old", "203.0.113.0/24");
    objects.push(with(pool("young", "203.0.113.128/25"), "/metadata/creationTimestamp", NEW.into()));
    let index = self::index(&objects);
    check(
        "a pool does not push a younger one out",
        &asked(&index, &rules(), Some(&pool("old", "203.0.113.0/28")), &wider),
        &["takes from VirtualIPPool young: 203.0.113.128-203.0.113.255 overlaps"],
        &[],
    );
}

/// Nor is anybody told of what the agents do not see.
#[test]
fn objects_of_other_namespaces_are_nobodys_business() {
    let mut objects = world();
    let index = |objects: &[Value]| self::index(objects);
    let new = ingress("b", "new", NEW, &[("shop.example", "/", "Prefix")]);
    let labelled = Rules { namespaces: Namespaces::Labelled("a=b".to_owned()), ..rules() };
    let named = |name: &str| Rules { namespaces: Namespaces::Named(vec![name.to_owned()]), ..rules() };
    let denied = |objects: &[Value], rules: &Rules| !asked(&index(objects), rules, None, &new).denials.is_empty();
    objects.push(ingress("a", "first", "2020-01-01T00:00:00Z", &[("shop.example", "/", "Prefix")]));
    assert!(denied(&objects, &rules()) && denied(&objects, &named("b")));
    assert!(!denied(&objects, &named("a")) && !denied(&objects, &labelled));
}

#[test]
fn an_unread_cluster_denies_only_what_is_wrong_in_itself() {
    let index = Index::default();
    check("an Ingress", &asked(&index, &rules(), None, &world()[3]), &[], &[]);
    check("a pool", &asked(&index, &rules(), None, &pool("p", "x")), &["spec.addresses[0]: `x` is neither"], &[]);
    check("a good pool", &asked(&index, &rules(), None, &world()[4]), &[], &[]);
}

#[test]
fn hostile_objects_are_judged_quickly() {
    let index = index(&world());
    let long = "a\nb\r\u{1b}[2J".repeat(100_000);
    let bomb = "(a+)+".repeat(10_000);
    let paths: Vec<String> = (0..4000).map(|i| format!("/p{i}")).collect();
    let many: Vec<(&str, &str, &str)> = paths.iter().map(|p| ("shop.example", p.as_str(), "Prefix")).collect();
    let good = ingress("a", "evil", NEW, &[("evil.example", "/", "Prefix")]);
    for (what, object) in [
        (
            "a megabyte of annotation",
            with(good.clone(), "/metadata/annotations", json!({"sluicegate.io/balance": long})),
        ),
        (
            "names of a megabyte",
            with(good.clone(), "/metadata/annotations", json!({format!("sluicegate.io/{long}"): ""})),
        ),
        ("a bomb of a pattern", with(good.clone(), "/spec/rules/0/http/paths/0/path", bomb.into())),
        ("newlines in a host", with(good.clone(), "/spec/rules/0/host", long.clone().into())),
        ("newlines in a name", with(good.clone(), "/metadata/name", long.clone().into())),
        ("newlines in a class", with(good.clone(), "/spec/ingressClassName", long.clone().into())),
        ("newlines in a Service's name", with(good, "/spec/rules/0/http/paths/0/backend/service/name", long.into())),
        ("thousands of paths", ingress("a", "evil", NEW, &many)),
    ] {
        let began = Instant::now();
        let verdict = asked(&index, &rules(), None, &object);
        // Unoptimised code; the release build takes a tenth.
        assert!(began.elapsed() < Duration::from_secs(2), "{what} took {:?}", began.elapsed());
        let answer = review::answer("u", &verdict);
        assert!(answer.len() < 20_000, "{what}: {} bytes", answer.len());
    }
}

/// The bar is 10 ms at this size, from body to answer; ingress-nginx 1.15 takes 1.6 s at a tenth of it.
#[test]
fn the_time_of_a_review_does_not_grow_with_the_cluster() {
    let mut objects = world();
    for i in 0..10_000 {
        let host = format!("h{i}.example");
        objects.push(ingress("a", &format!("i{i}"), "2021-01-01T00:00:00Z", &[(&host, "/", "Prefix")]));
    }
    let facts = facts(&objects);
    let mut index = Index::default();
    let began = Instant::now();
    index.update(&Arc::new(facts.clone()));
    println!("index of 10,000 Ingresses made in {:?}", began.elapsed());
    let mut took = Vec::new();
    for i in 0..500_usize {
        let host = format!("h{}.example", i * 20);
        let object = ingress("b", "new", NEW, &[(&host, "/", "Prefix"), ("fresh.example", "/", "Prefix")]);
        let began = Instant::now();
        let verdict = asked(&index, &rules(), None, &object);
        took.push(began.elapsed());
        assert!(
            verdict.denials[0].contains(&format!("is served by Ingress a/i{}, which is older", i * 20)),
            "{verdict:?}"
        );
    }
    took.sort_unstable();
    println!(
        "review at 10,000 Ingresses: median {:?}, p99 {:?}, of {} (unoptimised)",
        took[250],
        took[495],
        took.len()
    );
    assert!(took[250] < Duration::from_millis(10), "median {:?}", took[250]);
    let mut more = facts;
    more.revision += 1;
    let began = Instant::now();
    fold(&mut more, &ObjectName::new("a", "i7"), None, None);
    more.ingresses.remove(&ObjectName::new("a", "i7"));
    index.update(&Arc::new(more));
    println!("index after one change: {:?}", began.elapsed());
}
