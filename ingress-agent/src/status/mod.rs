//! What the API server is told: where Services and Ingresses are served (`status.loadBalancer`), what became of VirtualIPPools (their
//! conditions), and what is wrong with any of them (Events). What they are owed is decided in `plan`; whether an address is announced, in `vip`. Here nothing is decided but
//! who writes, and when.
//!
//! Every node keeps one small Lease of its own, which says which addresses it announces (`node`). One node, elected by another
//! Lease (`elector`), reads those and writes everything else (`writer`): an address stands in a status exactly while some living node
//! announces it. An object on an address that was announced before gets it when the writer's own node has it in force; the
//! other nodes have it in force some milliseconds before or after, each for itself.
//!
//! It runs on a thread of its own. Traffic never waits for it, and nothing that the API server does or fails to do ends it.
#![forbid(unsafe_code)]

mod decide;

mod pool;

mod ledger;

mod nodes;

mod takeover;

mod conflict;

mod notices;

mod election;

mod lease;

mod wire;

mod troubles;

mod watches;

mod elector;

mod node;

mod send;

mod writer;

mod clear;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{oneshot, watch};

use crate::apiserver;
use crate::apiserver::background::Background;
use crate::apiserver::backoff::{Backoff, chance};
use crate::model::report::Report;
pub use clear::{ClearOptions, Cleared, clear};
use elector::Elector;
use node::Node;
use troubles::Troubles;

/// How long a node that leaves goes on to write what it owes. What is left then, the next writer does.
const LAST_WRITES: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// `None`: the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own, where its Leases live.
    pub namespace: String,
    /// Of Services and Ingresses. Empty: all.
    pub watch_namespaces: Vec<String>,
    /// Unique in the cluster.
    pub node: String,
    /// What the status of Ingresses says instead of the addresses that they are served on, while they are (`--publish-status-address`). Empty: those.
    pub published: Vec<PublishedAddress>,
}

/// Where clients find Ingresses: a router that leads to the virtual address, for example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishedAddress {
    Address(IpAddr),
    Name(String),
}

/// The running reporter.
#[derive(Debug)]
pub struct Status {
    work: Background,
    troubles: watch::Receiver<Vec<String>>,
}

impl Status {
    /// Reports what `report` says from now on. `pulse`: when the side that applies was last seen to work; without it this node
    /// does not write for the cluster.
    pub fn start(
        options: StatusOptions,
        report: watch::Receiver<Arc<Report>>,
        pulse: watch::Receiver<Instant>,
    ) -> anyhow::Result<Self> {
        let (tell, troubles) = watch::channel(Vec::new());
        let work = async move |stopped| run(options, report, pulse, stopped, Troubles::new(tell)).await;
        let work = Background::start("status", "reports to the cluster", work)?;
        Ok(Self { work, troubles })
    }

    /// What is in the way, in words.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.borrow().clone()
    }

    /// Ends it, within some seconds. The last report was that this node announces nothing: then, if this node is the writer,
    /// what that means is written before another one takes over.
    pub async fn stop(self) {
        self.work.stop().await;
    }
}

async fn run(
    options: StatusOptions,
    report: watch::Receiver<Arc<Report>>,
    pulse: watch::Receiver<Instant>,
    mut stopped: oneshot::Receiver<()>,
    troubles: Troubles,
) {
    let client = tokio::select! {
        client = connect(&options, &troubles) => client,
        _ = &mut stopped => return,
    };
    // No process is ever taken for another one, be it of the same node.
    let identity = format!("{}_{:016x}", options.node, chance().to_bits());
    let (lead, until) = watch::channel(None);
    let (settle, mut settled) = watch::channel(true);
    let node = Node::new(client.clone(), &options.namespace, &options.node, &identity, troubles.clone());
    let mut elector = Elector::new(client.clone(), &options.namespace, identity, lead, pulse, troubles.clone());
    {
        let work = async {
            tokio::join!(
                node.run(report.clone()),
                elector.run(),
                writer::run(client, &options, report, until, &settle, &troubles),
            )
        };
        tokio::pin!(work);
        tokio::select! {
            _ = &mut work => {}
            _ = stopped => {}
        }
        let last = tokio::time::timeout(LAST_WRITES, settled.wait_for(|settled| *settled));
        tokio::select! {
            _ = &mut work => {}
            _ = last => {}
        }
    }
    tokio::join!(elector.give_back(), node.leave());
}

/// The client, when there is a configuration to make it of.
async fn connect(options: &StatusOptions, troubles: &Troubles) -> Client {
    let mut backoff = Backoff::default();
    loop {
        match apiserver::client(options.kubeconfig.as_deref()).await {
            Ok((client, _)) => {
                troubles.gone("connect");
                return client;
            }
            Err(e) => troubles.appeared("connect", &format!("{e:#}")),
        }
        tokio::time::sleep(backoff.next(chance())).await;
    }
}
