//! What a kubelet says of a pod: its addresses, its phase, whether it is ready. Said until the API server has heard it, or until
//! the pod is no longer there to be spoken of.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::node::{Network, Node};

/// Between two tries while the API server is away.
const PAUSE: Duration = Duration::from_millis(100);

/// What the container's process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It could not be started.
    Waiting(String),
    Running,
    /// With its exit code; 128 and the signal, if one ended it. `over` if it is not to be started again.
    Ended {
        code: i32,
        over: bool,
    },
}

/// A pod as it is reported.
#[derive(Debug)]
pub(super) struct Report {
    api: Api<Pod>,
    name: String,
    uid: String,
    container: String,
    image: String,
    network: Value,
    started: Time,
    ready: bool,
    ready_since: Time,
    pub(super) restarts: u32,
}

impl Report {
    pub(super) fn new(api: Api<Pod>, pod: &Pod, node: &Node, network: &Network) -> Self {
        let ips = |addresses: &[std::net::IpAddr]| addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        Self {
            api,
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: container.map(|container| container.name.clone()).unwrap_or_default(),
            image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
            network: json!({
                "hostIP": node.addresses.first(), "hostIPs": ips(&node.addresses),
                "podIP": network.addresses.first(), "podIPs": ips(&network.addresses),
            }),
            started: now(),
            ready: false,
            ready_since: now(),
            restarts: 0,
        }
    }

    /// Tells the API server.
    pub(super) async fn tell(&mut self, state: &State, ready: bool) {
        if ready != self.ready {
            self.ready = ready;
            self.ready_since = now();
        }
        let phase = match state {
            State::Waiting(_) => "Pending",
            State::Ended { code: 0, over: true } => "Succeeded",
            State::Ended { over: true, .. } => "Failed",
            State::Running | State::Ended { .. } => "Running",
        };
        let details = match state {
            State::Waiting(why) => json!({"waiting": {"reason": "CreateContainerError", "message": why}}),
            State::Running => json!({"running": {"startedAt": self.started}}),
            State::Ended { code, .. } => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": self.started, "finishedAt": now()}})
            }
        };
        let yes = |yes: bool| if yes { "True" } else { "False" };
        let condition =
            |kind: &str, is: bool, since: &Time| json!({"type": kind, "status": yes(is), "lastTransitionTime": since});
        let mut status = self.network.clone();
        let rest = json!({
            "phase": phase,
            "startTime": self.started,
            "conditions": [
                condition("Initialized", true, &self.started),
                condition("ContainersReady", ready, &self.ready_since),
                condition("Ready", ready, &self.ready_since),
            ],
            "containerStatuses": [{
                "name": self.container, "image": self.image, "imageID": "", "ready": ready,
                "started": *state == State::Running, "restartCount": self.restarts, "state": details,
            }],
        });
        merge(&mut status, rest);
        // With the uid, a pod of the same name that came after is not meant.
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.uid}, "status": status}));
        let parameters = PatchParams::default();
        heard(async || self.api.patch_status(&self.name, &parameters, &patch).await.map(drop)).await;
    }
}

/// Has the API server forget a pod: its processes are gone.
pub(super) async fn forget(api: &Api<Pod>, pod: &ObjectMeta) {
    let preconditions = Some(Preconditions { uid: pod.uid.clone(), resource_version: None });
    let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
    let name = pod.name.as_deref().unwrap_or_default();
    heard(async || api.delete(name, &parameters).await.map(drop)).await;
}

/// Repeats a call until the API server answers it. A refusal is an answer too: most often the object is gone, or another one has
/// its name now.
pub(super) async fn heard(mut call: impl AsyncFnMut() -> kube::Result<()>) {
    loop {
        match call().await {
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
            Ok(()) => return,
        }
    }
}

pub(super) fn now() -> Time {
    Time(Timestamp::now())
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
