//! The requests of the writer, one function each. Every one has ended within [`REQUEST`], so that none of them is under way
//! when another node may begin.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use tokio::time::timeout;

use super::decide::{Seen, Write};
use super::election::REQUEST;
use super::ledger::{Kind, Order};
use super::notices::Notice;
use super::troubles::{Troubles, resource};
use super::wire::{MANAGER, Thin, ThinPool, apply, event, event_namespace, seen, seen_pool, series};
use crate::apiserver::failure::Resource;

#[derive(Clone)]
pub(super) struct Sender {
    client: Client,
    /// The agent's own.
    namespace: String,
    node: String,
    troubles: Troubles,
}

/// How a write ended.
pub(super) struct Outcome {
    pub(super) order: Order,
    /// What the object is now; `None`: it failed.
    pub(super) seen: Option<Seen>,
}

pub(super) struct Told {
    pub(super) notice: Notice,
    pub(super) done: bool,
}

impl Sender {
    pub(super) fn new(client: Client, namespace: &str, node: &str, troubles: Troubles) -> Self {
        Self { client, namespace: namespace.to_owned(), node: node.to_owned(), troubles }
    }

    /// There is nothing that is to be written and cannot be.
    pub(super) fn nothing_fails(&self) {
        for kind in [Kind::Service, Kind::Ingress, Kind::Pool] {
            self.troubles.worked("patch", &status_of(kind));
        }
    }

    pub(super) fn is_event_in_trouble(&self) -> bool {
        EVENT_VERBS.iter().any(|verb| self.troubles.is_told_of(verb, &events()))
    }

    /// There is nothing that is to be told and cannot be.
    pub(super) fn nothing_is_untold(&self) {
        for verb in EVENT_VERBS {
            self.troubles.worked(verb, &events());
        }
    }

    pub(super) async fn write(&self, order: Order) -> Outcome {
        let (kind, object) = &order.key;
        let api_resource = kind.resource();
        let asked = status_of(*kind);
        let params = PatchParams::apply(MANAGER);
        let params = if order.write == Write::GiveUp { params } else { params.force() };
        let body = apply(&order.key, &order.seen.uid, &order.write);
        let (client, patch) = (self.client.clone(), Patch::Apply(&body));
        let answer = if *kind == Kind::Pool {
            let api: Api<ThinPool> = Api::all_with(client, &api_resource);
            timeout(REQUEST, api.patch_status(&object.name, &params, &patch))
                .await
                .map(|a| a.map(|now| seen_pool(&now)))
        } else {
            let api: Api<Thin> = Api::namespaced_with(client, &object.namespace, &api_resource);
            timeout(REQUEST, api.patch_status(&object.name, &params, &patch)).await.map(|a| a.map(|now| seen(&now)))
        };
        let seen = match answer {
            Ok(Ok(now)) => {
                self.troubles.worked("patch", &asked);
                Some(now)
            }
            // It is gone, or another one of its name is there: the watch will say so.
            Ok(Err(Error::Api(status))) if status.code == 404 || status.code == 409 => None,
            Ok(Err(e)) => {
                self.troubles.failed("patch", &asked, &e);
                None
            }
            Err(_) => {
                self.troubles.no_answer("patch", &asked, REQUEST);
                None
            }
        };
        Outcome { order, seen }
    }

    /// Tells the owner of an object; `before`: how often this was told already.
    pub(super) async fn tell(&self, notice: Notice, before: i32) -> Told {
        let Some(event) = event(&notice, &self.node) else { return Told { notice, done: true } };
        let api: Api<Event> = Api::namespaced(self.client.clone(), event_namespace(&notice));
        let asked = events();
        let name = notice.event_name();
        let mut done = false;
        if before > 0 {
            done = self.again(&api, &name, before + 1, &asked).await;
        }
        if !done {
            done = match timeout(REQUEST, api.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => {
                    self.troubles.worked("create", &asked);
                    true
                }
                // The writer before this one has said it, or this one in an earlier life.
                Ok(Err(Error::Api(status))) if status.code == 409 => {
                    self.troubles.worked("create", &asked);
                    self.again(&api, &name, 2, &asked).await
                }
                // Its namespace is going, and so is it.
                Ok(Err(Error::Api(status))) if status.code == 404 || status.message.contains("being terminated") => {
                    true
                }
                Ok(Err(e)) => {
                    self.troubles.failed("create", &asked, &e);
                    false
                }
                Err(_) => {
                    self.troubles.no_answer("create", &asked, REQUEST);
                    false
                }
            };
        }
        Told { notice, done }
    }

    /// The same Event once more, if the API server still has it.
    async fn again(&self, api: &Api<Event>, name: &str, count: i32, asked: &Resource) -> bool {
        let body = series(count);
        let answer = timeout(REQUEST, api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await;
        match answer {
            Ok(Ok(_)) => {
                self.troubles.worked("patch", asked);
                true
            }
            Ok(Err(Error::Api(status))) if status.code == 404 => false,
            Ok(Err(e)) => {
                self.troubles.failed("patch", asked, &e);
                false
            }
            Err(_) => {
                self.troubles.no_answer("patch", asked, REQUEST);
                false
            }
        }
    }

    pub(super) async fn delete_lease(&self, name: &str) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let asked = resource("coordination.k8s.io", "leases", &self.namespace);
        match timeout(REQUEST, api.delete(name, &DeleteParams::default())).await {
            Ok(Ok(_)) => self.troubles.worked("delete", &asked),
            Ok(Err(Error::Api(status))) if status.code == 404 => self.troubles.worked("delete", &asked),
            Ok(Err(e)) => self.troubles.failed("delete", &asked, &e),
            // It is tried again.
            Err(_) => {}
        }
    }
}

const EVENT_VERBS: [&str; 2] = ["create", "patch"];

fn events() -> Resource {
    resource("events.k8s.io", "events", "")
}

fn status_of(kind: Kind) -> Resource {
    let of = kind.resource();
    resource(&of.group, &format!("{}/status", of.plural), "")
}
