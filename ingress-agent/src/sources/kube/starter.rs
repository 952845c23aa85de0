//! How a watch begins: its place in the tables, its client, whom it tells.

use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connect::ask;
use super::follow::{News, Watch, WatchId};
use super::guard::Guarded;
use super::kinds::{self, Kind};
use super::references::Referred;
use super::tables::Tables;
use super::{KubeOptions, Namespaces};
use crate::apiserver::failure;
use crate::model::snapshot::ObjectName;
use crate::sources::SourceOptions;
use crate::sources::virtual_ip_pool::VirtualIpPool;

/// What is followed of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Empty: every namespace.
    pub(super) namespace: String,
    /// Empty: every object.
    pub(super) object: String,
    /// Label selector, as the API server reads it. Empty: whatever the labels.
    pub(super) labels: String,
}

/// What a new watch is made of.
pub(super) struct Starter {
    client: Client,
    sources: Arc<SourceOptions>,
    tell: mpsc::Sender<(WatchId, News)>,
    /// Changes when connections that seem to be there had better be made anew.
    doubt: Rc<watch::Sender<u64>>,
    next: u64,
}

impl Starter {
    pub(super) fn new(client: Client, sources: SourceOptions, tell: mpsc::Sender<(WatchId, News)>) -> Self {
        Self { client, sources: Arc::new(sources), tell, doubt: Rc::new(watch::Sender::new(0)), next: 0 }
    }

    /// Each kind that is watched from the beginning: a line or two.
    pub(super) fn start_all(&mut self, options: &KubeOptions, tables: &mut Tables) {
        let everything = Scope::default();
        match &options.namespaces {
            Namespaces::All => drop(self.start_in("", options.claims_only, tables)),
            Namespaces::Named(names) => {
                for name in names {
                    self.start_in(name, options.claims_only, tables);
                }
            }
            // Whoever follows them begins with what is in each.
            Namespaces::Labelled(labels) => {
                let scope = Scope { labels: labels.clone(), ..Scope::default() };
                spawn(self.global::<Namespace>(&kinds::NAMESPACE, &scope, tables));
            }
        }
        spawn(self.global::<IngressClass>(&kinds::CLASS, &everything, tables));
        spawn(self.global::<VirtualIpPool>(&kinds::POOL, &everything, tables));
        spawn(self.global::<Node>(&kinds::NODE, &everything, tables));
        let mut named: Vec<_> = [&self.sources.tcp_services, &self.sources.udp_services, &self.sources.config_map]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        named.dedup();
        for name in named {
            let scope = Scope { namespace: name.namespace, object: name.name, ..Scope::default() };
            spawn(self.namespaced::<ConfigMap>(&kinds::CONFIG_MAP, &scope, tables));
        }
        let id = self.id();
        tables.add_question(id);
        tokio::task::spawn_local(ask(self.client.clone(), id, self.tell.clone(), Rc::clone(&self.doubt)));
    }

    /// What is watched in a namespace; an empty one: in all.
    pub(super) fn start_in(&mut self, namespace: &str, claims_only: bool, tables: &mut Tables) -> Vec<Started> {
        let scope = Scope { namespace: namespace.to_owned(), ..Scope::default() };
        let mut started = vec![
            spawn(self.namespaced::<Service>(&kinds::SERVICE, &scope, tables)),
            spawn(self.namespaced::<Ingress>(&kinds::INGRESS, &scope, tables)),
        ];
        if !claims_only {
            started.push(spawn(self.namespaced::<EndpointSlice>(&kinds::SLICE, &scope, tables)));
        }
        started
    }

    pub(super) fn namespaced<K>(&mut self, kind: &'static Kind<K>, scope: &Scope, tables: &mut Tables) -> Watch<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = match scope.namespace.as_str() {
            "" => Api::all(self.client.clone()),
            namespace => Api::namespaced(self.client.clone(), namespace),
        };
        self.watch(kind, api, scope, tables)
    }

    fn global<K>(&mut self, kind: &'static Kind<K>, scope: &Scope, tables: &mut Tables) -> Watch<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.watch(kind, Api::all(self.client.clone()), scope, tables)
    }

    fn watch<K>(&mut self, kind: &'static Kind<K>, api: Api<Guarded<K>>, scope: &Scope, tables: &mut Tables) -> Watch<K>
    where
        K: Resource<DynamicType = ()>,
    {
        let id = self.id();
        let resource = failure::Resource {
            plural: K::plural(&()).into_owned(),
            group: K::group(&()).into_owned(),
            namespace: scope.namespace.clone(),
            name: scope.object.clone(),
        };
        tables.add(id, kind.name, resource.words(), &scope.namespace, &scope.object);
        let (options, tell) = (Arc::clone(&self.sources), self.tell.clone());
        let labels = Some(scope.labels.clone()).filter(|labels| !labels.is_empty());
        Watch { id, kind, api, resource, labels, options, tell, doubt: self.doubt.subscribe() }
    }

    /// Whether an option names it, and it is watched from the beginning.
    pub(super) fn follows(&self, kind: Referred, name: &ObjectName) -> bool {
        let sources = &self.sources;
        let mut named = [&sources.tcp_services, &sources.udp_services, &sources.config_map].into_iter().flatten();
        kind == Referred::ConfigMap && named.any(|known| known == name)
    }

    fn id(&mut self) -> WatchId {
        self.next += 1;
        WatchId(self.next)
    }
}

/// A watch, and its task.
pub(super) type Started = (WatchId, JoinHandle<()>);

fn spawn<K>(watch: Watch<K>) -> Started
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
{
    (watch.id, tokio::task::spawn_local(async move { watch.follow().await }))
}
