//! A cluster, live: what the manifest directory says in files, an API server says over list and watch. What leaves is the
//! same `Facts`.
//!
//! It runs on a thread of its own, so that the parsing of a large cluster holds up neither traffic nor the admin window.
//! There is no debounce: the first event is acted upon at once, and what arrives meanwhile is next. Pods are not
//! watched at all, nor are Leases, so that an idle cluster's heartbeats cost nothing.

mod guard;

mod kinds;

mod versions;

mod follow;

mod references;

mod referred;

mod namespaces;

mod starter;

mod connect;

mod tables;

mod saved;

mod saver;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::SourceOptions;
use crate::apiserver::background::Background;
use crate::memory::Leftovers;
use crate::model::class_rule::ClassRule;
use crate::model::facts::Facts;
use crate::model::snapshot::ObjectName;
use crate::model::source::SourceState;
use connect::connect;
use namespaces::Chosen;
use references::Referred;
use referred::Followed;
pub use saved::remove as remove_saved;
use saved::{Saved, Whose};
use saver::Saver;
use starter::Starter;
use tables::Tables;

/// News that may wait. A watch that is faster than the folding of its objects waits, and TCP tells the server.
const NEWS: usize = 1024;
/// A new Ingress is published with its certificate, not before it, unless that takes longer than this: for the time
/// between, clients would be shown the default certificate.
const TOGETHER: Duration = Duration::from_millis(300);
/// Between two looks at what changes without an event: certificates that expire.
const LOOK: Duration = Duration::from_secs(30);

/// How long the API server may take to say everything before saved facts are used. A healthy one needs less for any but the
/// largest clusters; and a node that comes up without one should not make its clients wait longer.
const GRACE: Duration = Duration::from_secs(3);

/// Which cluster, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeOptions {
    /// `None`: the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own.
    pub namespace: String,
    /// Of Services, EndpointSlices and Ingresses.
    pub namespaces: Namespaces,
    /// Where facts are saved for a start without an API server. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// The certificate of the options, which is read although no Ingress names it.
    pub default_certificate: Option<ObjectName>,
    /// Whose Secrets are read: Ingresses of others name Secrets that are none of our business.
    pub classes: ClassRule,
    /// Only who wants what, without what serves it: no EndpointSlice and no Secret is asked for.
    pub claims_only: bool,
}

/// Which namespaces are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    #[default]
    All,
    Named(Vec<String>),
    /// Those whose labels a selector chooses, at any time; it is the API server who reads it.
    Labelled(String),
}

impl Namespaces {
    /// Where they may be; empty: everywhere.
    pub fn named(&self) -> &[String] {
        match self {
            Self::Named(names) => names,
            Self::All | Self::Labelled(_) => &[],
        }
    }

    /// Whether objects of a namespace are followed, as far as `facts` go.
    pub fn has(&self, namespace: &str, facts: &Facts) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == namespace),
            Self::Labelled(_) => facts.namespaces.find(&ObjectName::new("", namespace)).is_some(),
        }
    }
}

/// The running source.
#[derive(Debug)]
pub struct Kube(Background);

impl Kube {
    /// Begins to publish on a thread of its own. Nothing that the API server does or fails to do ends it.
    pub fn start(
        options: KubeOptions,
        sources: SourceOptions,
        facts: watch::Sender<Arc<Facts>>,
        state: watch::Sender<SourceState>,
    ) -> anyhow::Result<Self> {
        let work = async move |stopped| run(options, sources, facts, state, stopped).await;
        Background::start("kube", "watches the cluster", work).map(Self)
    }

    /// Ends it, with what has changed saved.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}

async fn run(
    options: KubeOptions,
    sources: SourceOptions,
    facts: watch::Sender<Arc<Facts>>,
    state: watch::Sender<SourceState>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut saver = Saver::new(options.state_dir.clone());
    tokio::select! {
        () = source(&options, sources, &facts, &state, &mut saver) => {}
        _ = &mut stopped => {}
    }
    saver.finish().await;
}

async fn source(
    options: &KubeOptions,
    sources: SourceOptions,
    facts: &watch::Sender<Arc<Facts>>,
    state: &watch::Sender<SourceState>,
    saver: &mut Saver,
) {
    let (tell, mut news) = mpsc::channel(NEWS);
    let mut tables = Tables::new(options.classes.clone(), sources.config_map.clone());
    let mut named = Named::new();
    let mut chosen = Chosen::new(options.claims_only);
    let annotations_prefix = sources.annotations_prefix.as_deref().map(str::to_owned);
    let (client, cluster) = connect(options, state).await;
    let namespace_labels = match &options.namespaces {
        Namespaces::Labelled(labels) => Some(labels.clone()),
        Namespaces::All | Namespaces::Named(_) => None,
    };
    let whose = Whose { cluster, annotations_prefix, namespace_labels };
    let mut starter = Starter::new(client, sources, tell);
    starter.start_all(options, &mut tables);
    if let Some(name) = &options.default_certificate {
        tables.refer(name);
    }
    let mut look = tokio::time::interval(LOOK);
    let grace = tokio::time::sleep(GRACE);
    tokio::pin!(grace);
    let (began, mut read) = (Instant::now(), false);
    let mut batch = Vec::new();
    let mut leftovers = Leftovers::default();
    let mut waiting: Option<Instant> = None;
    loop {
        chosen.settle(&mut starter, &mut tables);
        if options.claims_only {
            pass_over(&mut tables);
        } else {
            named.settle_all(&mut starter, &mut tables);
        }
        waiting = if tables.is_complete() { None } else { waiting.or_else(|| Some(Instant::now() + TOGETHER)) };
        let hold = waiting.filter(|until| *until > Instant::now());
        if hold.is_none()
            && let Some(new) = tables.publish(SystemTime::now())
        {
            if tables.is_current() {
                if !std::mem::replace(&mut read, true) {
                    info!("read the cluster at {} in {} ms", whose.cluster, began.elapsed().as_millis());
                }
                saver.changed(&new, &whose);
            }
            if facts.send(new).is_err() {
                return;
            }
            leftovers.worked(std::time::Instant::now());
        }
        say(state, &tables);
        tokio::select! {
            _ = news.recv_many(&mut batch, NEWS) => {}
            () = tokio::time::sleep_until(hold.unwrap_or_else(Instant::now)), if hold.is_some() => {}
            () = saver.turn() => {}
            _ = look.tick() => {
                leftovers.give_back(std::time::Instant::now());
                tables.time_passed();
                if tables.is_current() && !tables.is_failing() {
                    saver.unchanged(SystemTime::now());
                }
            }
            () = &mut grace, if tables.wants_seed() => {
                if let Some(saved) = saver.load(&whose) {
                    seed(saved, &mut chosen, &mut named, &mut starter, &mut tables);
                } else {
                    tables.without_seed();
                }
            }
        }
        for (id, news) in batch.drain(..) {
            tables.take(id, news, SystemTime::now());
        }
    }
}

/// What others refer to.
struct Named {
    secrets: Followed<Secret>,
    config_maps: Followed<ConfigMap>,
}

impl Named {
    fn new() -> Self {
        Self {
            secrets: Followed::new(Referred::Secret, &kinds::SECRET),
            config_maps: Followed::new(Referred::ConfigMap, &kinds::CONFIG_MAP),
        }
    }

    fn settle_all(&mut self, starter: &mut Starter, tables: &mut Tables) {
        self.secrets.settle_all(starter, tables);
        self.config_maps.settle_all(starter, tables);
    }
}

/// Nobody wants to know what is referred to.
fn pass_over(tables: &mut Tables) {
    for kind in [Referred::Secret, Referred::ConfigMap] {
        drop(tables.touched(kind));
    }
}

/// Saved facts take the place of what was not read yet.
fn seed(saved: Saved, chosen: &mut Chosen, named: &mut Named, starter: &mut Starter, tables: &mut Tables) {
    let referred = |kind: &str| kind == "Secret" || kind == "ConfigMap";
    let (referred, others): (Vec<_>, Vec<_>) = saved.objects.into_iter().partition(|(i, _)| referred(i.kind));
    let (namespaces, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(i, _)| i.kind == "Namespace");
    // The place of what is in a namespace is there once the namespace is chosen.
    tables.seed(namespaces, saved.at);
    chosen.settle(starter, tables);
    tables.seed(others, saved.at);
    // A certificate's place is there once the Ingress is that names it; and once the settings are, that of what they name.
    named.settle_all(starter, tables);
    let settings = referred.iter().filter(|(identity, _)| identity.kind == "ConfigMap").cloned().collect();
    tables.seed(settings, saved.at);
    named.settle_all(starter, tables);
    tables.seed(referred, saved.at);
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
        let new = SourceState { waits_for, troubles, behind_since, saved_at: tables.saved_at(), name: s.name.clone() };
        let changed = *s != new;
        *s = new;
        changed
    });
    for text in appeared {
        warn!("{text}");
    }
    for text in gone {
        info!("no longer: {text}");
    }
}
