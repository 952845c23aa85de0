//! A LAN with edges and a real API server, and agents with the rights that reporting needs.

use std::path::PathBuf;
use std::time::Duration;

use ingress_tests::cluster::ControlPlane;
use ingress_tests::deploy;
use ingress_tests::edge::Agent;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::place::Place;
use ingress_tests::wait;

/// A node that was killed is missed after half a minute, and a writer after a quarter; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The plural of VirtualIPPool, as a definition is called.
pub(crate) const POOLS: &str = "virtualippools.sluicegate.io";

/// For the objects of the tests.
const DEMO: &str = "{ apiVersion: v1, kind: Namespace, metadata: { name: demo } }";

/// Agents end before the cluster that they report to.
pub(crate) struct World {
    pub(crate) cluster: ControlPlane,
    kubeconfig: PathBuf,
    label: String,
    pub(crate) lan: Lan,
}

/// An agent on an edge of its own.
pub(crate) struct Edge {
    pub(crate) agent: Agent,
    pub(crate) host: Host,
    _place: Place,
}

impl World {
    /// With the rights that are shipped. A request too many is refused, and `/readyz` would say so.
    pub(crate) fn new(label: &str) -> Self {
        Self::granted(label, &deploy::rights())
    }

    pub(crate) fn granted(label: &str, rights: &str) -> Self {
        let lan = Lan::new(label).expect("make a LAN");
        let control = lan.host("k", &["10.1.0.9/24"]).expect("plug in a host");
        let cluster = ControlPlane::start(label, &control.ns, [10, 1, 0, 9].into()).expect("start a control plane");
        cluster.apply(rights).expect("grant rights");
        cluster.apply(DEMO).expect("make a namespace");
        let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate").expect("a kubeconfig");
        Self { cluster, kubeconfig, label: label.to_owned(), lan }
    }

    /// An agent that is not started yet, on `10.1.0.N`.
    pub(crate) fn edge(&self, name: &str, n: u8, arguments: &[&str]) -> Edge {
        self.edge_as(name, name, n, arguments)
    }

    /// The same, of a host that calls itself `node`.
    pub(crate) fn edge_as(&self, name: &str, node: &str, n: u8, arguments: &[&str]) -> Edge {
        let host = self.lan.host(name, &[&format!("10.1.0.{n}/24")]).expect("plug in a host");
        let place = Place::new(&format!("{}-{name}", self.label)).expect("a place");
        let arguments = [&["--max-flows", "10000", "--workers", "1", "--node", node], arguments].concat();
        let agent = Agent::of_cluster(&host, &place.directory, &place.pins, &self.kubeconfig, &arguments);
        Edge { agent, host, _place: place }
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments, "").unwrap_or_else(|e| panic!("kubectl {}: {e:#}", arguments.join(" ")))
    }

    /// The definition of VirtualIPPool that is shipped, as an API server has it.
    pub(crate) fn define_pools(&self) {
        let definition =
            std::fs::read_to_string(deploy::path("crds/virtualippools.yaml")).expect("read the definition");
        self.cluster.apply(&definition).expect("apply the definition");
        self.kubectl(&["wait", "--for=condition=Established", &format!("crd/{POOLS}"), "--timeout=60s"]);
    }

    /// `status.loadBalancer.ingress` of a `KIND/NAME`: addresses, each with its mode.
    pub(crate) fn status(&self, object: &str) -> String {
        let path = "jsonpath={range .status.loadBalancer.ingress[*]}{.ip}/{.ipMode} {end}";
        self.kubectl(&["get", object, "--namespace=demo", "-o", path]).trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn status_becomes(&self, object: &str, expected: &str) {
        let mut last = String::new();
        wait::within(PATIENCE, &format!("the status of {object} is `{expected}`"), || {
            last = self.status(object);
            (last == expected).then_some(())
        });
    }

    /// The addresses that are recorded in an annotation.
    #[track_caller]
    pub(crate) fn record_becomes(&self, object: &str, expected: &str) {
        let path = "jsonpath={.metadata.annotations.sluicegate\\.io/assigned}";
        wait::within(PATIENCE, &format!("the record of {object} is `{expected}`"), || {
            (self.kubectl(&["get", object, "--namespace=demo", "-o", path]) == expected).then_some(())
        });
    }

    /// Of a Lease of the agents; nothing where there is no such Lease.
    pub(crate) fn lease(&self, name: &str, path: &str) -> Option<String> {
        let arguments = ["get", "lease", name, "--namespace=sluicegate-system", "-o", &format!("jsonpath={{{path}}}")];
        self.cluster.kubectl(&arguments, "").ok()
    }

    /// The name of the node that writes, once one does.
    #[track_caller]
    pub(crate) fn writer(&self) -> String {
        let holder = wait::within(PATIENCE, "a node writes", || {
            self.lease("sluicegate-status", ".spec.holderIdentity").filter(|holder| !holder.is_empty())
        });
        holder.split('_').next().unwrap_or_default().to_owned()
    }

    /// Waits until `kubectl describe` says this about a `KIND/NAME`.
    #[track_caller]
    pub(crate) fn describes(&self, object: &str, words: &[&str]) {
        let mut last = String::new();
        let found = |text: &str| words.iter().all(|word| text.contains(word));
        wait::within(PATIENCE, &format!("kubectl describe {object} says {words:?}"), || {
            last = self.kubectl(&["describe", object, "--namespace=demo"]);
            found(&last).then_some(())
        });
    }
}

pub(crate) fn service(name: &str, vip: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: demo, annotations: {{ sluicegate.io/vips: '{vip}' }} }}
spec: {{ type: LoadBalancer, loadBalancerClass: sluicegate.io/xdp, ports: [{{ port: 9000 }}] }}
---
"
    )
}

pub(crate) fn pool(name: &str, addresses: &str, more: &str) -> String {
    format!(
        "\napiVersion: sluicegate.io/v1alpha1\nkind: VirtualIPPool\nmetadata: {{ name: {name} }}\n\
         spec: {{ addresses: [{addresses}]{more} }}\n---\n"
    )
}

pub(crate) fn class(vip: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{ name: sluicegate, annotations: {{ sluicegate.io/vips: '{vip}' }} }}
spec: {{ controller: sluicegate.io/ingress-controller }}
---
"
    )
}

pub(crate) fn ingress(name: &str, class: &str, service: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: {name}, namespace: demo }}
spec:
  ingressClassName: {class}
  rules:
  - host: {name}.example
    http:
      paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: {service}, port: {{ number: 9000 }} }} }} }}]
---
"
    )
}
