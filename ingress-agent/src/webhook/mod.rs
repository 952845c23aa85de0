//! The admission webhook, `sluicegate webhook`: tells whoever writes an Ingress, a Service, a VirtualIPPool or a ConfigMap of ports
//! what the agents will make of it, before it is stored. It serves no traffic, reads no Secret but its own certificate's, writes
//! nothing about the objects it sees, and asks nobody while it answers: the object and the index decide.
//!
//! A program and a Deployment of its own, not a part of `run`. The API server waits for whoever answers here. An edge node is busy with
//! traffic, restarts for other reasons, uses the node's network, which pods of the control plane may not reach, and there is one on
//! each node, where two replicas are enough; and whoever floods the API server with objects should not cost a packet. It holds no
//! capability and no key, so what parses hostile objects can harm nothing.
#![forbid(unsafe_code)]

mod index;

mod judge;

mod review;

mod health;

mod certificate;

mod serve;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::model::facts::Facts;
use crate::model::source::SourceState;
use crate::sources::kube::{Kube, KubeOptions};
pub use certificate::{CertificateOptions, OwnOptions};
use certificate::{Served, keep};
use health::Health;
pub use judge::{Conflicts, Rules};
use serve::{Shared, bind};

/// After SIGTERM it answers on, until the API server knows that it is going.
const LINGER: Duration = Duration::from_secs(5);

/// The meaning of `sluicegate webhook …`.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Where the API server asks.
    pub address: SocketAddr,
    /// Where probes and Prometheus ask.
    pub admin: SocketAddr,
    pub kube: KubeOptions,
    pub rules: Rules,
    pub certificate: CertificateOptions,
}

/// `sluicegate webhook`, to its end. An error means that it never began to answer.
pub fn run(config: WebhookConfig) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the webhook's runtime")?;
    let ended = runtime.block_on(answer(config));
    // A review that is under way ends by itself, and nobody waits for its answer.
    runtime.shutdown_background();
    ended
}

async fn answer(config: WebhookConfig) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("catch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch signals")?;
    let reviews = bind("--listen-address", config.address).await?;
    let admin = bind("--admin-address", config.admin).await?;
    let (publish, facts) = watch::channel(Arc::new(Facts::default()));
    let (say, source) = watch::channel(SourceState::default());
    let (health, served) = (Arc::new(Health::new(source)), Arc::new(Served::default()));
    let shared = Arc::new(Shared::new(config.rules.clone(), Arc::clone(&served), Arc::clone(&health)));
    let kubeconfig = config.kube.kubeconfig.clone();
    let kube = Kube::start(config.kube, config.rules.sources, publish, say).context("start the source of facts")?;
    info!("sluicegate {} answers reviews on {}", env!("CARGO_PKG_VERSION"), config.address);
    tokio::spawn(serve::admin(admin, Arc::clone(&shared)));
    tokio::spawn(follow(facts, Arc::clone(&shared)));
    let keeping = keep(config.certificate, kubeconfig, served, Arc::clone(&health));
    let ended = tokio::select! {
        ended = serve::reviews(reviews, shared) => ended,
        () = keeping => Ok(()),
        () = stopped(&mut term, &mut interrupt, &health) => Ok(()),
    };
    kube.stop().await;
    ended
}

async fn stopped(term: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal, health: &Health) {
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    info!("stops in {} s", LINGER.as_secs());
    health.stop();
    // Whoever asks twice does not want to wait.
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {}, () = tokio::time::sleep(LINGER) => {} }
}

/// Keeps the index up with the cluster.
async fn follow(mut facts: watch::Receiver<Arc<Facts>>, shared: Arc<Shared>) {
    while facts.changed().await.is_ok() {
        let new = Arc::clone(&facts.borrow_and_update());
        shared.health.indexed(new.ingresses.len());
        shared.index.write().unwrap_or_else(PoisonError::into_inner).update(&new);
    }
}
