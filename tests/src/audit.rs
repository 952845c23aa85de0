//! What an API server's audit log says that somebody asked, next to what roles grant.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use crate::cluster::ControlPlane;

/// A right: API group, resource (with subresource), verb.
pub type Right = (String, String, String);

pub fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

/// The requests of one `ServiceAccount`.
pub struct Audit {
    log: PathBuf,
    flags: [String; 2],
}

impl Audit {
    /// From now on, which takes a new start of the API server. `account` is `namespace:name`; files go to `directory`.
    pub fn begin(cluster: &mut ControlPlane, account: &str, directory: &Path) -> Self {
        let (policy, log) = (directory.join("policy.yaml"), directory.join("audit.log"));
        let text = format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
             - {{ level: Metadata, users: ['system:serviceaccount:{account}'] }}\n- {{ level: None }}\n"
        );
        fs::write(&policy, text).expect("write the policy");
        let flags =
            [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
        let audit = Self { log, flags };
        audit.restart(cluster, &[]);
        audit
    }

    /// Starts the API server again with more flags.
    pub fn restart(&self, cluster: &mut ControlPlane, more: &[&str]) {
        cluster.api_server_flags = self.flags.iter().cloned().chain(more.iter().map(|&flag| flag.to_owned())).collect();
        cluster.stop_api_server().expect("stop the API server");
        cluster.start_api_server().expect("start it again");
    }

    /// Requests for objects; those for paths such as /version are allowed to everybody.
    pub fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may not be whole yet.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["objectRef"].is_object() && event["stage"] != "RequestReceived").collect()
    }

    pub fn used(&self) -> BTreeSet<Right> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |event: &Value| {
            let object = &event["objectRef"];
            let resource = match object["subresource"].as_str() {
                Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
                None => text(&object["resource"]),
            };
            (text(&object["apiGroup"]), resource, text(&event["verb"]))
        };
        self.requests().iter().map(one).collect()
    }

    /// What is wrong with the roles: rights that were never used, and uses that they do not grant. Both empty: each verb is
    /// needed, and they are enough.
    pub fn differences(&self, granted: &BTreeSet<Right>) -> (Vec<Right>, Vec<Right>) {
        let used = self.used();
        (granted.difference(&used).cloned().collect(), used.difference(granted).cloned().collect())
    }
}

/// All that these roles say (`kubectl get roles,clusterroles -o json`, its items).
pub fn granted(roles: &[Value]) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for role in roles {
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
