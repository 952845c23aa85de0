//! The test kubelet, which is the scheduler too: it registers the nodes of a test, binds pods to them, and runs each pod's first
//! container as a process in a network namespace of the pod's own. It never looks at images.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Binding, Node as KubernetesNode, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::control_plane::{ControlPlane, client};
use super::node::Node;
use super::pod;
use super::status::{heard, now};

/// A real kubelet's; the cluster calls a node lost after four of them.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// After a watch that broke.
const PAUSE: Duration = Duration::from_millis(100);

/// Dropping it ends every pod's process and removes its network; the objects stay.
pub struct Kubelet {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Registers the nodes and looks after their pods from then on. What pods print is kept in `NAMESPACE_NAME.log` under
    /// [`ControlPlane::directory`].
    pub fn start(cluster: &ControlPlane, nodes: Vec<Node>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (registered, wait) = mpsc::channel();
        let (ns, admin) = (cluster.ns.clone(), cluster.admin_kubeconfig().to_owned());
        let logs = cluster.directory().to_owned();
        let work = move || -> Result<()> {
            // Connections to the API server are made on this thread, and processes end with it.
            ns.enter_thread()?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
            // Pods' tasks stay on this thread, and end with the set.
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async {
                let client = client(&admin).await?;
                for node in &nodes {
                    register(&client, node).await.with_context(|| format!("register node {}", node.name))?;
                }
                let _ = registered.send(());
                tokio::select! {
                    _ = stopped => Ok(()),
                    () = look_after(client.clone(), &nodes, logs) => Ok(()),
                    () = beat(&client, &nodes) => Ok(()),
                }
            })
        };
        let (told, failed) = mpsc::channel();
        let thread = std::thread::Builder::new().name("kubelet".into()).spawn(move || {
            if let Err(error) = work() {
                let _ = told.send(error);
            }
        });
        let kubelet = Self { stop: Some(stop), thread: Some(thread.context("start the kubelet's thread")?) };
        match wait.recv() {
            Ok(()) => Ok(kubelet),
            Err(_) => Err(failed.recv().unwrap_or_else(|_| anyhow::anyhow!("the kubelet's thread panicked"))),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes the Node, Ready, and its lease.
async fn register(client: &Client, node: &Node) -> Result<()> {
    let mut addresses: Vec<_> = node.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    let ranges = node.pod_ranges();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": now(), "lastTransitionTime": now(),
        })
    };
    let room = json!({"cpu": "8", "memory": "16Gi", "pods": "250"});
    let object: KubernetesNode = serde_json::from_value(json!({
        "metadata": {"name": node.name, "labels": node.labels},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {
            "addresses": addresses, "capacity": room, "allocatable": room,
            "conditions": [
                condition("Ready", "True", "KubeletReady"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            ],
        },
    }))
    .context("describe the node")?;
    match Api::all(client.clone()).create(&PostParams::default(), &object).await {
        // A kubelet before this one made it.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made?),
    }
    renew(client, node).await?;
    Ok(())
}

async fn renew(client: &Client, node: &Node) -> kube::Result<()> {
    let lease = Lease {
        metadata: ObjectMeta { name: Some(node.name.clone()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.name.clone()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(now().0)),
            ..LeaseSpec::default()
        }),
    };
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    leases.patch(&node.name, &PatchParams::apply("test-kubelet").force(), &Patch::Apply(lease)).await.map(drop)
}

/// Keeps the nodes alive in the cluster's eyes.
async fn beat(client: &Client, nodes: &[Node]) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        for node in nodes {
            heard(async || renew(client, node).await).await;
        }
    }
}

/// The pods that a kubelet knows, by uid.
struct Pods<'a> {
    client: Client,
    nodes: &'a [Node],
    logs: PathBuf,
    /// Where each was bound to, until it is gone.
    bound: HashMap<String, String>,
    kept: HashMap<String, watch::Sender<Pod>>,
}

/// Watches all pods for ever.
async fn look_after(client: Client, nodes: &[Node], logs: PathBuf) {
    let mut pods = Pods { client: client.clone(), nodes, logs, bound: HashMap::new(), kept: HashMap::new() };
    let mut events = pin!(watcher(Api::<Pod>::all(client), watcher::Config::default()));
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => pods.see(pod),
            Ok(Event::Delete(pod)) => pods.forget(&uid(&pod)),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(uid(&pod));
                pods.see(pod);
            }
            // What went while the watch was broken is in no list.
            Ok(Event::InitDone) => pods.forget_all_but(&listed),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Pods<'_> {
    fn see(&mut self, pod: Pod) {
        let uid = uid(&pod);
        if let Some(kept) = self.kept.get(&uid) {
            kept.send_replace(pod);
            return;
        }
        let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            self.bind(&pod);
            return;
        };
        let Some(node) = self.nodes.iter().find(|node| node.name == name).cloned() else { return };
        self.bound.insert(uid.clone(), name);
        let (namespace, name) = (namespace(&pod), pod.metadata.name.clone().unwrap_or_default());
        let api = Api::namespaced(self.client.clone(), &namespace);
        let log = self.logs.join(format!("{namespace}_{name}.log"));
        let (sender, seen) = watch::channel(pod);
        self.kept.insert(uid, sender);
        tokio::task::spawn_local(pod::keep(node, api, log, seen));
    }

    /// To the node with the fewest pods among those that the pod allows. One that fits nowhere stays pending.
    fn bind(&mut self, pod: &Pod) {
        let uid = uid(pod);
        if self.bound.contains_key(&uid) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let load = |node: &Node| self.bound.values().filter(|name| **name == node.name).count();
        let Some(node) = self.nodes.iter().filter(|node| allows(pod, node)).min_by_key(|node| load(node)) else {
            return;
        };
        self.bound.insert(uid, node.name.clone());
        let name = pod.metadata.name.clone().unwrap_or_default();
        let binding = Binding {
            metadata: ObjectMeta { name: Some(name.clone()), uid: pod.metadata.uid.clone(), ..ObjectMeta::default() },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.name.clone()),
                ..ObjectReference::default()
            },
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace(pod));
        tokio::task::spawn_local(async move {
            let parameters = PostParams::default();
            heard(async || {
                let answer = api.create_subresource::<_, serde_json::Value>("binding", &name, &parameters, &binding);
                answer.await.map(drop)
            })
            .await;
        });
    }

    /// Closes the channel to whoever keeps the pod.
    fn forget(&mut self, uid: &str) {
        self.kept.remove(uid);
        self.bound.remove(uid);
    }

    fn forget_all_but(&mut self, listed: &HashSet<String>) {
        self.kept.retain(|uid, _| listed.contains(uid));
        self.bound.retain(|uid, _| listed.contains(uid));
    }
}

/// `nodeSelector`, and the node's name in the required affinity, by which a DaemonSet says where each of its pods goes.
fn allows(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let named = required.is_none_or(|required| {
        // Terms are alternatives; the fields of one must all match, and the one field that exists is the name.
        required.node_selector_terms.iter().any(|term| {
            let mut fields = term.match_fields.iter().flatten();
            fields.all(|field| field.values.iter().flatten().any(|value| *value == node.name))
        })
    });
    selected && named
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn namespace(pod: &Pod) -> String {
    pod.metadata.namespace.clone().unwrap_or_else(|| "default".into())
}
