//! The Kubernetes control plane that the tests run against: one Go binary (`tests/control-plane`) with etcd, kube-apiserver,
//! kube-controller-manager, kube-proxy and kubectl.

use anyhow::{Context, Result};

use crate::go_program::{GoProgram, word_after};

const CONTROL_PLANE: GoProgram = GoProgram {
    name: "control-plane",
    what: "Kubernetes (etcd, API server, controllers, kube-proxy, kubectl)",
    note: "the tests' Kubernetes control plane is compiled once, from Go modules: 5 to 10 minutes on two cores",
    sources: &["main.go", "go.mod", "go.sum"],
    package: ".",
    flags,
};

/// Builds it if need be.
pub(crate) fn prepare() -> Result<()> {
    CONTROL_PLANE.prepare()
}

/// Without debug information, a third smaller. Clients see the version; a release's build sets it the same way.
fn flags(module: &str) -> Result<String> {
    let kubernetes = word_after(module, "k8s.io/kubernetes ").context("go.mod requires no k8s.io/kubernetes")?;
    let set = |package: &str| format!("-X {package}.gitVersion={kubernetes}");
    Ok(format!("-s -w {} {}", set("k8s.io/component-base/version"), set("k8s.io/client-go/pkg/version")))
}
