//! The commands of `docs/migrate.md`, as they stand there, with a real API server and two agents. One of them has ingress-nginx's part: it serves
//! the class `nginx` and writes ingress-nginx's log (that it answers alike is what the recorded cases show).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ingress_tests::edge::sibling;
use ingress_tests::lan::Host;
use ingress_tests::place::Place;
use ingress_tests::wait;

use crate::traffic::Backend;
use crate::world::{PATIENCE, World};

const THEIRS: &str = "10.1.0.200";
const OURS: &str = "10.1.0.100";
const HOST: &str = "shop.example";
const REQUESTS: usize = 40;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: ingress-nginx }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: ingress-nginx-controller, namespace: ingress-nginx }
data: { proxy-body-size: 8m }
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: nginx }
spec: { controller: k8s.io/ingress-nginx }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: demo
  annotations: { nginx.ingress.kubernetes.io/rewrite-target: /$2, cert-manager.io/issuer: x }
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example
    http: { paths: [{ path: "/v1(/|$)(.*)", pathType: ImplementationSpecific, backend: { service: { name: web, port: { number: 80 } } } }] }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: old
  namespace: demo
  annotations: { kubernetes.io/ingress.class: nginx, nginx.ingress.kubernetes.io/permanent-redirect: "https://shop.example/" }
spec:
  rules:
  - host: old.example
    http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] }
"#;

/// The shell blocks of the documentation, by their first line.
fn blocks() -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/migrate.md");
    let text = fs::read_to_string(file).expect("the documentation");
    let blocks = text.split("```sh\n# ").skip(1).filter_map(|rest| rest.split("\n```").next()?.split_once('\n'));
    blocks.map(|(name, block)| (name.to_owned(), block.to_owned())).collect()
}

struct Shell<'a> {
    w: &'a World,
    directory: PathBuf,
    blocks: BTreeMap<String, String>,
    path: String,
}

impl<'a> Shell<'a> {
    fn new(w: &'a World, place: &Place) -> Self {
        let directory = place.directory.clone();
        let kubectl = directory.join("kubectl");
        let script = format!("#!/bin/sh\nexec {} kubectl \"$@\"\n", w.cluster.program().display());
        fs::write(&kubectl, script).expect("write kubectl");
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let own = sibling("sluicegate").expect("the binary");
        let own = own.parent().expect("a directory").display();
        let path = format!("{}:{own}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
        let found = std::env::split_paths(&path).any(|directory| directory.join("jq").is_file());
        assert!(found, "jq is not installed: `cargo xtask setup` installs it (package jq)");
        Self { w, directory, blocks: blocks(), path }
    }

    /// Runs a block to its end, and returns what it printed.
    #[track_caller]
    fn run(&self, name: &str) -> String {
        let block = self.blocks.get(name).unwrap_or_else(|| panic!("docs/migrate.md has no block `{name}`"));
        let mut command = self.w.cluster.ns.command("bash");
        command.args(["-euo", "pipefail", "-c", block]).current_dir(&self.directory).env("PATH", &self.path);
        command.env("KUBECONFIG", self.w.cluster.admin_kubeconfig()).env("KUBECACHEDIR", self.directory.join("cache"));
        command.env("HOME", &self.directory).env_remove("KUBERNETES_SERVICE_HOST");
        command.envs([("ADDRESS", OURS), ("NAMESPACE", "demo"), ("INGRESS", "shop"), ("HOST", HOST)]);
        let out = command.output().expect("start bash");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "`{name}` failed ({}): {said}{complaint}", out.status);
        said
    }
}

fn status(client: &Host, at: &str, host: &str, path: &str) -> String {
    let (resolve, url) = (format!("{host}:80:{at}"), format!("http://{host}{path}"));
    let line = ["-s", "-o", "/dev/null", "--max-time", "5", "--resolve", &resolve, "-w", "%{http_code}", &url];
    // An address that nobody has yet is no failure of the test.
    client.ns.run("curl", &line).unwrap_or_default()
}

#[track_caller]
fn becomes(client: &Host, at: &str, host: &str, path: &str, wanted: &str) {
    let mut last = String::new();
    wait::within(PATIENCE, &format!("http://{host}{path} at {at} is answered with {wanted}"), || {
        last = status(client, at, host, path);
        (last == wanted).then_some(())
    });
}

/// What the test asked while it compared.
fn of_that_time(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.contains("?q=") && line.ends_with('\n')).collect()
}

#[test]
fn the_documented_path_leads_there_and_back() {
    let w = World::new("kmpath");
    let place = Place::new("kmpath-docs").expect("a place");
    let backend = Backend::start(&w, "one", 11);
    let shell = Shell::new(&w, &place);
    w.cluster.apply(&(backend.web() + OBJECTS)).expect("apply");
    let client = w.lan.host("c", &["10.1.0.4/24"]).expect("plug in a host");
    let (theirs, ours) = (place.directory.join("theirs.all"), place.directory.join("ours.all"));
    let log = |path: &Path| format!("--access-log={}", path.display());
    let nginx = ["--controller-class=k8s.io/ingress-nginx", "--ingress-class=nginx", "--access-log-format=combined"];
    let vip = format!("--ingress-vip={THEIRS}");
    let mut a = w.edge("a", 1, &[&nginx[..], &[&vip, &log(&theirs)]].concat());
    a.agent.start_again().expect("start the agent in ingress-nginx's part");
    becomes(&client, THEIRS, HOST, "/v1/x", "200");

    let judged = shell.run("judge");
    assert!(judged.contains("2 Ingresses") && judged.contains("exit code 0"), "{judged}");
    shell.run("install");
    let mut b = w.edge("b", 2, &["--configmap=ingress-nginx/ingress-nginx-controller", &log(&ours)]);
    b.agent.start_again().expect("start the agent");
    shell.run("copy");
    becomes(&client, OURS, HOST, "/v1/x", "200");
    becomes(&client, OURS, "old.example", "/", "301");
    assert_eq!(status(&client, THEIRS, HOST, "/v1/x"), "200", "both serve");
    let copy = w.kubectl(&["get", "ingress", "shop-sluicegate", "--namespace=demo", "-o", "yaml"]);
    assert!(copy.contains("rewrite-target") && !copy.contains("cert-manager"), "{copy}");

    shell.run("mirror");
    // The first that is mirrored shows that the annotation is in force.
    wait::within(PATIENCE, "requests are mirrored", || {
        status(&client, THEIRS, HOST, "/v1/first");
        fs::read_to_string(&ours).unwrap_or_default().contains("/v1/first").then_some(())
    });
    for i in 0..REQUESTS {
        assert_eq!(status(&client, THEIRS, HOST, &format!("/v1/{i}?q={}", i % 3)), "200");
    }
    // Logs are written in batches.
    wait::within(PATIENCE, "all are in both logs", || {
        [&theirs, &ours].iter().all(|log| of_that_time(log).lines().count() >= REQUESTS).then_some(())
    });
    for log in [&theirs, &ours] {
        fs::write(log.with_extension("log"), of_that_time(log)).expect("write the log of that time");
    }
    let compared = shell.run("compare");
    assert!(compared.contains("answered alike"), "{compared}");
    shell.run("unmirror");

    // Those who ask us already notice nothing of the switch.
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                failed.fetch_or(status(&client, OURS, HOST, "/v1/meanwhile") != "200", Ordering::Relaxed);
                asked += 1;
            }
            asked
        });
        let switched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            shell.run("switch");
            becomes(&client, THEIRS, HOST, "/v1/x", "404");
        }));
        stop.store(true, Ordering::Relaxed);
        let asked = asked.join().expect("the client");
        assert!(switched.is_ok() && asked > 5, "{asked} requests meanwhile");
    });
    assert!(!failed.load(Ordering::Relaxed), "a request failed during the switch");
    assert_eq!(status(&client, OURS, "old.example", "/"), "301");
    let left = w.kubectl(&["get", "ingress", "--namespace=demo", "-o", "name"]);
    assert_eq!(left.split_whitespace().count(), 2, "{left}");

    shell.run("back");
    becomes(&client, THEIRS, HOST, "/v1/x", "200");
    becomes(&client, THEIRS, "old.example", "/", "301");
    becomes(&client, OURS, HOST, "/v1/x", "404");
}
