//! The test kubelet keeps its word: what other cluster tests conclude from a pod's status rests on this.

use std::time::{Duration, Instant};

use ingress_tests::cluster::endpoints::ready_when;
use ingress_tests::cluster::{ControlPlane, Kubelet, Node, PATIENCE};
use ingress_tests::lan::Host;
use ingress_tests::netns::Namespace;
use ingress_tests::wait;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::Api;
use serde_json::Value;

/// A control plane and two nodes, all in one namespace.
fn cluster(label: &str) -> (ControlPlane, Kubelet) {
    let ns = Namespace::new(label).expect("make a namespace");
    let cluster = ControlPlane::start(label, &ns, [127, 0, 0, 1].into()).expect("start it");
    let host = Host { ns };
    let edge = Node::new("edge", &host, &["127.0.0.1"], 1).label("role", "edge");
    let nodes = vec![edge, Node::new("worker", &host, &["127.0.0.1"], 2)];
    let kubelet = Kubelet::start(&cluster, nodes).expect("start the kubelet");
    (cluster, kubelet)
}

/// A pod whose container is a shell command; `more` is further fields of its container, `spec` of its spec.
fn pod(name: &str, command: &str, more: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\n\
         spec: {{ {spec} containers: [{{ name: c, image: none, command: [sh, -c, '{command}'], {more} }}] }}\n---\n"
    )
}

/// What a pod's object has at a JSON pointer, as text; empty where it has nothing.
fn field(cluster: &ControlPlane, pod: &str, pointer: &str) -> String {
    let asked = cluster.with_client(async |client| Ok(Api::<Pod>::default_namespaced(client).get(pod).await?));
    let object = serde_json::to_value(asked.expect("ask for a pod")).expect("JSON");
    match object.pointer(pointer) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The status of its condition Ready.
fn is_ready(cluster: &ControlPlane, pod: &str) -> bool {
    let conditions = field(cluster, pod, "/status/conditions");
    let conditions: Vec<PodCondition> = serde_json::from_str(&conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[track_caller]
fn becomes_ready(cluster: &ControlPlane, pod: &str) {
    wait::within(PATIENCE, &format!("{pod} is ready"), || is_ready(cluster, pod).then_some(()));
}

#[track_caller]
fn becomes(cluster: &ControlPlane, pod: &str, path: &str, value: &str) {
    wait::within(PATIENCE, &format!("{pod}: {path} is {value}"), || (field(cluster, pod, path) == value).then_some(()));
}

#[test]
fn exits_restarts_and_failures_to_start_are_reported() {
    let (cluster, _kubelet) = cluster("k8sexit");
    let manifest = [
        pod("fails", "exit 3", "", "restartPolicy: Never,"),
        pod("succeeds", "exit 0", "", "restartPolicy: OnFailure,"),
        pod("restarts", "exit 1", "", ""),
        pod("unknown", "", "args: [x]", "").replace("sh, -c, ''", "no-such-program"),
        pod("nowhere", "exit 0", "", "nodeSelector: { role: none },"),
    ];
    cluster.apply(&manifest.concat()).expect("apply");
    becomes(&cluster, "fails", "/status/phase", "Failed");
    assert_eq!(field(&cluster, "fails", "/status/containerStatuses/0/state/terminated/exitCode"), "3");
    becomes(&cluster, "succeeds", "/status/phase", "Succeeded");
    wait::within(PATIENCE, "one is started again and again", || {
        let restarts = field(&cluster, "restarts", "/status/containerStatuses/0/restartCount");
        restarts.parse().is_ok_and(|restarts: u32| restarts >= 2).then_some(())
    });
    let waiting = "/status/containerStatuses/0/state/waiting/reason";
    becomes(&cluster, "unknown", waiting, "CreateContainerError");
    assert_eq!(field(&cluster, "nowhere", "/spec/nodeName"), "", "no node has that label");
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=20s"], "").expect("all of them go");
}

#[test]
fn a_pod_goes_by_its_hook_its_grace_period_and_its_own_will() {
    let (cluster, kubelet) = cluster("k8sgrace");
    let signs = cluster.directory().join("signs");
    let sign = signs.display();
    // `wait` returns when a signal comes; a shell that waits for `sleep` itself would not look.
    let polite = format!("trap \"echo term >> {sign}; exit 0\" TERM; echo set; sleep 60 & wait");
    let hook = format!("lifecycle: {{ preStop: {{ exec: {{ command: [sh, -c, \"echo hook >> {sign}\"] }} }} }}");
    let stubborn = "trap \"\" TERM; echo set; while true; do sleep 0.1; done";
    let manifest =
        [pod("polite", &polite, &hook, ""), pod("stubborn", stubborn, "", "terminationGracePeriodSeconds: 1,")];
    cluster.apply(&manifest.concat()).expect("apply");
    for pod in ["polite", "stubborn"] {
        becomes_ready(&cluster, pod);
    }
    // The trap is set a moment after the process has started.
    for pod in ["polite", "stubborn"] {
        says_set(&cluster, pod);
    }

    cluster.kubectl(&["delete", "pod", "polite", "--timeout=20s"], "").expect("it goes before its 30 seconds are over");
    assert_eq!(std::fs::read_to_string(&signs).expect("it left signs"), "hook\nterm\n");
    let asked = Instant::now();
    cluster.kubectl(&["delete", "pod", "stubborn", "--timeout=20s"], "").expect("it is killed");
    assert!(asked.elapsed() >= Duration::from_secs(1), "it had its second");
    assert_eq!(children(&cluster, "sleep"), 0, "nothing of either is left");

    cluster.apply(&pod("abandoned", "sleep 600 & echo set; wait", "", "")).expect("apply");
    says_set(&cluster, "abandoned");
    wait::within(PATIENCE, "what it started is there", || (children(&cluster, "sleep") == 1).then_some(()));
    drop(kubelet);
    wait::within(PATIENCE, "nothing outlives the kubelet", || (children(&cluster, "sleep") == 0).then_some(()));
}

/// Waits until a pod's shell has printed that it is set.
#[track_caller]
fn says_set(cluster: &ControlPlane, pod: &str) {
    let log = cluster.directory().join(format!("default_{pod}.log"));
    wait::within(PATIENCE, &format!("{pod} is set"), || {
        std::fs::read_to_string(&log).ok()?.contains("set").then_some(())
    });
}

/// How many processes of this name run in the pods of this cluster: their log is in its directory.
fn children(cluster: &ControlPlane, name: &str) -> usize {
    let logs = cluster.directory().display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|process| {
            let program = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let output = std::fs::read_link(process.path().join("fd/1")).unwrap_or_default();
            program.trim() == name && output.display().to_string().starts_with(&logs)
        })
        .count()
}

#[test]
fn readiness_follows_the_probe() {
    let (cluster, _kubelet) = cluster("k8sready");
    let probe = "readinessProbe: { httpGet: { port: 8080 }, periodSeconds: 1, failureThreshold: 1 }";
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\n\
                   spec: { selector: { app: web }, ipFamilyPolicy: RequireDualStack, ports: [{ port: 80, targetPort: 8080 }] }\n";
    cluster
        .apply(&(pod("web", "exec demo_backend web", probe, "nodeSelector: { role: edge },") + service))
        .expect("apply");
    let both = ready_when(&cluster, "web", 2);
    assert!(both.iter().all(|endpoint| endpoint.node == "edge"), "where the selector says: {both:?}");
    assert!(both.iter().any(|endpoint| endpoint.address.is_ipv6()), "an address of each family: {both:?}");
    let log = cluster.directory().join("default_web.log");
    let id = process_writing_to(&log);
    // A stopped process still accepts connections, and answers none.
    signal(id, libc::SIGSTOP);
    ready_when(&cluster, "web", 0);
    signal(id, libc::SIGCONT);
    ready_when(&cluster, "web", 2);
}

#[test]
fn pods_live_on_while_the_api_server_is_away_and_what_happened_is_told_later() {
    let (mut cluster, _kubelet) = cluster("k8saway");
    // It ends when the file appears, and then only tells: once is enough.
    let sign = cluster.directory().join("end");
    let until = format!("while test ! -e {}; do sleep 0.05; done; exit 7", sign.display());
    let kept = pod("kept", "exec demo_backend kept", "readinessProbe: { tcpSocket: { port: 9000 } }", "");
    cluster.apply(&(kept + &pod("ends", &until, "", "restartPolicy: Never,"))).expect("apply");
    for pod in ["kept", "ends"] {
        becomes_ready(&cluster, pod);
    }
    let id = process_writing_to(&cluster.directory().join("default_kept.log"));
    cluster.kill_api_server().expect("kill it");
    std::fs::write(&sign, "").expect("have the other one end");
    cluster.start_api_server().expect("start it again");
    becomes(&cluster, "ends", "/status/phase", "Failed");
    assert_eq!(id, process_writing_to(&cluster.directory().join("default_kept.log")), "the process is the same");
    assert_eq!(field(&cluster, "kept", "/status/containerStatuses/0/restartCount"), "0");
    // The watch works again.
    cluster.kubectl(&["delete", "pod", "kept", "--timeout=60s"], "").expect("it goes");
}

#[test]
fn a_daemon_set_on_the_host_network_has_a_pod_on_each_chosen_node() {
    let (cluster, _kubelet) = cluster("k8sdaemon");
    let template = |name: &str, port: u16, selector: &str| {
        format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{ name: {name} }}\nspec:\n  selector: {{ matchLabels: {{ app: {name} }} }}\n  \
             template:\n    metadata: {{ labels: {{ app: {name} }} }}\n    spec: {{ hostNetwork: true, {selector} containers: [{{ \
             name: c, image: none, command: [demo_backend, $(NODE), --http, \"{port}\", --tcp, \"{0}\", --udp, \"{0}\", --sink, \"{1}\"], \
             env: [{{ name: NODE, valueFrom: {{ fieldRef: {{ fieldPath: spec.nodeName }} }} }}] }}] }}\n---\n",
            port + 1,
            port + 2,
        )
    };
    cluster.apply(&template("edges", 7100, "nodeSelector: { role: edge },")).expect("apply");
    cluster.kubectl(&["rollout", "status", "daemonset/edges", "--timeout=60s"], "").expect("it is rolled out");
    let path = ["get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{end}"];
    assert_eq!(cluster.kubectl(&path, "").expect("ask"), "edge 127.0.0.1");
}

/// The one process whose output goes to a file.
fn process_writing_to(log: &std::path::Path) -> libc::pid_t {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut found = processes.filter(|p| std::fs::read_link(p.path().join("fd/1")).is_ok_and(|output| output == log));
    let process = found.next().unwrap_or_else(|| panic!("nobody writes to {}", log.display()));
    process.file_name().to_string_lossy().parse().expect("a process id")
}

fn signal(id: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill has no memory preconditions; the process is a pod of this test's own kubelet.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0, "signal {id}");
}
