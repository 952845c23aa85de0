//! The shipped roles against the requests that an agent really made, as the API server's audit log has them: what is used is granted, and
//! what is granted is used. A verb that somebody takes away, or adds in vain, makes this fail by its name.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingress_tests::netns::Running;
use ingress_tests::wait::{self, within};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use crate::world::{NAMESPACE, PATIENCE, World};

/// More certificates than are watched: the others are asked for with `get`.
const CERTIFICATES: usize = 40;
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
    - { level: Metadata, users: ['system:serviceaccount:sluicegate-system:sluicegate'] }\n- { level: None }\n";

/// A right: API group, resource (with subresource), verb.
type Right = (String, String, String);

#[test]
fn every_granted_verb_is_used_and_every_use_is_granted() {
    let mut world = World::new("rbac");
    let (policy, log) = (world.place.directory.join("policy.yaml"), world.place.directory.join("audit.log"));
    fs::write(&policy, POLICY).expect("write the policy");
    let audit = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    world.cluster.api_server_flags = audit.to_vec();
    restart(&mut world);
    world.kustomize(&["apply"], "kustomize/base");
    world.apply_app();
    world.kubectl(&["apply", "-f", "-"], &certificates());
    let ports = "--from-literal=9001=default/echo:9000";
    world.kubectl(&["create", "configmap", "tcp-services", "-n", NAMESPACE, ports], "");
    let pod = world.pod(None);

    // This API server streams lists; older ones do not.
    let agent = world.start(&pod);
    within(PATIENCE, "a certificate beyond those watched is asked for", || {
        used(&log).contains(&right("", "secrets", "get")).then_some(())
    });
    stop(agent);
    world.cluster.api_server_flags = [&audit[..], &["--feature-gates=WatchList=false".to_owned()]].concat();
    restart(&mut world);
    fs::remove_dir_all(world.place.directory.join("state")).expect("forget what the cluster said");
    let _agent = world.start(&pod);
    let granted = granted(&world);
    let mut missing = Vec::new();
    let found = wait::holds(PATIENCE / 4, || {
        missing = granted.difference(&used(&log)).cloned().collect();
        missing.is_empty()
    });
    assert!(found, "granted, and never used: {missing:?}");
    let more: Vec<Right> = used(&log).difference(&granted).cloned().collect();
    assert_eq!(more, Vec::<Right>::new(), "used, and not granted by a shipped role");
    for request in requests(&log) {
        assert_eq!(request["annotations"]["authorization.k8s.io/decision"], "allow", "{request}");
        let object = &request["objectRef"];
        if object["resource"] == "secrets" {
            assert!(object["name"].is_string(), "Secrets are asked for one by one: {request}");
        }
        if object["resource"] == "configmaps" {
            assert_eq!(object["namespace"], NAMESPACE, "{request}");
        }
    }
}

fn stop(mut agent: Running) {
    agent.signal(libc::SIGTERM);
    within(PATIENCE, "the agent ends by SIGTERM", || agent.0.try_wait().expect("wait"));
}

fn restart(world: &mut World) {
    world.cluster.stop_api_server().expect("stop the API server");
    world.cluster.start_api_server().expect("start it again");
}

fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

/// Requests for objects; those for paths such as /version are allowed to everybody.
fn requests(log: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may not be whole yet.
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["objectRef"].is_object() && event["stage"] != "RequestReceived").collect()
}

fn used(log: &std::path::Path) -> BTreeSet<Right> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |event: &Value| {
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        (text(&object["apiGroup"]), resource, text(&event["verb"]))
    };
    requests(log).iter().map(one).collect()
}

/// All that the shipped roles say.
fn granted(world: &World) -> BTreeSet<Right> {
    let label = "app.kubernetes.io/part-of=sluicegate";
    let list = world.json(&["get", "clusterroles,roles", "-A", "-l", label]);
    let mut granted = BTreeSet::new();
    for role in list["items"].as_array().expect("roles") {
        let rules: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone()).expect("rules");
        for rule in rules {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    granted.extend(rule.verbs.iter().map(|verb| right(group, resource, verb)));
                }
            }
        }
    }
    assert!(granted.len() >= 10, "{granted:?}");
    granted
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
