//! kube-proxy on a node, as it is: its rules go into the namespace of the node's host.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::ControlPlane;
use super::node::Node;
use crate::netns::Running;

/// What it logs in as, with the rights that Kubernetes itself has for it.
const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: { name: kube-proxy, namespace: kube-system }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: kube-proxy }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node-proxier' }
subjects: [{ kind: ServiceAccount, name: kube-proxy, namespace: kube-system }]
";

/// `mode` is `nftables` or `iptables`. It ends when the value drops; its rules stay until the namespace goes. The node must be
/// registered. Its log is `kube-proxy-NODE.log` under [`ControlPlane::directory`].
pub fn start(cluster: &ControlPlane, node: &Node, mode: &str) -> Result<Running> {
    cluster.apply(ACCOUNT)?;
    let kubeconfig = cluster.service_account_kubeconfig("kube-system", "kube-proxy")?;
    let path = cluster.directory().join(format!("kube-proxy-{}.log", node.name));
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("open {}", path.display()))?;
    let mut command = Command::new(&cluster.program);
    command.arg("kube-proxy").arg("--kubeconfig").arg(kubeconfig).current_dir(cluster.directory());
    command.args([
        &format!("--hostname-override={}", node.name),
        &format!("--proxy-mode={mode}"),
        "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-bind-address=127.0.0.1:10256",
        // How large the connection table is and how long it remembers is the machine's business.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone().context("share a log")?).stderr(log);
    node.host.ns.spawn(&mut command)
}
