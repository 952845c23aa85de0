//! What the overlays and the chart render: the same objects, which an API server takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ingress_tests::cluster::ControlPlane;
use ingress_tests::deploy;
use ingress_tests::netns::Namespace;
use ingress_tests::place::Place;
use serde_json::{Value, json};

use crate::world::NAMESPACE;

/// Overlays of the base with components, and the values that say the same to the chart.
const SAME: [(&[&str], &str); 4] = [
    (&[], ""),
    (&["components/failover", "components/flow-sync"], ",failover.enabled=true,flowSync.secret=sluicegate-flow-sync"),
    (&["webhook"], ",webhook.enabled=true"),
    (&["webhook", "components/webhook-cert-manager"], ",webhook.enabled=true,webhook.certManager.enabled=true"),
];

/// Of cert-manager the names alone, so that objects of its kinds can be applied.
const CERT_MANAGER: [(&str, &str); 2] = [("certificates", "Certificate"), ("issuers", "Issuer")];

struct Site {
    cluster: ControlPlane,
    files: Place,
}

impl Site {
    fn new(label: &str) -> Self {
        let ns = Namespace::new(label).expect("a namespace");
        let cluster = ControlPlane::start(label, &ns, [127, 0, 0, 1].into()).expect("start it");
        let files = Place::new(&format!("{label}-files")).expect("make a place");
        Self { cluster, files }
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.cluster.kubectl(arguments, input).unwrap_or_else(|e| panic!("{e:#}"))
    }

    fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.cluster.ns.command(deploy::helm().expect("helm"));
        command.args(arguments).env("KUBECONFIG", self.cluster.admin_kubeconfig()).env("HOME", &self.files.directory);
        deploy::run(&mut command).map_err(|e| format!("{e:#}"))
    }

    /// An overlay of the base with components of `deploy/kustomize`.
    fn overlay(&self, name: &str, components: &[&str]) -> PathBuf {
        let directory = self.files.directory.join(name);
        std::fs::create_dir_all(&directory).expect("make a directory");
        // Kustomize wants relative paths.
        let up = "../".repeat(directory.components().count() - 1);
        let text = |part: &&str| {
            let path = deploy::path("kustomize").join(part).canonicalize().expect("it exists");
            format!("{up}{}", path.display().to_string().trim_start_matches('/'))
        };
        let components: Vec<String> = components.iter().map(text).collect();
        let text = format!("resources: [{}]\ncomponents: [{}]\n", text(&"base"), components.join(", "));
        std::fs::write(directory.join("kustomization.yaml"), text).expect("write");
        directory
    }

    fn rendered(&self, directory: &Path) -> String {
        self.kubectl(&["kustomize", &directory.display().to_string()], "")
    }

    /// The API server's own judgement. The Prometheus operator's kinds are not installed here.
    fn judge(&self, rendered: &str, what: &str) {
        let documents: Vec<&str> = rendered.split("\n---\n").filter(|d| !d.contains("monitoring.coreos.com")).collect();
        let judged = self.cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], &documents.join("\n---\n"));
        judged.unwrap_or_else(|e| panic!("{what}: {e:#}"));
    }

    fn as_json(&self, yaml: &str) -> BTreeMap<String, Value> {
        by_name(&self.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", "-"], yaml))
    }

    fn know_cert_manager(&self) {
        for (plural, kind) in CERT_MANAGER {
            let singular = kind.to_lowercase();
            self.kubectl(
                &["apply", "-f", "-"],
                &format!(
                    "{{ apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, \
                     metadata: {{ name: {plural}.cert-manager.io }}, \
                     spec: {{ group: cert-manager.io, scope: Namespaced, \
                     names: {{ plural: {plural}, singular: {singular}, kind: {kind} }}, versions: [{{ name: v1, \
                     served: true, storage: true, schema: {{ openAPIV3Schema: \
                     {{ type: object, x-kubernetes-preserve-unknown-fields: true }} }} }}] }} }}"
                ),
            );
            let name = format!("crd/{plural}.cert-manager.io");
            self.kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"], "");
        }
    }
}

#[test]
fn the_chart_renders_what_the_overlays_say() {
    let site = Site::new("chart");
    site.know_cert_manager();
    site.kubectl(&["apply", "-f", &deploy::path("kustomize/base/namespace.yaml").display().to_string()], "");
    let chart = deploy::path("charts/sluicegate").display().to_string();
    for (n, (components, values)) in SAME.iter().enumerate() {
        let directory = site.overlay(&format!("same-{n}"), components);
        let said = site.rendered(&directory);
        let mut wanted = site.as_json(&said);
        // Helm installs these from the chart's `crds` and does not render them; that they are the same is the test `crds`'.
        wanted.retain(|name, _| !name.contains("CustomResourceDefinition"));
        let values = format!("namespace.create=true{values}");
        let template = ["template", "sluicegate", &chart, "--namespace", NAMESPACE, "--set", &values];
        let rendered = site.helm(&template).expect("render the chart");
        let found = site.as_json(&rendered);
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{values}");
        for (name, object) in &wanted {
            assert_eq!(found[name], *object, "{values}: {name}");
        }
        let webhook = components.contains(&"webhook");
        assert_eq!(wanted.keys().any(|name| name.contains("webhook")), webhook, "{:?}", wanted.keys());
        site.judge(&said, &format!("{components:?}"));
        site.judge(&rendered, &values);
    }
}

/// What helm itself does with the chart, and with what is wrong.
#[test]
fn the_chart_is_installed_upgraded_and_uninstalled() {
    let site = Site::new("helm");
    let chart = deploy::path("charts/sluicegate").display().to_string();
    site.helm(&["lint", "--strict", &chart]).expect("lint");
    let install = ["install", "edge", &chart, "--namespace", NAMESPACE, "--create-namespace"];
    for (wrong, word) in [
        ("interface=", "interface"),
        ("ingresVips={1.2.3.4}", "ingresVips"),
        ("webhook.conflicts=refuse", "conflicts"),
        ("webhook.enable=true", "enable"),
        ("dnsServers={10.96.0.10}", "dnsServers"),
        ("failover.intervalMs=15", "intervalMs"),
        ("failover.routers={203.0.113.10}", "routers"),
        ("failover.checks={http://127.0.0.1/}", "checks"),
        ("flowSync.peers={192.0.2.1}", "flowSync.secret"),
    ] {
        let refused = site.helm(&[&install[..], &["--set", wrong]].concat()).expect_err("it is refused");
        assert!(refused.contains(word), "{refused}");
    }
    let more = "name=edge,ingressVips={203.0.113.10},tcp.9000=a/b:c,rbac.certificateNamespaces={default},\
                watchIngressWithoutClass=true,externalNames=false,\
                dnsServers={10.96.0.10:53},ingressClass.annotation=front,ingressClass.byName=true,webhook.enabled=true,webhook.conflicts=warn,\
                env[0].name=SLUICEGATE_EXTERNAL_IPS,env[0].value=yes,\
                env[1].name=SLUICEGATE_HASH_SEED,env[1].value=secret,\
                env[2].name=SLUICEGATE_ANNOTATIONS_PREFIX,env[2].value=edge.example,watchNamespaceSelector=team=edge";
    site.helm(&[&install[..], &["--set", more]].concat()).expect("install");
    let there = |object: &str| site.kubectl(&["get", object, "-n", NAMESPACE, "-o", "json"], "");
    let (agent, webhook) = (there("daemonset/edge"), there("deployment/edge-webhook"));
    for shared in [
        "203.0.113.10",
        "SLUICEGATE_WATCH_INGRESS_WITHOUT_CLASS",
        "SLUICEGATE_EXTERNAL_IPS",
        "SLUICEGATE_DISABLE_SVC_EXTERNAL_NAME",
        "SLUICEGATE_INGRESS_CLASS_BY_NAME",
        "SLUICEGATE_ANNOTATIONS_PREFIX",
        "\"team=edge\"",
    ] {
        assert!(agent.contains(shared) && webhook.contains(shared), "{shared} is told to both:\n{agent}\n{webhook}");
    }
    assert!(agent.contains("10.96.0.10:53"), "{agent}");
    for role in ["clusterrole/edge", "clusterrole/edge-webhook"] {
        assert!(there(role).contains("\"namespaces\""), "{role} may find out whose labels are meant: {}", there(role));
    }
    assert!(agent.contains("SLUICEGATE_HASH_SEED") && !webhook.contains("SLUICEGATE_HASH_SEED"), "{webhook}");
    // A release of another name has a webhook of another name, and tells it so.
    for own in ["edge-webhook-certificate", "SLUICEGATE_WEBHOOK_SERVICE", "SLUICEGATE_WEBHOOK_CONFIGURATION"] {
        assert!(webhook.contains(own), "{own} in {webhook}");
    }

    // An upgrade leaves alone what the webhook wrote into its configuration.
    let trust = format!(
        "{{ apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {{ name: edge }}, \
         webhooks: [{{ name: ports.sluicegate.io, clientConfig: {{ caBundle: {} }} }}] }}",
        authority()
    );
    let manager = "--field-manager=sluicegate-webhook";
    site.kubectl(&["apply", "--server-side", manager, "-f", "-"], &trust);
    let upgrade = ["upgrade", "edge", &chart, "--namespace", NAMESPACE, "--reuse-values", "--set"];
    site.helm(&[&upgrade[..], &["webhook.exemptNamespaces={build}"]].concat()).expect("upgrade");
    let configuration = there("validatingwebhookconfiguration/edge");
    assert!(configuration.contains(&authority()) && configuration.contains("\"build\""), "{configuration}");

    site.helm(&[&upgrade[..], &["uninstall=true"]].concat()).expect("upgrade");
    let kinds = "deployments,services,validatingwebhookconfigurations,clusterroles";
    let left = site.kubectl(&["get", kinds, "-A", "-o", "name"], "");
    assert!(
        !left.contains("webhook/") && !left.contains("edge-webhook"),
        "nobody asks while nodes are cleaned: {left}"
    );
    site.helm(&["uninstall", "edge", "--namespace", NAMESPACE]).expect("uninstall");
    let left = site.kubectl(&["get", &format!("{kinds},ingressclasses"), "-A", "-o", "name"], "");
    assert!(!left.contains("edge") && !left.contains("sluicegate"), "{left}");
}

/// Every value of elections and flow sync reaches the agent, by the variable that its options name.
#[test]
fn every_value_of_failover_is_told_to_the_agent() {
    let site = Site::new("values");
    site.kubectl(&["create", "namespace", NAMESPACE], "");
    let chart = deploy::path("charts/sluicegate").display().to_string();
    let values = site.files.directory.join("values.yaml");
    let text = "failover: { enabled: true, intervalMs: 1000, version: 2, checksum: plain, vrids: 1-99, \
                routers: ['51=203.0.113.10,203.0.113.11', '52=203.0.113.12'], nodes: [a, b], peers: [192.0.2.1, 192.0.2.3], \
                checks: ['-50=http://127.0.0.1:8080/healthz', '0=exec:/check'], nopreempt: true, preemptDelay: 5s }\n\
                flowSync: { secret: shared, peers: [192.0.2.1, 192.0.2.3], port: 9999 }\n";
    std::fs::write(&values, text).expect("write");
    let template = ["template", "edge", &chart, "--namespace", NAMESPACE, "--values", &values.display().to_string()];
    let rendered = site.helm(&template).expect("render the chart");
    site.judge(&rendered, "all values");
    let objects = site.as_json(&rendered);
    let pod = &objects["\"DaemonSet\" \"sluicegate\""]["spec"]["template"]["spec"];
    let told = |name: &str| {
        let env = pod["containers"][0]["env"].as_array().expect("env");
        env.iter().find(|e| e["name"] == name).unwrap_or_else(|| panic!("{name} is told")).clone()
    };
    for (name, value) in [
        ("SLUICEGATE_VIP_MODE", "vrrp"),
        ("SLUICEGATE_VRRP_INTERVAL_MS", "1000"),
        ("SLUICEGATE_VRRP_VERSION", "2"),
        ("SLUICEGATE_VRRP_CHECKSUM", "plain"),
        ("SLUICEGATE_VRRP_VRIDS", "1-99"),
        ("SLUICEGATE_VRRP_VRID", "51=203.0.113.10,203.0.113.11;52=203.0.113.12"),
        ("SLUICEGATE_VRRP_NODES", "a,b"),
        ("SLUICEGATE_VRRP_PEERS", "192.0.2.1,192.0.2.3"),
        ("SLUICEGATE_VRRP_CHECKS", "-50=http://127.0.0.1:8080/healthz;0=exec:/check"),
        ("SLUICEGATE_VRRP_NOPREEMPT", "true"),
        ("SLUICEGATE_VRRP_PREEMPT_DELAY", "5s"),
        ("SLUICEGATE_SYNC_PEER", "192.0.2.1,192.0.2.3"),
        ("SLUICEGATE_SYNC_PORT", "9999"),
        ("SLUICEGATE_SYNC_KEY_FILE", "/etc/sluicegate/flow-sync/key"),
    ] {
        assert_eq!(told(name)["value"], value, "{name}");
    }
    assert_eq!(
        told("SLUICEGATE_HASH_SEED")["valueFrom"]["secretKeyRef"],
        json!({"name": "shared", "key": "hash-seed"})
    );
    let volumes = pod["volumes"].as_array().expect("volumes");
    assert!(volumes.iter().any(|v| v["secret"]["secretName"] == "shared"), "{volumes:?}");
}

/// As a `caBundle` has it.
fn authority() -> String {
    use base64::Engine as _;
    static MADE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("a certificate");
        base64::engine::general_purpose::STANDARD.encode(made.cert.pem())
    };
    MADE.get_or_init(make).clone()
}

/// The overlays render, and an API server takes what they say.
#[test]
fn overlays_are_accepted() {
    let site = Site::new("overlays");
    site.kubectl(&["create", "namespace", NAMESPACE], "");
    let takeover = site.overlay("takeover", &["components/takeover-ingress-nginx"]);
    let both = site.rendered(&site.overlay("both", &["webhook", "components/takeover-ingress-nginx"]));
    assert_eq!(both.matches("k8s.io/ingress-nginx").count(), 2, "both are told: {both}");
    for (directory, wanted) in [
        (deploy::path("kustomize/example"), "SLUICEGATE_ADMIN_ADDRESS"),
        (takeover.clone(), "k8s.io/ingress-nginx"),
        (deploy::path("kustomize/uninstall"), "uninstall"),
    ] {
        let rendered = site.rendered(&directory);
        assert!(rendered.contains(wanted), "{rendered}");
        site.judge(&rendered, &directory.display().to_string());
    }
    assert!(!site.rendered(&takeover).contains("kind: IngressClass"), "ours would be of a controller that is nobody");
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
