//! What `deploy/` ships, on a real API server: it is accepted as it is, the chart says the same as the kustomize base, and the DaemonSet's
//! pod, run from the image with just the mounts, capabilities and token that it asks for, serves; upgrade and uninstall are those of the
//! documentation.

#[path = "k8s_deploy/world.rs"]
mod world;

#[path = "k8s_deploy/rbac.rs"]
mod rbac;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use ingress_tests::deploy;
use ingress_tests::netns::{Namespace, Running};
use ingress_tests::wait::{until, within};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use world::{NAMESPACE, PATIENCE, VIP, WEB_VIP, World};

#[test]
fn the_daemon_set_serves_is_upgraded_and_leaves_nothing() {
    let world = World::new("dep");
    // The API server's own judgement; objects of a namespace need it to be there.
    world.kubectl(&["apply", "-f", &deploy::path("kustomize/base/namespace.yaml").display().to_string()], "");
    let judged = world.kustomize(&["apply", "--dry-run=server"], "kustomize/base");
    assert!(judged.lines().count() >= 10 && judged.lines().all(|line| line.contains("(server dry run)")), "{judged}");
    world.kustomize(&["apply"], "kustomize/base");
    world.apply_app();

    let first = world.pod(None);
    let spec = first.spec.as_ref().expect("a spec");
    assert_eq!(spec.priority, Some(2_000_001_000), "system-node-critical");
    let agent = world.start(&first);
    until("an L4 connection reaches the backend", || world.tcp());
    let answer = within(PATIENCE, "a request reaches the backend", || {
        Some(world.web()).filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    assert!(answer.contains("worker"), "{answer}");
    world.say_ready(&first);
    world.kubectl(&["rollout", "status", "daemonset/sluicegate", "-n", NAMESPACE, "--timeout=60s"], "");

    // An upgrade: the old pod ends before there is a new one, and a flow outlives both.
    let mut flow = world.tcp().expect("a connection");
    let image = "agent=ghcr.io/sluicegate/sluicegate:next";
    world.kubectl(&["set", "image", "daemonset/sluicegate", "-n", NAMESPACE, image], "");
    within(PATIENCE, "the old pod is told to end", || deleted(&world, &first));
    assert_eq!(world.json(&["get", "pods", "-n", NAMESPACE])["items"].as_array().map(Vec::len), Some(1), "no surge");
    world.end(&first, agent);
    assert_eq!(echoed(&mut flow, "between"), "between");
    let second = world.pod(Some(&first));
    let agent = world.start(&second);
    assert_eq!(echoed(&mut flow, "after"), "after");
    until("it takes new connections", || world.tcp());
    world.say_ready(&second);

    uninstall(&world, &second, agent);
}

/// The three commands of deploy/README.md.
fn uninstall(world: &World, last: &Pod, agent: Running) {
    world.kustomize(&["apply"], "kustomize/uninstall");
    within(PATIENCE, "the agent is told to end", || deleted(world, last));
    world.end(last, agent);
    let addresses = world.addresses();
    assert!(!addresses.contains(VIP) && !addresses.contains(WEB_VIP), "the addresses go with the agent: {addresses}");
    assert!(world.place.pins.join("sluicegate").exists(), "the programs stay for the next agent, which is not to come");
    let pod = world.pod(Some(last));
    let spec = pod.spec.as_ref().expect("a spec");
    assert!(world.place.directory.join("state/facts.json").exists(), "facts were saved");
    let init = &spec.init_containers.as_ref().expect("an init container")[0];
    let done = world.command(&pod, init).status().expect("run it");
    assert!(done.success(), "{}", world.last_words());
    let waiting = Running(world.command(&pod, &spec.containers[0]).spawn().expect("start it"));
    world.say_ready(&pod);
    world.kubectl(&["rollout", "status", "daemonset/sluicegate", "-n", NAMESPACE, "--timeout=60s"], "");
    world.kustomize(&["delete", "--wait=false"], "kustomize/base");
    world.end(&pod, waiting);

    assert!(!world.place.pins.join("sluicegate").exists(), "pins are left");
    let state = std::fs::read_dir(world.place.directory.join("state")).map_or(0, Iterator::count);
    assert_eq!(state, 0, "saved facts are left");
    assert!(world.tcp().is_none(), "nobody forwards any more");
    let link = world.edge.ip(&["-d", "link", "show", "dev", "eth0"]).expect("look at the interface");
    assert!(!link.contains("xdp"), "{link}");
    within(PATIENCE, "no object is left", || {
        let kinds = "clusterroles,clusterrolebindings,ingressclasses,daemonsets,pods,roles,rolebindings,serviceaccounts,networkpolicies";
        let label = "app.kubernetes.io/part-of=sluicegate";
        let left = world.kubectl(&["get", kinds, "-A", "-l", label, "-o", "name"], "");
        let namespace = world.cluster.kubectl(&["get", "namespace", NAMESPACE], "");
        (left.is_empty() && namespace.is_err()).then_some(())
    });
}

fn deleted(world: &World, pod: &Pod) -> Option<()> {
    let name = pod.metadata.name.as_deref().expect("a name");
    let now = world.json(&["get", "pod", name, "-n", NAMESPACE]);
    now["metadata"]["deletionTimestamp"].is_string().then_some(())
}

fn echoed(flow: &mut std::io::BufReader<std::net::TcpStream>, word: &str) -> String {
    flow.get_mut().write_all(format!("{word}\n").as_bytes()).expect("the connection is open");
    let mut line = String::new();
    flow.read_line(&mut line).expect("an echo");
    line.trim().to_owned()
}

/// Each of the five capabilities is needed, and named where it is missing.
#[test]
fn every_capability_is_needed() {
    let world = World::new("caps");
    world.kustomize(&["apply"], "kustomize/base");
    world.apply_app();
    let pod = world.pod(None);
    for (capability, complaint) in [
        ("BPF", "CAP_BPF"),
        ("PERFMON", "CAP_PERFMON"),
        ("NET_ADMIN", "CAP_NET_ADMIN"),
        ("NET_RAW", "cannot announce: open a packet socket"),
        ("NET_BIND_SERVICE", "need root or CAP_NET_BIND_SERVICE"),
    ] {
        let mut container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        let granted = container.security_context.as_mut().and_then(|s| s.capabilities.as_mut()).expect("capabilities");
        let list = granted.add.as_mut().expect("a list");
        let before = list.len();
        list.retain(|name| name != capability);
        assert_eq!((before, list.len()), (5, 4), "{capability} is granted, among five");
        let mut running = Running(world.command(&pod, &container).spawn().expect("start the container"));
        within(PATIENCE, &format!("without {capability} it says {complaint:?}"), || {
            let ended = running.0.try_wait().expect("wait").is_some();
            let said = world.last_words().contains(complaint);
            assert!(said || !ended, "without {capability} it ended without a word of it:\n{}", world.last_words());
            said.then_some(())
        });
    }
}

#[test]
fn the_chart_renders_what_the_base_says() {
    let (ns, home) = (Namespace::new("chart").expect("a namespace"), tempdir("chart"));
    let cluster = ingress_tests::cluster::ControlPlane::start("chart", &ns, [127, 0, 0, 1].into()).expect("start it");
    let helm = |arguments: &[&str]| {
        let mut command = ns.command(deploy::helm().expect("helm"));
        command.args(arguments).env("KUBECONFIG", cluster.admin_kubeconfig()).env("HOME", &home.directory);
        deploy::run(&mut command)
    };
    let chart = deploy::path("charts/sluicegate").display().to_string();
    let base = deploy::path("kustomize/base").display().to_string();
    let as_json = |yaml: &str| {
        let said = cluster.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", "-"], yaml);
        by_name(&said.unwrap_or_else(|e| panic!("{e:#}")))
    };
    let mut wanted = as_json(&cluster.kubectl(&["kustomize", &base], "").expect("render the base"));
    // Helm installs these from the chart's `crds` and does not render them; that they are the same is the test `crds`'.
    wanted.retain(|name, _| !name.contains("CustomResourceDefinition"));
    let template = ["template", "sluicegate", &chart, "--namespace", NAMESPACE];
    let rendered = helm(&[&template[..], &["--set", "namespace.create=true"]].concat()).expect("render the chart");
    let found = as_json(&rendered);
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, object) in &wanted {
        assert_eq!(found[name], *object, "{name}");
    }

    // What helm itself does with it, and with what is wrong.
    helm(&["lint", "--strict", &chart]).expect("lint");
    let install = ["install", "sluicegate", &chart, "--namespace", NAMESPACE, "--create-namespace"];
    let refused = helm(&[&install[..], &["--set", "interface="]].concat()).expect_err("an interface is needed");
    assert!(format!("{refused:#}").contains("interface"), "{refused:#}");
    let refused = helm(&[&install[..], &["--set", "ingresVips={1.2.3.4}"]].concat()).expect_err("misspelt");
    assert!(format!("{refused:#}").contains("ingresVips"), "{refused:#}");
    let more =
        "ingressVips={203.0.113.10},tcp.9000=a/b:c,rbac.certificateNamespaces={default},watchIngressWithoutClass=true";
    helm(&[&install[..], &["--set", more]].concat()).expect("install");
    let set =
        cluster.kubectl(&["get", "daemonset/sluicegate", "-n", NAMESPACE, "-o", "json"], "").expect("it is there");
    assert!(set.contains("203.0.113.10") && set.contains("SLUICEGATE_WATCH_INGRESS_WITHOUT_CLASS"), "{set}");
    helm(&["upgrade", "sluicegate", &chart, "--namespace", NAMESPACE, "--reuse-values", "--set", "uninstall=true"])
        .expect("upgrade");
    helm(&["uninstall", "sluicegate", "--namespace", NAMESPACE]).expect("uninstall");
    let left = cluster.kubectl(&["get", "clusterroles,ingressclasses", "-o", "name"], "").expect("list");
    assert!(!left.contains("sluicegate"), "{left}");
}

/// The overlays render, and an API server takes what they say.
#[test]
fn overlays_are_accepted() {
    let ns = Namespace::new("overlays").expect("a namespace");
    let cluster =
        ingress_tests::cluster::ControlPlane::start("overlays", &ns, [127, 0, 0, 1].into()).expect("start it");
    cluster.kubectl(&["create", "namespace", NAMESPACE], "").expect("create it");
    let own = tempdir("overlays");
    let takeover = own.directory.join("kustomization.yaml");
    let (base, component) =
        (deploy::path("kustomize/base"), deploy::path("kustomize/components/takeover-ingress-nginx"));
    // Kustomize wants relative paths.
    let up = "../".repeat(own.directory.components().count() - 1);
    let text = |path: &std::path::Path| {
        format!("{up}{}", path.canonicalize().expect("it exists").display().to_string().trim_start_matches('/'))
    };
    std::fs::write(&takeover, format!("resources: [{}]\ncomponents: [{}]\n", text(&base), text(&component)))
        .expect("write");
    let example = deploy::path("kustomize/example");
    for (directory, wanted) in [
        (example.as_path(), "SLUICEGATE_ADMIN_ADDRESS"),
        (own.directory.as_path(), "k8s.io/ingress-nginx"),
        (deploy::path("kustomize/uninstall").as_path(), "uninstall"),
    ] {
        let rendered = cluster.kubectl(&["kustomize", &directory.display().to_string()], "").expect("render");
        assert!(rendered.contains(wanted), "{rendered}");
        // The Prometheus operator's kinds are not installed here.
        let documents: Vec<&str> = rendered.split("\n---\n").filter(|d| !d.contains("monitoring.coreos.com")).collect();
        let judged = cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], &documents.join("\n---\n"));
        judged.unwrap_or_else(|e| panic!("{}: {e:#}", directory.display()));
    }
    let rendered = cluster.kubectl(&["kustomize", &own.directory.display().to_string()], "").expect("render");
    assert!(!rendered.contains("kind: IngressClass"), "ours would be of a controller that is nobody");
}

fn tempdir(label: &str) -> ingress_tests::place::Place {
    ingress_tests::place::Place::new(&format!("{label}-files")).expect("make a place")
}

/// The objects that kubectl printed one after another, by kind and name, without what it adds on the client's side.
fn by_name(printed: &str) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for item in serde_json::Deserializer::from_str(printed).into_iter::<Value>() {
        let mut item = item.expect("JSON");
        for field in ["/metadata", "/spec/template/metadata"] {
            if let Some(metadata) = item.pointer_mut(field).and_then(Value::as_object_mut) {
                metadata.remove("creationTimestamp");
            }
        }
        if item.pointer("/metadata/namespace") == Some(&json!("default")) {
            item["metadata"].as_object_mut().expect("metadata").remove("namespace");
        }
        let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
        assert!(objects.insert(name.clone(), item).is_none(), "{name} twice");
    }
    objects
}
