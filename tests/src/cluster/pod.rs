//! The life of one pod on its node: network, process, readiness, restarts, and the way out in the order that a kubelet keeps:
//! preStop, SIGTERM, the grace period, SIGKILL, and only then is the object forgotten.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::node::{Network, Node};
use super::probe::Readiness;
use super::process::{self, Process};
use super::status::{Report, State, forget};

/// Before the first restart; doubled for each up to [`LONGEST_BACKOFF`]. A real kubelet starts with ten seconds.
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Keeps a pod until it is gone. `seen` has its newest state, and is closed when the object was removed under the kubelet.
pub(super) async fn keep(node: Node, api: Api<Pod>, log: PathBuf, mut seen: watch::Receiver<Pod>) {
    let pod = seen.borrow_and_update().clone();
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let own = node.clone();
    let made = tokio::task::spawn_blocking(move || Network::make(&own, host_network)).await;
    let network = match made.context("make a pod's network").and_then(|made| made) {
        Ok(network) => network,
        Err(error) => {
            eprintln!(
                "{}: no network for pod {}: {error:#}",
                node.name,
                pod.metadata.name.as_deref().unwrap_or_default()
            );
            asked_to_go(&mut seen).await;
            return forget(&api, &pod.metadata).await;
        }
    };
    let report = Report::new(api.clone(), &pod, &node, &network);
    let mut keeper = Keeper { pod, node, network, log, seen, report };
    keeper.live().await;
    let Keeper { network, pod, .. } = keeper;
    // Whoever sees that the pod is gone may rely on its address being gone.
    let _ = tokio::task::spawn_blocking(move || drop(network)).await;
    forget(&api, &pod.metadata).await;
}

struct Keeper {
    pod: Pod,
    node: Node,
    network: Network,
    log: PathBuf,
    seen: watch::Receiver<Pod>,
    report: Report,
}

/// Why a process is no longer looked after.
enum Over {
    Exited(ExitStatus),
    Asked,
}

impl Keeper {
    /// Returns when the pod was asked to go and all of it is gone.
    async fn live(&mut self) {
        let Some(container) = self.pod.spec.as_ref().and_then(|spec| spec.containers.first().cloned()) else { return };
        let mut backoff = BACKOFF;
        loop {
            let (mut process, mut readiness) = match self.start(&container) {
                Ok(started) => started,
                Err(error) => {
                    self.report.tell(&State::Waiting(format!("{error:#}")), false).await;
                    return self.asked_to_go().await;
                }
            };
            self.report.tell(&State::Running, readiness.ready).await;
            let status = match self.watch(&mut process, &mut readiness).await {
                Over::Asked => return self.end(&container, process).await,
                Over::Exited(status) => status,
            };
            // What the process started does not outlive it.
            process.end_group();
            let again = self.starts_again(status);
            self.report.tell(&State::Ended { code: code(status), over: !again }, false).await;
            if !again {
                return self.asked_to_go().await;
            }
            tokio::select! {
                () = sleep(backoff) => {}
                () = asked_to_go(&mut self.seen) => return,
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            self.report.restarts += 1;
        }
    }

    fn start(&self, container: &Container) -> Result<(Process, Readiness)> {
        let readiness = Readiness::of(container)?;
        Ok((process::start(&self.pod, container, &self.node, &self.network, &self.log)?, readiness))
    }

    /// Reports readiness until the process exits or the pod is asked to go.
    async fn watch(&mut self, process: &mut Process, readiness: &mut Readiness) -> Over {
        let address = self.network.addresses[0];
        loop {
            tokio::select! {
                status = process.child.wait() => return Over::Exited(status.unwrap_or_default()),
                () = asked_to_go(&mut self.seen) => return Over::Asked,
                () = readiness.change(&self.node.host.ns, address) => {
                    self.report.tell(&State::Running, readiness.ready).await;
                }
            }
        }
    }

    /// The way out of a running process. It stays as ready as it was until it ends, so that a slice can call it serving.
    async fn end(&mut self, container: &Container, mut process: Process) {
        let deadline = Instant::now() + self.grace();
        let mut seen = self.seen.clone();
        tokio::select! {
            () = self.pre_stop(container) => {}
            _ = process.child.wait() => {}
            () = sleep_until(deadline) => {}
            () = forced(&mut seen) => {}
        }
        process.terminate();
        let exited = tokio::select! {
            status = process.child.wait() => status.ok(),
            () = sleep_until(deadline) => None,
            () = forced(&mut self.seen) => None,
        };
        process.end_group();
        let status = match exited {
            Some(status) => status,
            None => process.child.wait().await.unwrap_or_default(),
        };
        self.report.tell(&State::Ended { code: code(status), over: true }, false).await;
    }

    async fn pre_stop(&self, container: &Container) {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
        if let Some(pause) = &hook.sleep {
            sleep(Duration::from_secs(pause.seconds.try_into().unwrap_or(0))).await;
        }
        if let Some(words) = hook.exec.as_ref().and_then(|exec| exec.command.as_ref()) {
            match process::run(words, &self.network, &self.log) {
                Ok(mut hook) => drop(hook.child.wait().await),
                Err(error) => eprintln!("{}: preStop: {error:#}", self.node.name),
            }
        }
    }

    fn grace(&self) -> Duration {
        let pod = self.seen.borrow();
        let asked = pod.metadata.deletion_grace_period_seconds;
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(asked.or(own).unwrap_or(30).try_into().unwrap_or(0))
    }

    fn starts_again(&self, status: ExitStatus) -> bool {
        match self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => false,
            Some("OnFailure") => !status.success(),
            _ => true,
        }
    }

    async fn asked_to_go(&mut self) {
        asked_to_go(&mut self.seen).await;
    }
}

/// Waits for the deletion timestamp, or for the object to be gone without one.
async fn asked_to_go(seen: &mut watch::Receiver<Pod>) {
    // An error means that the sender is gone: the object was removed.
    let _ = seen.wait_for(|pod| pod.metadata.deletion_timestamp.is_some()).await;
}

/// Waits until the object is gone although its processes are not: it was deleted with a grace period of 0.
async fn forced(seen: &mut watch::Receiver<Pod>) {
    while seen.changed().await.is_ok() {}
}

/// As a shell gives it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
