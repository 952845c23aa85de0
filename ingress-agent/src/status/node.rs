//! What this node says of itself: a Lease of its own, written at once when what it announces changes, and now and then as a
//! sign of life. The one thing that every node writes.

use std::cell::RefCell;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::election::REQUEST;
use super::lease::{NODE_RENEW, node_lease, of_node};
use super::troubles::{Troubles, resource};
use crate::apiserver::backoff::{Backoff, chance};
use crate::apiserver::failure::Resource;
use crate::model::report::Report;

/// Of the fields of this Lease.
const MANAGER: &str = "sluicegate-node";
const NAMESAKE: &str = "namesake";

pub(super) struct Node {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    /// Of the Lease, as this process wrote it last.
    version: RefCell<Option<String>>,
    resource: Resource,
    troubles: Troubles,
}

impl Node {
    pub(super) fn new(client: Client, namespace: &str, name: &str, identity: &str, troubles: Troubles) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            version: RefCell::default(),
            resource: resource("coordination.k8s.io", "leases", namespace),
            troubles,
        }
    }

    pub(super) async fn run(&self, mut report: watch::Receiver<Arc<Report>>) {
        let mut backoff = Backoff::default();
        loop {
            let said = Arc::clone(&report.borrow_and_update());
            let wait = if self.say(&said).await {
                backoff.reset();
                // A hundred nodes that were started by one rollout do not renew at one moment.
                NODE_RENEW.mul_f64(0.75 + chance() / 4.0)
            } else {
                backoff.next(chance())
            };
            let until = Instant::now() + wait;
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    changed = report.changed() => match changed {
                        Ok(()) if says_the_same(&report.borrow_and_update(), &said) => {}
                        Ok(()) => break,
                        // The control thread is gone; the process follows.
                        Err(_) => return std::future::pending().await,
                    },
                }
            }
        }
    }

    /// Nothing more will be said.
    pub(super) async fn leave(&self) {
        let answer = timeout(REQUEST, self.api.delete(&node_lease(&self.name), &DeleteParams::default())).await;
        match answer {
            Ok(Err(Error::Api(status))) if status.code == 404 => {}
            Ok(Err(e)) => self.troubles.failed("delete", &self.resource, &e),
            // Others will see that it is not renewed.
            Ok(Ok(_)) | Err(_) => {}
        }
    }

    /// Somebody else has written the Lease, or deleted it.
    async fn look_for_namesake(&self, lease: &str) {
        let Ok(Ok(Some(found))) = timeout(REQUEST, self.api.get_opt(lease)).await else { return };
        let holder = found.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        if holder != self.identity {
            let text = format!(
                "another agent calls itself node {}, too ({holder}; this one is {}): what they announce is told wrongly; \
                 give each a name of its own (--node)",
                self.name, self.identity
            );
            self.troubles.appeared(NAMESAKE, &text);
        }
    }

    async fn say(&self, report: &Report) -> bool {
        let mut lease = of_node(&self.name, &self.namespace, &self.identity, report);
        // Only this process writes it. Where that is not so, two agents have one name, and each is told.
        lease.metadata.resource_version = self.version.take();
        let checked = lease.metadata.resource_version.is_some();
        let params = PatchParams::apply(MANAGER).force();
        let name = node_lease(&self.name);
        match timeout(REQUEST, self.api.patch(&name, &params, &Patch::Apply(&lease))).await {
            Ok(Ok(written)) => {
                // An apply needed both, and the election's attempt to create its own may have been overtaken.
                for verb in ["create", "patch"] {
                    self.troubles.worked(verb, &self.resource);
                }
                self.version.replace(written.metadata.resource_version);
                if checked {
                    self.troubles.gone(NAMESAKE);
                }
                true
            }
            Ok(Err(Error::Api(status))) if checked && [404, 409].contains(&status.code) => {
                self.look_for_namesake(&name).await;
                false
            }
            Ok(Err(e)) => {
                // An apply that makes the object needs both verbs, and the API server names the one.
                let verb =
                    if matches!(&e, Error::Api(s) if s.message.contains("cannot create")) { "create" } else { "patch" };
                self.troubles.failed(verb, &self.resource, &e);
                false
            }
            Err(_) => {
                self.troubles.no_answer("patch", &self.resource, REQUEST);
                false
            }
        }
    }
}

/// Whether the Lease would be the same, but for what can wait for the next sign of life.
fn says_the_same(a: &Report, b: &Report) -> bool {
    a.announced == b.announced && a.conflicts == b.conflicts
}
