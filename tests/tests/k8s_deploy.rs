//! What `deploy/` ships, on a real API server: it is accepted as it is, the chart says the same as the kustomize base, and the DaemonSet's
//! pod, run from the image with just the mounts, capabilities and token that it asks for, serves; upgrade and uninstall are those of the
//! documentation.

#[path = "k8s_deploy/world.rs"]
mod world;

#[path = "k8s_deploy/rbac.rs"]
mod rbac;

#[path = "k8s_deploy/rendered.rs"]
mod rendered;

use std::io::{BufRead, Write};

use ingress_tests::deploy;
use ingress_tests::netns::Running;
use ingress_tests::wait::{until, within};
use k8s_openapi::api::core::v1::Pod;
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
    let recorded = world.kubectl(&["get", "service/echo", "-o=jsonpath={.metadata.annotations}"], "");
    assert!(recorded.contains("sluicegate.io/assigned"), "an agent that ends leaves the record: {recorded}");
    let init = &spec.init_containers.as_ref().expect("an init container")[0];
    let done = world.command(&pod, init).status().expect("run it");
    assert!(done.success(), "{}", world.last_words());
    // Nothing of the agents is left in what is others'.
    let managed = "-o=jsonpath={.items[*].metadata.managedFields[*].manager} {.items[*].metadata.annotations}";
    let written = world.kubectl(&["get", "services,ingresses", "-A", "--show-managed-fields", managed], "");
    assert!(!written.contains("sluicegate-status") && !written.contains("sluicegate.io/assigned"), "{written}");
    let leases = world.kubectl(&["get", "leases", "-n", NAMESPACE, "-o", "name"], "");
    assert_eq!(leases, "", "the node's Lease, and that of the election");
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
