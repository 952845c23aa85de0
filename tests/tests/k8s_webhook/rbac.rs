//! The webhook's shipped roles against the requests that it really made, as the API server's audit log has them: what is used is
//! granted, and what is granted is used. A verb that somebody takes away, or adds in vain, makes this fail by its name.

use std::time::{Duration, SystemTime};

use ingress_tests::audit::{self, Audit, Right};
use ingress_tests::wait;
use ingress_tests::webhook_site::{PATIENCE, WebhookSite};
use serde_json::Value;

use crate::Made;

const NAMESPACE: &str = "sluicegate-system";
const CERTIFICATE: &str = "sluicegate-webhook-certificate";

#[test]
fn every_granted_verb_is_used_and_every_use_is_granted() {
    let mut w = WebhookSite::new("kwrbac");
    let directory = w.place.directory.clone();
    let audit = Audit::begin(&mut w.cluster, &format!("{NAMESPACE}:sluicegate-webhook"), &directory);
    // The first start makes a certificate and has it trusted. This API server streams lists.
    w.start(&["--udp-services-configmap", "sluicegate-system/udp-services"]);
    w.is_asked();
    w.kill();
    // An older one does not; and a certificate that is about to expire is to be renewed.
    audit.restart(&mut w.cluster, &["--feature-gates=WatchList=false"]);
    let old = Made::new(SystemTime::now() - Duration::from_mins(4), Duration::from_mins(6));
    w.cluster.apply(&old.secret()).expect("plant a Secret");
    w.start(&["--udp-services-configmap", "sluicegate-system/udp-services"]);

    let label = "app.kubernetes.io/part-of=sluicegate";
    let roles = w.cluster.kubectl(&["get", "clusterroles,roles", "-A", "-l", label, "-o", "json"], "").expect("roles");
    let roles: Value = serde_json::from_str(&roles).expect("kubectl prints JSON");
    let granted = audit::granted(roles["items"].as_array().expect("roles"));
    let mut missing = Vec::new();
    let found = wait::holds(PATIENCE, || {
        missing = audit.differences(&granted).0;
        missing.is_empty()
    });
    assert!(found, "granted, and never used: {missing:?}; its log:\n{}", w.log());
    assert_eq!(audit.differences(&granted).1, Vec::<Right>::new(), "used, and not granted by a shipped role");
    for request in audit.requests() {
        assert_eq!(request["annotations"]["authorization.k8s.io/decision"], "allow", "{request}");
        let object = &request["objectRef"];
        let allowed: &[&str] = match object["resource"].as_str() {
            // The name of what is created is in the body.
            Some("secrets") if request["verb"] == "create" => continue,
            Some("secrets") => &[CERTIFICATE],
            Some("configmaps") => &["tcp-services", "udp-services"],
            Some("validatingwebhookconfigurations") => &["sluicegate"],
            _ => continue,
        };
        assert!(object["name"].as_str().is_some_and(|name| allowed.contains(&name)), "{request}");
    }
    assert!(!w.log().contains("forbidden"), "{}", w.log());
}
