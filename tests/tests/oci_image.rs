//! The image: an archive that any runtime takes, the same bytes each time, and in it an agent that runs on nothing but what it brings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ingress_tests::container::Machine;
use ingress_tests::deploy;
use ingress_tests::lan::Lan;
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::wait::within;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;

#[test]
fn the_same_binary_makes_the_same_archive() {
    let place = Place::new("image-same").expect("make a place");
    let [first, second] = ["a.tar", "b.tar"].map(|name| place.directory.join(name));
    // Any program will do, and a small one is packed sooner.
    let pack = |archive: &Path| deploy::pack_program(Path::new("/bin/ls"), archive).expect("pack");
    let digests = [pack(&first), pack(&second)];
    assert_eq!(digests[0], digests[1]);
    assert!(fs::read(&first).expect("read") == fs::read(&second).expect("read"), "the archives differ");
}

/// With the capabilities, the mounts and the read-only root of the DaemonSet, but without a cluster.
#[test]
fn the_agent_runs_on_what_the_image_brings() {
    let place = Place::new("image-run").expect("make a place");
    let archive = place.directory.join("image.tar");
    deploy::pack(&archive).expect("pack");
    let image = deploy::unpack(&archive, &place.directory).expect("unpack");
    assert_eq!(image.entrypoint, ["/sluicegate"]);
    let files = files(&image.root);
    let library = |name: &str| name.starts_with("ld-linux") || name.starts_with("lib");
    let others: Vec<_> = files.iter().filter(|name| !library(name)).collect();
    assert_eq!(others, ["sluicegate"], "nothing but the agent and its libraries: {files:?}");

    let lan = Lan::new("image").expect("make the LAN");
    let edge = lan.host("edge", &["10.4.0.2/24"]).expect("plug it in");
    edge.route_by(&["10.4.0.1"]).expect("a default route");
    fs::create_dir_all(&place.pins).expect("make the node's /sys/fs/bpf");
    fs::create_dir_all(place.directory.join("state")).expect("make the node's /var/lib/sluicegate");
    let machine = Machine {
        ns: &edge.ns,
        name: "edge",
        address: "10.4.0.2",
        paths: BTreeMap::from([
            ("/sys/fs/bpf", place.pins.clone()),
            ("/proc/sys/net", "/proc/sys/net".into()),
            ("/var/lib/sluicegate", place.directory.join("state")),
        ]),
        directory: &place.directory,
    };
    let pod = shipped_pod();
    let start = |arguments: &[&str]| {
        let mut container: Container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        container.args = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
        let manifests = [("/manifests", place.directory.join("manifests"))];
        let mut command = machine.container(&image, &pod, &container, &manifests, &[]).expect("a container");
        let log = File::options().create(true).append(true).open(place.directory.join("log")).expect("open the log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share it")).stderr(log);
        Running(command.spawn().expect("start the container"))
    };
    let said = || fs::read_to_string(place.directory.join("log")).unwrap_or_default();

    assert!(start(&["version"]).0.wait().expect("wait").success(), "{}", said());
    assert!(said().starts_with(&format!("sluicegate {}", env!("CARGO_PKG_VERSION"))), "{}", said());
    let mut agent = start(&["run", "--manifests", "/manifests"]);
    within(Duration::from_mins(1), "it is attached and ready", || {
        let ended = agent.0.try_wait().expect("wait");
        assert!(ended.is_none(), "it ended ({ended:?}):\n{}", said());
        edge.run("curl", &["-sf", "http://127.0.0.1:10254/readyz"]).ok()
    });
    let link = edge.ip(&["-d", "link", "show", "dev", "eth0"]).expect("look at the interface");
    assert!(link.contains("xdp"), "{link}");
    assert_eq!(edge.run("cat", &["/proc/sys/net/ipv4/ip_forward"]).expect("read").trim(), "1");
    agent.signal(libc::SIGTERM);
    let status = within(Duration::from_mins(1), "it ends", || agent.0.try_wait().expect("wait"));
    assert!(status.success(), "{status}: {}", said());
}

/// The DaemonSet's pod, as the base says it.
fn shipped_pod() -> Pod {
    let text = fs::read_to_string(deploy::path("kustomize/base/daemon-set.yaml")).expect("read the DaemonSet");
    let set: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let template = &set["spec"]["template"];
    serde_json::from_value(json!({
        "metadata": { "name": "sluicegate-1", "namespace": "sluicegate-system", "labels": template["metadata"]["labels"] },
        "spec": template["spec"],
    }))
    .expect("a pod")
}

/// The names of all files below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("read a directory").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
