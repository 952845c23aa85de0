//! The cluster demo's world: a LAN with two edges, two workers, a client and a host for the control plane; a real API server with
//! its controllers; a kubelet that runs pods as processes; and an agent on each edge. Only builds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ingress_tests::cluster::{ControlPlane, Kubelet, Node};
use ingress_tests::deploy;
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};

use crate::traces;
use crate::world::certificate;

pub(crate) const CLIENT: &str = "192.0.2.21";
/// The application's namespace, as in `tests/demo/cluster/*.yaml`.
pub(crate) const NAMESPACE: &str = "shop";

const OPERATOR: &str = include_str!("../../../../demo/cluster/operator.yaml");

pub(crate) struct Edge {
    pub(crate) agent: Agent,
    pub(crate) host: Host,
}

/// Fields drop in this order: whoever talks to the API server ends before it, and all before the namespaces.
pub(crate) struct World {
    /// `edge-1` and `edge-2`.
    pub(crate) edges: [Edge; 2],
    _kubelet: Kubelet,
    pub(crate) cluster: ControlPlane,
    pub(crate) client: Host,
    directory: PathBuf,
    _hosts: Vec<Host>,
    _lan: Lan,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let own = std::process::id();
        let directory = traces::directory(own);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let lan = Lan::new("demo")?;
        let addresses = |n: u8| [format!("192.0.2.{n}"), format!("2001:db8:1::{n}")];
        let plug = |name: &str, n: u8| {
            let [v4, v6] = addresses(n);
            lan.host(name, &[&format!("{v4}/24"), &format!("{v6}/64")])
        };
        let edges = [plug("edge-1", 1)?, plug("edge-2", 2)?];
        let workers = [plug("worker-1", 11)?, plug("worker-2", 12)?];
        let client = plug("client", 21)?;
        let control = plug("api", 9)?;
        let mut nodes = Vec::new();
        for (index, (host, n)) in edges.iter().chain(&workers).zip([1, 2, 11, 12]).enumerate() {
            let [v4, v6] = addresses(n);
            let name = ["edge-1", "edge-2", "worker-1", "worker-2"][index];
            host.forward()?;
            nodes.push(Node::new(name, host, &[&v4, &v6], index as u8 + 1));
        }
        // As a CNI would do it: every node knows the way to the others' pods.
        for node in &nodes {
            for other in edges.iter().chain(&workers).filter(|other| other.name != node.host.name) {
                node.route_pods_from(other)?;
            }
        }
        let cluster = ControlPlane::start(traces::CLUSTER, &control.ns, [192, 0, 2, 9].into())?;
        let kubelet = Kubelet::start(&cluster, nodes)?;
        // All that is shipped. No node has the label that the DaemonSet asks for: the kubelet here knows no images, so the demo starts
        // the agents itself, with the rights that the DaemonSet's would have.
        cluster.kubectl(&["apply", "-k", &deploy::path("kustomize/base").to_string_lossy()], "")?;
        let crd = "customresourcedefinitions/virtualippools.sluicegate.io";
        cluster.kubectl(&["wait", "--for=condition=Established", crd, "--timeout=60s"], "")?;
        cluster.apply(OPERATOR)?;
        let secret = certificate(&directory, NAMESPACE)?;
        cluster.apply(&secret)?;
        let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate")?;
        let [one, two] = edges;
        let edges = [edge(one, "edge-1", &directory, &kubeconfig)?, edge(two, "edge-2", &directory, &kubeconfig)?];
        let mut hosts = Vec::from(workers);
        hosts.push(control);
        Ok(Self { edges, _kubelet: kubelet, cluster, client, directory, _hosts: hosts, _lan: lan })
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments, "")
    }

    /// kubectl in the application's namespace.
    pub(crate) fn shop(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// The addresses in the status of a `KIND/NAME`, IPv4 first; none while nobody announces them.
    pub(crate) fn addresses(&self, object: &str) -> Result<Vec<String>> {
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let mut found: Vec<String> =
            self.shop(&["get", object, "-o", path])?.split_whitespace().map(str::to_owned).collect();
        found.sort_by_key(|address| address.contains(':'));
        Ok(found)
    }

    /// What went wrong, for whoever sees the demo fail.
    pub(crate) fn last_words(&self) -> String {
        let words = self.edges.iter().map(|edge| format!("{}:\n{}", edge.host.name, edge.agent.last_words()));
        words.collect::<Vec<_>>().join("\n")
    }

    /// What a person may try in a kept world.
    pub(crate) fn print_commands(&self) {
        let inside = |host: &Host| format!("nsenter --net=/run/netns/{}", host.ns.name);
        let agent = sibling("sluicegate").unwrap_or_default();
        let socket = self.edges[0].agent.socket();
        let authority = self.authority();
        println!(
            "\nIt goes on running. To play with it:\n\
             \n  # the cluster, as its admin\
             \n  alias k='nsenter --net=/run/netns/{} {} kubectl --kubeconfig {}'\
             \n  k get svc,ing,pods -n {NAMESPACE} -o wide\
             \n  k get events -n {NAMESPACE}\
             \n  k describe ingress wrong -n {NAMESPACE}\
             \n  k rollout restart deployment/shop -n {NAMESPACE}\
             \n  k get leases -n sluicegate-system\
             \n  # HTTPS through edge-1, HTTP straight to a pod through edge-2\
             \n  {client} curl --cacert {} --resolve shop.example:443:192.0.2.100 https://shop.example/\
             \n  {client} curl http://$(k get svc stock -n {NAMESPACE} -o jsonpath='{{.status.loadBalancer.ingress[0].ip}}')/\
             \n  # what an agent does, and why\
             \n  {} {} status --admin-socket {}\
             \n  # an agent's log\
             \n  tail -f {}\
             \n  # the end of it\
             \n  cargo xtask demo --clean\n",
            self.cluster.ns.name,
            self.cluster.program().display(),
            self.cluster.admin_kubeconfig().display(),
            authority.display(),
            inside(&self.edges[0].host),
            agent.display(),
            socket.display(),
            self.edges[0].agent.log_path().display(),
            client = inside(&self.client),
        );
    }
}

fn edge(host: Host, name: &str, directory: &Path, kubeconfig: &Path) -> Result<Edge> {
    let directory = directory.join(name);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let pins = traces::pins(std::process::id()).join(name);
    let arguments = ["--node", name, "--hold-vips", "all", "--max-flows", "100000", "--workers", "1"];
    let mut agent = Agent::of_cluster(&host, &directory, &pins, kubeconfig, &arguments);
    agent.start_again()?;
    Ok(Edge { agent, host })
}

/// Asks again and again until there is a value; fails with what was asked last.
pub(crate) fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() > end {
            let reason = answer.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            anyhow::bail!("waited {patience:?} in vain until {what}{reason}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
