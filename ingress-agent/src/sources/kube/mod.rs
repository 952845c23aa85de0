//! A cluster, live: what the manifest directory says in files, an API server says over list and watch. What leaves is the
//! same `Facts`.
//!
//! It runs on a thread of its own, so that the parsing of a large cluster holds up neither traffic nor the admin window.
//! There is no debounce: the first event is acted upon at once, and what arrives meanwhile is next. Nodes and Pods are not
//! watched at all, so that an idle cluster's heartbeats cost nothing.

mod guard;

mod kinds;

mod failure;

mod backoff;

mod follow;

mod secrets;

mod tables;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::SourceOptions;
use crate::model::facts::Facts;
use crate::model::snapshot::ObjectName;
use crate::model::source::SourceState;
use backoff::{Backoff, chance};
use follow::{News, Watch, WatchId};
use kinds::Kind;
use secrets::Secrets;
use tables::Tables;

/// News that may wait. A watch that is faster than the folding of its objects waits, and TCP tells the server.
const NEWS: usize = 1024;
/// A new Ingress is published with its certificate, not before it, unless that takes longer than this: for the time
/// between, clients would be shown the default certificate.
const TOGETHER: Duration = Duration::from_millis(300);
/// Between two looks at what changes without an event: certificates that expire.
const LOOK: Duration = Duration::from_secs(30);

/// Which cluster, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeOptions {
    /// `None`: the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own.
    pub namespace: String,
    /// Of Services, EndpointSlices and Ingresses. Empty: all.
    pub watch_namespaces: Vec<String>,
    /// Where facts are saved for a start without an API server. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// The certificate of the options, which is read although no Ingress names it.
    pub default_certificate: Option<ObjectName>,
}

/// The running source.
#[derive(Debug)]
pub struct Kube {
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Kube {
    /// Begins to publish on a thread of its own. Nothing that the API server does or fails to do ends it.
    pub fn start(
        options: KubeOptions,
        sources: SourceOptions,
        facts: watch::Sender<Arc<Facts>>,
        state: watch::Sender<SourceState>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime that watches the cluster")?;
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("kube".to_owned())
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, run(options, sources, facts, state, stopped));
                // Nobody waits any more where the agent was told to stop twice.
                let _ = ending.send(());
            })
            .context("start the thread that watches the cluster")?;
        Ok(Self { stop: Some(stop), ended: Some(ended) })
    }

    /// Ends it, with what has changed saved.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // It has ended already when nobody receives.
            let _ = stop.send(());
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

/// What is followed of a kind.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// Empty: every namespace.
    namespace: String,
    /// Empty: every object.
    object: String,
}

/// What a new watch is made of.
struct Start<'a> {
    client: &'a Client,
    sources: &'a Arc<SourceOptions>,
    tell: &'a mpsc::Sender<(WatchId, News)>,
    tables: &'a mut Tables,
    next: &'a mut u64,
}

impl Start<'_> {
    fn namespaced<K>(&mut self, kind: &'static Kind<K>, scope: &Scope) -> Watch<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = match scope.namespace.as_str() {
            "" => Api::all(self.client.clone()),
            namespace => Api::namespaced(self.client.clone(), namespace),
        };
        self.watch(kind, api, scope)
    }

    fn global<K>(&mut self, kind: &'static Kind<K>) -> Watch<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.watch(kind, Api::all(self.client.clone()), &Scope::default())
    }

    fn watch<K>(&mut self, kind: &'static Kind<K>, api: Api<guard::Guarded<K>>, scope: &Scope) -> Watch<K>
    where
        K: Resource<DynamicType = ()>,
    {
        let id = WatchId(*self.next);
        *self.next += 1;
        let resource = failure::Resource {
            plural: K::plural(&()).into_owned(),
            group: K::group(&()).into_owned(),
            namespace: scope.namespace.clone(),
            name: scope.object.clone(),
        };
        self.tables.add(id, kind.name, resource.words(), &scope.namespace, &scope.object);
        Watch { id, kind, api, resource, options: Arc::clone(self.sources), tell: self.tell.clone() }
    }
}

fn spawn<K>(watch: Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
{
    tokio::task::spawn_local(async move { watch.follow().await });
}

/// Each kind that is watched from the beginning: a line or two.
fn start_all(start: &mut Start<'_>, options: &KubeOptions) {
    let everywhere = [String::new()];
    let namespaces = if options.watch_namespaces.is_empty() { &everywhere[..] } else { &options.watch_namespaces };
    for namespace in namespaces {
        let scope = Scope { namespace: namespace.clone(), object: String::new() };
        spawn(start.namespaced::<Service>(&kinds::SERVICE, &scope));
        spawn(start.namespaced::<EndpointSlice>(&kinds::SLICE, &scope));
        spawn(start.namespaced::<Ingress>(&kinds::INGRESS, &scope));
    }
    spawn(start.global::<IngressClass>(&kinds::CLASS));
    let mut named: Vec<_> =
        [&start.sources.tcp_services, &start.sources.udp_services].into_iter().flatten().cloned().collect();
    named.dedup();
    for name in named {
        let scope = Scope { namespace: name.namespace, object: name.name };
        spawn(start.namespaced::<ConfigMap>(&kinds::CONFIG_MAP, &scope));
    }
}

async fn run(
    options: KubeOptions,
    sources: SourceOptions,
    facts: watch::Sender<Arc<Facts>>,
    state: watch::Sender<SourceState>,
    mut stopped: oneshot::Receiver<()>,
) {
    tokio::select! {
        () = source(&options, sources, &facts, &state) => {}
        _ = &mut stopped => {}
    }
}

async fn source(
    options: &KubeOptions,
    sources: SourceOptions,
    facts: &watch::Sender<Arc<Facts>>,
    state: &watch::Sender<SourceState>,
) {
    let (tell, mut news) = mpsc::channel(NEWS);
    let (mut tables, mut secrets, mut next) = (Tables::default(), Secrets::default(), 0);
    let sources = Arc::new(sources);
    let client = connect(options, state).await;
    let mut start = Start { client: &client, sources: &sources, tell: &tell, tables: &mut tables, next: &mut next };
    start_all(&mut start, options);
    if let Some(name) = &options.default_certificate {
        tables.refer(name);
    }
    let mut look = tokio::time::interval(LOOK);
    let mut batch = Vec::new();
    let mut waiting: Option<Instant> = None;
    loop {
        for (name, in_use) in tables.touched_secrets() {
            let mut start =
                Start { client: &client, sources: &sources, tell: &tell, tables: &mut tables, next: &mut next };
            secrets.settle(&name, in_use, &mut start);
        }
        let until = if tables.is_complete() {
            waiting = None;
            None
        } else {
            Some(*waiting.get_or_insert_with(Instant::now) + TOGETHER)
        };
        if until.is_none_or(|until| Instant::now() >= until)
            && let Some(new) = tables.publish(SystemTime::now())
            && facts.send(new).is_err()
        {
            return;
        }
        say(state, &tables);
        tokio::select! {
            _ = news.recv_many(&mut batch, NEWS) => {}
            _ = look.tick() => tables.time_passed(),
            () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some_and(|u| u > Instant::now()) => {}
        }
        for (id, news) in batch.drain(..) {
            tables.take(id, news, SystemTime::now());
        }
    }
}

/// Tells people how it goes, if that has changed.
fn say(state: &watch::Sender<SourceState>, tables: &Tables) {
    let (troubles, behind_since) = tables.troubles();
    let waits_for = tables.waits_for();
    let mut appeared = Vec::new();
    let mut gone = Vec::new();
    state.send_if_modified(|s| {
        appeared.extend(troubles.iter().filter(|t| !s.troubles.contains(t)).cloned());
        gone.extend(s.troubles.iter().filter(|t| !troubles.contains(t)).cloned());
        let new = SourceState { waits_for, troubles, behind_since, ..s.clone() };
        let changed = *s != new;
        *s = new;
        changed
    });
    for text in appeared {
        tracing::warn!("{text}");
    }
    for text in gone {
        tracing::info!("no longer: {text}");
    }
}

/// The client, when there is a configuration to make it of: a service account's token may be mounted late.
async fn connect(options: &KubeOptions, state: &watch::Sender<SourceState>) -> Client {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        match client(options).await {
            Ok((client, url)) => {
                state.send_modify(|s| {
                    s.name = format!("the API server {url}");
                    s.troubles.clear();
                });
                return client;
            }
            Err(e) => {
                let why = format!("{e:#}");
                if why != told {
                    tracing::error!("{why}; trying again");
                }
                state.send_modify(|s| s.troubles = vec![why.clone()]);
                told = why;
            }
        }
        tokio::time::sleep(backoff.next(chance())).await;
    }
}

async fn client(options: &KubeOptions) -> anyhow::Result<(Client, String)> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let shown = path.display();
            let file = Kubeconfig::read_from(path).with_context(|| format!("read the kubeconfig {shown}"))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("understand the kubeconfig {shown}"))?
        }
        None => kube::Config::incluster().context("read the service account of this pod")?,
    };
    // Who waits is decided in one place, with jitter; and a failure that is being retried in silence cannot be told.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).context("make a client for the API server")?;
    Ok((client, url))
}
