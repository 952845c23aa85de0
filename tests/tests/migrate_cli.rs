//! `sluicegate migrate DIR` as a person and a pipeline use it: the real binary, a directory as it lies in a repository, and the exit code.

use std::fs;
use std::process::{Command, Output};

use ingress_tests::edge::sibling;
use ingress_tests::place::Place;
use serde_json::Value;

const SAME: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop, annotations: {nginx.ingress.kubernetes.io/rewrite-target: /$2}}
spec: {ingressClassName: nginx, rules: [{host: shop.example, http: {paths: [{path: /api(/|$)(.*), pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: elsewhere, namespace: shop}
spec: {ingressClassName: other, rules: [{host: other.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
";

const FIREWALL: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: firewall, namespace: shop, annotations: {nginx.ingress.kubernetes.io/enable-modsecurity: "true"}}
spec: {ingressClassName: nginx, rules: [{host: waf.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
"#;

/// As the chart makes it, without what does not matter here.
const CONTROLLER: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: edge-controller, namespace: edge}
data: {use-gzip: "true", use-forwarded-headers: "true"}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: edge-controller, namespace: edge}
spec: {template: {spec: {containers: [{name: controller, image: "registry.k8s.io/ingress-nginx/controller:v1.15.1",
  args: [/nginx-ingress-controller, --configmap=$(POD_NAMESPACE)/edge-controller, --publish-service=edge/edge-controller, --watch-ingress-without-class=true]}]}}}
"#;

struct Directory(Place);

impl Directory {
    fn new(label: &str, files: &[(&str, &str)]) -> Self {
        let place = Place::new(label).expect("a directory");
        let directory = Self(place);
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.directory.join("manifests").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("write a manifest");
    }

    fn migrate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(sibling("sluicegate").expect("the binary"));
        command.arg("migrate").arg(self.0.directory.join("manifests")).args(arguments);
        command.env_remove("KUBERNETES_SERVICE_HOST").output().expect("run it")
    }

    #[track_caller]
    fn text(&self, code: i32) -> String {
        let out = self.migrate(&[]);
        let text = String::from_utf8(out.stdout).expect("text");
        assert_eq!(out.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "no line says {words:?}:\n{text}");
}

#[test]
fn the_exit_code_is_that_of_the_worst() {
    let directory = Directory::new("migcode", &[("apps/shop/ingress.yaml", SAME)]);
    let text = directory.text(0);
    says(&text, &["same", "shop/shop", "apps/shop/ingress.yaml, document 1"]);
    says(&text, &["shop/elsewhere", "class other"]);
    says(&text, &["exit code 0"]);

    directory.write("controller.yaml", CONTROLLER);
    let text = directory.text(1);
    says(&text, &["SETTINGS", "edge/edge-controller", "controller.yaml, document 1"]);
    says(&text, &["same", "use-gzip"]);
    says(&text, &["differs", "use-forwarded-headers"]);
    says(&text, &["same", "--watch-ingress-without-class=true"]);
    says(&text, &["same", "--publish-service"]);
    says(&text, &["sluicegate run", "--configmap=edge/edge-controller", "--watch-ingress-without-class"]);

    directory.write("apps/firewall.yml", FIREWALL);
    let text = directory.text(2);
    says(&text, &["unsupported", "shop/firewall", "apps/firewall.yml, document 1"]);
    says(&text, &["enable-modsecurity", "instead:"]);
    says(&text, &["2 Ingresses", "1 same", "1 unsupported"]);

    directory.write(
        "controller.yaml",
        &CONTROLLER.replace("/nginx-ingress-controller,", "/nginx-ingress-controller, --watch-namespace=elsewhere,"),
    );
    let text = directory.text(1);
    says(&text, &["shop/firewall", "not watched"]);
    says(&text, &["no Ingress of ingress-nginx's"]);
    // Annotations with another prefix are read as with that flag, and the others are nobody's.
    let other = "/nginx-ingress-controller, --annotations-prefix=a.example, --watch-namespace-selector=team=a,";
    directory.write("controller.yaml", &CONTROLLER.replace("/nginx-ingress-controller,", other));
    let prefixed = FIREWALL.replace("nginx.ingress.kubernetes.io/", "a.example/").replace("firewall", "moved");
    directory.write("moved.yaml", &prefixed);
    let text = directory.text(2);
    says(&text, &["same", "shop/firewall"]);
    says(&text, &["unsupported", "shop/moved"]);
    says(&text, &["sluicegate run", "--annotations-prefix=a.example", "--watch-namespace-selector=team=a"]);
    says(&text, &["the labels of namespaces are not known here", "`team=a`"]);
    fs::remove_file(directory.0.directory.join("manifests/moved.yaml")).expect("remove it");
    directory.write("controller.yaml", CONTROLLER);

    // What cannot be read hides nothing of the rest, and is not passed over.
    directory.write("broken.yaml", "kind: Ingress\n  apiVersion: x\n: [");
    let text = directory.text(3);
    says(&text, &["broken.yaml, document 1", "broken YAML"]);
    says(&text, &["unsupported", "shop/firewall"]);
}

#[test]
fn programs_get_json() {
    let files = [("ingress.yaml", SAME), ("firewall.yaml", FIREWALL), ("controller.yaml", CONTROLLER)];
    let directory = Directory::new("migjson", &files);
    let out = directory.migrate(&["-o", "json"]);
    assert_eq!(out.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let named = |list: &Value, name: &str| {
        let items = list.as_array().expect("a list").iter().find(|i| i["name"] == name).cloned();
        items.unwrap_or_else(|| panic!("no {name} in {list:#}"))
    };
    assert_eq!(named(&report["ingresses"], "shop/shop")["verdict"], "same");
    let firewall = named(&report["ingresses"], "shop/firewall");
    assert_eq!(
        (&firewall["verdict"], &firewall["place"]),
        (&"unsupported".into(), &"firewall.yaml, document 1".into())
    );
    assert_eq!(
        firewall["findings"][0]["field"],
        "metadata.annotations[nginx.ingress.kubernetes.io/enable-modsecurity]"
    );
    assert!(firewall["findings"][0]["instead"].as_str().is_some_and(|t| t.contains("firewall")));
    let forwarded = named(&report["settings"]["items"], "use-forwarded-headers");
    assert!(forwarded["findings"][0]["difference"]["there"] == "from anybody", "{forwarded:#}");
    assert_eq!(report["summary"]["ingresses"]["unsupported"], 1);
    assert_eq!(report["summary"]["exit_code"], 2);
    assert_eq!(report["passed_over"][0]["class"], "other");
    assert!(report["everybody"].as_array().is_some_and(|rows| rows.len() > 3));
}

#[test]
fn a_mistake_is_no_verdict() {
    let directory = Directory::new("migbad", &[("ingress.yaml", SAME)]);
    for (arguments, word) in [
        (&["--no-such-option"][..], "no-such-option"),
        (&["-o", "xml"], "--output"),
        (&["--configmap", "nothing"], "--configmap"),
        (&["--kubeconfig", "/dev/null"], "--kubeconfig"),
    ] {
        let out = directory.migrate(arguments);
        assert_eq!(out.status.code(), Some(3), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&out.stderr).contains(word),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let mut command = Command::new(sibling("sluicegate").expect("the binary"));
    let missing = command.args(["migrate", "/no/such/directory"]).output().expect("run it");
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/directory"));
    let none = Command::new(sibling("sluicegate").expect("the binary"))
        .arg("migrate")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output();
    let none = none.expect("run it");
    assert_eq!(none.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--kubeconfig"));
}

#[test]
fn what_others_wrote_cannot_move_the_terminal() {
    let hostile = SAME.replace("shop.example", "\"a\\e[2J.example\"").replace("/$2", "\"/\\e[31m;{}\"");
    let directory = Directory::new("mighostile", &[("a.yaml", &hostile)]);
    let out = directory.migrate(&[]);
    assert!(!out.stdout.contains(&0x1b), "{}", String::from_utf8_lossy(&out.stdout));
}
