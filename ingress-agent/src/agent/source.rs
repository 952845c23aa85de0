//! The source of facts, whichever it is: started, followed, stopped; and what it says of itself, in words.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

use crate::config::{Config, SourceConfig};
use crate::model::facts::Facts;
use crate::model::source::SourceState;
use crate::sources::kube::Kube;
use crate::sources::{SourceOptions, manifests, names};

/// Between two attempts to watch a directory that went away.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

pub(super) enum Source {
    Manifests(JoinHandle<()>),
    Cluster(Kube),
}

impl Source {
    pub(super) fn start(
        config: &Config,
        facts: watch::Sender<Arc<Facts>>,
        state: watch::Sender<SourceState>,
    ) -> Result<Self> {
        Ok(match &config.source {
            SourceConfig::Manifests(directory) => {
                state.send_modify(|s| {
                    s.name = format!("the directory {}", directory.display());
                    s.waits_for = vec!["manifests".to_owned()];
                });
                Self::Manifests(tokio::spawn(watch_manifests(directory.clone(), config.sources.clone(), facts)))
            }
            SourceConfig::Cluster(options) => {
                Self::Cluster(Kube::start(options.clone(), config.sources.clone(), facts, state)?)
            }
        })
    }

    /// With what it knows saved, where it saves anything.
    pub(super) async fn stop(self) {
        match self {
            Self::Manifests(task) => task.abort(),
            Self::Cluster(kube) => kube.stop().await,
        }
    }
}

/// The facts with the names in them resolved, where they are.
pub(super) fn resolved(config: &Config, facts: watch::Receiver<Arc<Facts>>) -> watch::Receiver<Arc<Facts>> {
    if !config.plan.external_names {
        return facts;
    }
    let (publish, resolved) = watch::channel(Arc::new(Facts::default()));
    // It ends with the source.
    tokio::spawn(names::follow(facts, publish, config.dns_servers.clone(), config.plan.default_backend.clone()));
    resolved
}

/// Keeps the watch going: a directory that is unmounted and comes back is read again.
async fn watch_manifests(directory: PathBuf, options: SourceOptions, facts: watch::Sender<Arc<Facts>>) {
    let mut told = String::new();
    loop {
        match manifests::watch(directory.clone(), options.clone(), facts.clone()).await {
            Ok(()) => return,
            Err(e) => {
                let why = format!("{e:#}");
                if why != told {
                    error!(
                        "{why}; what was read before stays in force, trying again every {} s",
                        WATCH_AGAIN.as_secs()
                    );
                    told = why;
                }
            }
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

/// Why there are no facts yet.
pub(super) fn not_read(state: &SourceState) -> Vec<String> {
    let from = if state.name.is_empty() { "the cluster" } else { state.name.as_str() };
    let what = match state.waits_for.as_slice() {
        [] => String::new(),
        list => format!(": waits for {}", list.join(", ")),
    };
    let mut reasons = vec![format!("{from} is not read yet{what}")];
    reasons.extend(state.troubles.iter().cloned());
    reasons
}

/// What to know of facts that are in force: how old they are, and why.
pub(super) fn notes(state: &SourceState, now: SystemTime) -> Vec<String> {
    let ago = |then: SystemTime| now.duration_since(then).unwrap_or_default().as_secs();
    let mut notes = Vec::new();
    if let Some(saved) = state.saved_at {
        notes.push(format!("serves what was saved {} s ago, until {} is read", ago(saved), state.name));
    }
    if let Some(since) = state.behind_since {
        notes.push(format!("changes may have been missed for {} s", ago(since)));
    }
    notes.extend(state.troubles.iter().cloned());
    notes
}
