//! `sluicegate migrate --kubeconfig` against a real API server, as somebody who may only read: the verdicts are those of the same manifests
//! in a directory, nothing in the cluster changes, and a right that is missing is named.

#[path = "k8s_status/world.rs"]
#[expect(dead_code, reason = "it serves k8s_status as well")]
mod world;

#[path = "k8s_faults/traffic.rs"]
#[expect(dead_code, reason = "it serves k8s_faults as well")]
mod traffic;

#[path = "k8s_migrate/path.rs"]
mod documented;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ingress_tests::cluster::ControlPlane;
use ingress_tests::edge::sibling;
use ingress_tests::netns::Namespace;
use ingress_tests::place::Place;
use serde_json::Value;

const RIGHTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: ingress-nginx}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: migrate}
rules:
- {apiGroups: [networking.k8s.io], resources: [ingresses, ingressclasses], verbs: [list]}
- {apiGroups: [""], resources: [services], verbs: [list]}
- {apiGroups: [""], resources: [configmaps, secrets], verbs: [get]}
- {apiGroups: [apps], resources: [deployments, daemonsets], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: migrate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: migrate}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
"#;

const OBJECTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: plain, namespace: shop, annotations: {nginx.ingress.kubernetes.io/ssl-redirect: "false"}}
spec: {ingressClassName: nginx, rules: [{host: shop.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secret, namespace: shop, annotations: {nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users}}
spec: {ingressClassName: nginx, rules: [{host: secret.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: look, namespace: shop, annotations: {nginx.ingress.kubernetes.io/use-regex: "true"}}
spec: {ingressClassName: nginx, rules: [{host: look.example, http: {paths: [{path: '/(a)\1', pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: firewall, namespace: shop, annotations: {nginx.ingress.kubernetes.io/enable-modsecurity: "true"}}
spec: {ingressClassName: nginx, rules: [{host: firewall.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: theirs, namespace: shop}
spec: {ingressClassName: another, rules: [{host: theirs.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {name: users, namespace: shop}
stringData: {auth: "user:$apr1$x$x"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
data: {use-gzip: "true", enable-modsecurity: "true", use-forwarded-headers: "true"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
spec:
  replicas: 0
  selector: {matchLabels: {app: c}}
  template:
    metadata: {labels: {app: c}}
    spec:
      containers:
      - name: controller
        image: registry.k8s.io/ingress-nginx/controller:v1.15.1
        args: [/nginx-ingress-controller, --configmap=$(POD_NAMESPACE)/ingress-nginx-controller, --controller-class=k8s.io/ingress-nginx]
"#;

struct Judged {
    cluster: ControlPlane,
    place: Place,
}

impl Judged {
    fn migrate(&self, arguments: &[&str]) -> (i32, Value, String) {
        let mut command: Command = self.cluster.ns.command(sibling("sluicegate").expect("the binary"));
        command.arg("migrate").args(arguments).args(["-o", "json"]).env_remove("KUBERNETES_SERVICE_HOST");
        let out = command.output().expect("run it");
        let report = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        (out.status.code().unwrap_or(-1), report, String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// Of everything that it could have touched.
    fn versions(&self) -> String {
        let kinds = "ingresses,services,configmaps,secrets,leases,events";
        let path = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        self.cluster.kubectl(&["get", kinds, "--namespace", "shop", "-o", path], "").expect("list")
    }
}

fn verdicts(report: &Value) -> Vec<String> {
    let list = |items: &Value| {
        let items = items.as_array().cloned().unwrap_or_default();
        let line = |i: Value| {
            format!(
                "{} {}: {}",
                i["name"].as_str().unwrap_or_default(),
                i["verdict"].as_str().unwrap_or_default(),
                i["findings"]
            )
        };
        items.into_iter().map(line).collect::<Vec<_>>()
    };
    [list(&report["ingresses"]), list(&report["settings"]["items"]), list(&report["flags"]["items"])].concat()
}

#[test]
fn a_cluster_is_judged_as_its_manifests_are_and_left_alone() {
    let ns = Namespace::new("kmigrate").expect("a namespace");
    let cluster = ControlPlane::start("kmigrate", &Arc::clone(&ns), [127, 0, 0, 1].into()).expect("a control plane");
    let w = Judged { cluster, place: Place::new("kmigrate").expect("a directory") };
    w.cluster.apply(RIGHTS).expect("apply the rights");
    w.cluster.apply(OBJECTS).expect("apply the objects");
    let reader = w.cluster.service_account_kubeconfig("shop", "reader").expect("a kubeconfig");
    let reader = reader.to_str().expect("a path");

    let before = w.versions();
    let (code, of_cluster, told) = w.migrate(&["--kubeconfig", reader]);
    assert_eq!(code, 2, "{told}{of_cluster:#}");
    assert_eq!(w.versions(), before);
    w.place.manifest("all.yaml", OBJECTS).expect("write the manifests");
    let directory = w.place.directory.join("manifests");
    let (code, of_directory, told) = w.migrate(&[path(&directory)]);
    assert_eq!(code, 2, "{told}");
    assert_eq!(verdicts(&of_cluster), verdicts(&of_directory));
    let text = verdicts(&of_cluster).join("\n");
    for wanted in [
        "shop/plain same",
        "shop/secret same",
        "shop/look differs",
        "shop/firewall unsupported",
        "use-gzip same",
        "enable-modsecurity unsupported",
        "use-forwarded-headers differs",
    ] {
        assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
    }
    assert_eq!(of_cluster["passed_over"][0]["name"], "shop/theirs");
    assert_eq!(of_cluster["errors"], serde_json::json!([]));
    assert!(of_cluster["source"].as_str().is_some_and(|s| s.contains("https://127.0.0.1")));

    // Without a right: the verdict is not about all, and the object is named.
    w.cluster
        .apply(&RIGHTS.replace("resources: [configmaps, secrets]", "resources: [configmaps]"))
        .expect("fewer rights");
    let (code, report, _) =
        ingress_tests::wait::within(std::time::Duration::from_secs(30), "the right is gone", || {
            let said = w.migrate(&["--kubeconfig", reader]);
            (said.0 != 2).then_some(said)
        });
    assert_eq!(code, 3, "{report:#}");
    assert!(
        report["errors"][0].as_str().is_some_and(|e| e.contains("Secret shop/users") && e.contains("forbidden")),
        "{report:#}"
    );
    w.cluster
        .apply(&RIGHTS.replace("resources: [ingresses, ingressclasses]", "resources: [ingressclasses]"))
        .expect("fewer rights");
    let (code, _, told) = ingress_tests::wait::within(std::time::Duration::from_secs(30), "the right is gone", || {
        let said = w.migrate(&["--kubeconfig", reader]);
        (said.1.is_null()).then_some(said)
    });
    assert_eq!(code, 3);
    assert!(told.contains("Ingress") && told.contains("forbidden"), "{told}");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}
