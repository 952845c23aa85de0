//! What the writer follows: the status of Services, Ingresses and VirtualIPPools, and the nodes' Leases. Nobody else follows them, so that an
//! idle node costs the API server a Lease and no more.

use std::fmt::Debug;
use std::pin::pin;

use futures_util::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::decide::Seen;
use super::lease::{LABEL, NODE, node_report};
use super::ledger::{Key, Kind};
use super::nodes::NodeReport;
use super::troubles::{Troubles, resource};
use super::wire::{Thin, ThinPool, name, seen, seen_pool};
use crate::apiserver::backoff::{Backoff, chance};
use crate::apiserver::failure::Resource as Asked;

/// News that may wait.
const NEWS: usize = 256;

/// Which list it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    Nodes,
    /// Empty: every namespace.
    Objects(Kind, String),
}

#[derive(Debug)]
pub(super) enum News {
    Begun(List),
    Complete(List),
    Object(Key, Seen),
    ObjectGone(Key),
    Node(String, NodeReport),
    NodeGone(String),
}

/// The running watches; they end when it drops.
pub(super) struct Watches {
    pub(super) news: mpsc::Receiver<News>,
    /// Those without which nothing may be written. Pools are not among them: where nobody knows the kind there are none, and what
    /// is written of them is of each alone.
    pub(super) lists: Vec<List>,
    _tasks: JoinSet<()>,
}

impl Watches {
    /// `namespaces`: of Services and Ingresses; empty: all.
    pub(super) fn start(client: &Client, own: &str, namespaces: &[String], troubles: &Troubles) -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        let mut tasks = JoinSet::new();
        let mut lists = vec![List::Nodes];
        let leases: Api<Lease> = Api::namespaced(client.clone(), own);
        let nodes = watcher::Config::default().labels(&format!("{LABEL}={NODE}"));
        let of_nodes = Follow {
            list: List::Nodes,
            resource: resource("coordination.k8s.io", "leases", own),
            tell: tell.clone(),
            troubles: troubles.clone(),
        };
        tasks.spawn_local(of_nodes.run(leases, nodes, |lease: &Lease| {
            let name = lease.metadata.name.clone().unwrap_or_default();
            node_report(lease).map(|report| News::Node(name, report))
        }));
        let everywhere = [String::new()];
        for kind in [Kind::Service, Kind::Ingress] {
            for namespace in if namespaces.is_empty() { &everywhere[..] } else { namespaces } {
                let api_resource = kind.resource();
                let api: Api<Thin> = match namespace.as_str() {
                    "" => Api::all_with(client.clone(), &api_resource),
                    namespace => Api::namespaced_with(client.clone(), namespace, &api_resource),
                };
                let list = List::Objects(kind, namespace.clone());
                lists.push(list.clone());
                let resource = resource(&api_resource.group, &api_resource.plural, namespace);
                let follow = Follow { list, resource, tell: tell.clone(), troubles: troubles.clone() };
                tasks.spawn_local(follow.run(api, watcher::Config::default(), move |object: &Thin| {
                    Some(News::Object((kind, name(&object.metadata)), seen(object)))
                }));
            }
        }
        let of_pools = Follow {
            list: List::Objects(Kind::Pool, String::new()),
            resource: resource("sluicegate.io", "virtualippools", ""),
            tell,
            troubles: troubles.clone(),
        };
        let pools: Api<ThinPool> = Api::all_with(client.clone(), &Kind::Pool.resource());
        tasks.spawn_local(of_pools.run(pools, watcher::Config::default(), |object: &ThinPool| {
            Some(News::Object((Kind::Pool, name(&object.metadata)), seen_pool(object)))
        }));
        Self { news, lists, _tasks: tasks }
    }
}

struct Follow {
    list: List,
    resource: Asked,
    tell: mpsc::Sender<News>,
    troubles: Troubles,
}

impl Follow {
    /// Ends when nobody listens any more.
    async fn run<K>(self, api: Api<K>, config: watcher::Config, read: impl Fn(&K) -> Option<News>)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut events = pin!(watcher(api, config.any_semantic()));
        let mut backoff = Backoff::default();
        while let Some(event) = events.next().await {
            let told = match event {
                // Said before anything was asked.
                Ok(Event::Init) => match self.tell(Some(News::Begun(self.list.clone()))).await {
                    Ok(()) => continue,
                    Err(()) => return,
                },
                Ok(Event::InitDone) => self.tell(Some(News::Complete(self.list.clone()))).await,
                Ok(Event::InitApply(object) | Event::Apply(object)) => self.tell(read(&object)).await,
                Ok(Event::Delete(object)) => self.tell(self.gone(object.meta())).await,
                Err(e) => {
                    self.failed(&e);
                    tokio::time::sleep(backoff.next(chance())).await;
                    continue;
                }
            };
            if told.is_err() {
                return;
            }
            backoff.reset();
            for verb in ["list", "watch"] {
                self.troubles.worked(verb, &self.resource);
            }
        }
    }

    async fn tell(&self, news: Option<News>) -> Result<(), ()> {
        let Some(news) = news else { return Ok(()) };
        self.tell.send(news).await.map_err(drop)
    }

    fn gone(&self, metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<News> {
        Some(match &self.list {
            List::Nodes => News::NodeGone(metadata.name.clone()?),
            List::Objects(kind, _) => News::ObjectGone((*kind, name(metadata))),
        })
    }

    fn failed(&self, e: &watcher::Error) {
        let pools = self.list == List::Objects(Kind::Pool, String::new());
        match e {
            // The API server does not know the kind. `sources` knows whether that is as it should be.
            watcher::Error::InitialListFailed(kube::Error::Api(s))
            | watcher::Error::WatchStartFailed(kube::Error::Api(s))
                if pools && s.code == 404 => {}
            watcher::Error::InitialListFailed(e) => self.troubles.failed("list", &self.resource, e),
            watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
                self.troubles.failed("watch", &self.resource, e);
            }
            // 410 among others: the watcher lists again by itself.
            watcher::Error::WatchError(_) => {}
            watcher::Error::NoResourceVersion => {
                self.troubles.appeared("watch", &format!("{}: a list without a version", self.resource.words()));
            }
        }
    }
}
