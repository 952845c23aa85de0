//! The shipped roles against the requests that an agent really made, as the API server's audit log has them: what is used is granted, and
//! what is granted is used. A verb that somebody takes away, or adds in vain, makes this fail by its name.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingress_tests::audit::{self, Audit, Right, right};
use ingress_tests::netns::Running;
use ingress_tests::wait::{self, within};

use crate::world::{NAMESPACE, PATIENCE, World};

/// More certificates, and ConfigMaps, than are watched: the others are asked for with `get`.
const CERTIFICATES: usize = 40;

/// Its status is written; the addresses are those that the app names.
const POOL: &str = "{ apiVersion: sluicegate.io/v1alpha1, kind: VirtualIPPool, metadata: { name: public }, \
    spec: { addresses: [10.3.0.100-10.3.0.110] } }";

#[test]
fn every_granted_verb_is_used_and_every_use_is_granted() {
    let mut world = World::new("rbac");
    let audit = Audit::begin(&mut world.cluster, "sluicegate-system:sluicegate", &world.place.directory);
    world.kustomize(&["apply"], "kustomize/base");
    world.apply_app();
    world.kubectl(&["apply", "-f", "-"], &certificates());
    world.kubectl(&["apply", "-f", "-"], &config_maps());
    world.kubectl(&["wait", "--for=condition=Established", "crd/virtualippools.sluicegate.io", "--timeout=60s"], "");
    world.kubectl(&["apply", "-f", "-"], POOL);
    let ports = "--from-literal=9001=default/echo:9000";
    world.kubectl(&["create", "configmap", "tcp-services", "-n", NAMESPACE, ports], "");
    let pod = world.pod(None);

    // This API server streams lists; older ones do not.
    let agent = world.start(&pod);
    for resource in ["secrets", "configmaps"] {
        within(PATIENCE, "one beyond those watched is asked for", || {
            audit.used().contains(&right("", resource, "get")).then_some(())
        });
    }
    within(PATIENCE, "what the agent after it finds told already is told", || {
        audit.used().contains(&right("events.k8s.io", "events", "create")).then_some(())
    });
    stop(agent);
    audit.restart(&mut world.cluster, &["--feature-gates=WatchList=false"]);
    fs::remove_dir_all(world.place.directory.join("state")).expect("forget what the cluster said");
    let _agent = world.start(&pod);
    let roles = world.json(&["get", "clusterroles,roles", "-A", "-l", "app.kubernetes.io/part-of=sluicegate"]);
    let granted = audit::granted(roles["items"].as_array().expect("roles"));
    let mut missing = Vec::new();
    let found = wait::holds(PATIENCE / 4, || {
        missing = audit.differences(&granted).0;
        missing.is_empty()
    });
    assert!(found, "granted, and never used: {missing:?}");
    assert_eq!(audit.differences(&granted).1, Vec::<Right>::new(), "used, and not granted by a shipped role");
    for request in audit.requests() {
        assert_eq!(request["annotations"]["authorization.k8s.io/decision"], "allow", "{request}");
        let object = &request["objectRef"];
        if object["resource"] == "secrets" || object["resource"] == "configmaps" {
            assert!(object["name"].is_string(), "they are asked for one by one: {request}");
        }
    }
}

fn stop(mut agent: Running) {
    agent.signal(libc::SIGTERM);
    within(PATIENCE, "the agent ends by SIGTERM", || agent.0.try_wait().expect("wait"));
}

/// An Ingress with a TLS Secret for each of its hosts.
fn certificates() -> String {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("a certificate");
    let (certificate, key) = (STANDARD.encode(made.cert.pem()), STANDARD.encode(made.signing_key.serialize_pem()));
    let mut documents = Vec::new();
    let mut tls = Vec::new();
    for n in 0..CERTIFICATES {
        documents.push(format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: tls-{n} }}\ntype: kubernetes.io/tls\n\
             data: {{ tls.crt: {certificate}, tls.key: {key} }}\n"
        ));
        tls.push(format!("{{ hosts: [h{n}.example], secretName: tls-{n} }}"));
    }
    documents.push(format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: many }}\n\
         spec: {{ ingressClassName: sluicegate, tls: [{}], \
         rules: [{{ host: h0.example, http: {{ paths: [{{ path: /, pathType: Prefix, \
         backend: {{ service: {{ name: echo, port: {{ name: http }} }} }} }}] }} }}] }}\n",
        tls.join(", ")
    ));
    documents.join("---\n")
}

/// Ingresses that name as many ConfigMaps.
fn config_maps() -> String {
    let documents = (0..CERTIFICATES).map(|n| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: fields-{n} }}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: fields-{n}, \
             annotations: {{ nginx.ingress.kubernetes.io/custom-headers: fields-{n} }} }}\n\
             spec: {{ ingressClassName: sluicegate, rules: [{{ host: f{n}.example, http: {{ paths: [{{ path: /, \
             pathType: Prefix, backend: {{ service: {{ name: echo, port: {{ name: http }} }} }} }}] }} }}] }}\n"
        )
    });
    documents.collect::<Vec<_>>().join("---\n")
}
