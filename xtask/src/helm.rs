//! Helm itself, as a Go module has it (`tests/helm`): the chart is rendered and installed by what its users have, not by an imitation.

use anyhow::{Context, Result};

use crate::go_program::{GoProgram, word_after};

const HELM: GoProgram = GoProgram {
    name: "helm",
    what: "Helm",
    note: "Helm is compiled once, from Go modules: 2 to 5 minutes on two cores",
    sources: &["go.mod", "go.sum"],
    package: "helm.sh/helm/v3/cmd/helm",
    flags,
};

/// Builds it if need be.
pub(crate) fn prepare() -> Result<()> {
    HELM.prepare()
}

/// Helm's own Makefile sets the same: without, it calls itself a development build for Kubernetes 1.20.
fn flags(module: &str) -> Result<String> {
    let helm = word_after(module, "helm.sh/helm/v3 ").context("go.mod requires no helm.sh/helm/v3")?;
    let client = word_after(module, "k8s.io/client-go v0.").context("go.mod requires no k8s.io/client-go")?;
    let minor = client.split('.').next().unwrap_or_default();
    let kubernetes = |package: &str| {
        format!(
            "-X helm.sh/helm/v3/pkg/{package}.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/{package}.k8sVersionMinor={minor}"
        )
    };
    let version = format!("-X helm.sh/helm/v3/internal/version.version={helm}");
    Ok(format!("-s -w {version} {} {}", kubernetes("chartutil"), kubernetes("lint/rules")))
}
