//! How a watch begins: its place in the tables, its client, whom it tells.

use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::KubeOptions;
use super::connect::ask;
use super::follow::{News, Watch, WatchId};
use super::guard::Guarded;
use super::kinds::{self, Kind};
use super::references::Referred;
use super::tables::Tables;
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
        let everywhere = [String::new()];
        let namespaces = if options.watch_namespaces.is_empty() { &everywhere[..] } else { &options.watch_namespaces };
        for namespace in namespaces {
            let scope = Scope { namespace: namespace.clone(), object: String::new() };
            spawn(self.namespaced::<Service>(&kinds::SERVICE, &scope, tables));
            if !options.claims_only {
                spawn(self.namespaced::<EndpointSlice>(&kinds::SLICE, &scope, tables));
            }
            spawn(self.namespaced::<Ingress>(&kinds::INGRESS, &scope, tables));
        }
        spawn(self.global::<IngressClass>(&kinds::CLASS, tables));
        spawn(self.global::<VirtualIpPool>(&kinds::POOL, tables));
        spawn(self.global::<Node>(&kinds::NODE, tables));
        let mut named: Vec<_> = [&self.sources.tcp_services, &self.sources.udp_services, &self.sources.config_map]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        named.dedup();
        for name in named {
            let scope = Scope { namespace: name.namespace, object: name.name };
            spawn(self.namespaced::<ConfigMap>(&kinds::CONFIG_MAP, &scope, tables));
        }
        let id = self.id();
        tables.add_question(id);
        tokio::task::spawn_local(ask(self.client.clone(), id, self.tell.clone(), Rc::clone(&self.doubt)));
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

    fn global<K>(&mut self, kind: &'static Kind<K>, tables: &mut Tables) -> Watch<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.watch(kind, Api::all(self.client.clone()), &Scope::default(), tables)
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
        Watch { id, kind, api, resource, options, tell, doubt: self.doubt.subscribe() }
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

fn spawn<K>(watch: Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
{
    tokio::task::spawn_local(async move { watch.follow().await });
}
