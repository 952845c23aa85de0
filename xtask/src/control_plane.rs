//! The Kubernetes control plane that the tests run against: one Go binary (`tests/control-plane`) with etcd, kube-apiserver,
//! kube-controller-manager and kubectl. Built once; after that the check takes milliseconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup::go, steps};

/// What the binary is made of; the stamp beside it holds their text.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];
const STAMP: &str = "built-from";

/// Where the tests look for it.
pub(crate) fn binary() -> PathBuf {
    directory().join("control-plane")
}

fn directory() -> PathBuf {
    steps::target().join("control-plane")
}

/// Builds it unless it is built from just these sources; gets a Go tool chain first where there is none.
pub(crate) fn prepare() -> Result<()> {
    let sources = steps::root().join("tests/control-plane");
    let mut stamp = String::new();
    for name in SOURCES {
        let path = sources.join(name);
        stamp += &fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    }
    let module = &fs::read_to_string(sources.join("go.mod")).context("read go.mod")?;
    let kubernetes = word_after(module, "k8s.io/kubernetes ").context("go.mod requires no k8s.io/kubernetes")?;
    let flags = linker_flags(kubernetes);
    stamp += &flags;
    if binary().is_file() && fs::read_to_string(directory().join(STAMP)).is_ok_and(|built| built == stamp) {
        return Ok(());
    }
    let wanted = word_after(module, "\ngo ").context("go.mod names no Go version")?;
    build(&go::prepare(wanted)?, &sources, kubernetes, &flags)?;
    fs::write(directory().join(STAMP), stamp).context("note what the control plane was built from")
}

fn build(go: &Path, sources: &Path, kubernetes: &str, flags: &str) -> Result<()> {
    steps::note("the tests' Kubernetes control plane is compiled once, from Go modules: 5 to 10 minutes on two cores");
    fs::create_dir_all(directory()).with_context(|| format!("create {}", directory().display()))?;
    // Names each package as it is compiled, for the line that shows progress. The tool chain at hand is the one to use, and the
    // user's flags are for his own modules.
    let mut build = Command::new(go);
    build.args(["build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, "-o"]);
    build.arg(binary()).arg(".").current_dir(sources);
    build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOWORK", "off");
    steps::run(&format!("build Kubernetes {kubernetes} (etcd, API server, controllers, kubectl)"), &mut build)
}

/// Without debug information, a third smaller. Clients see the version; a release's build sets it the same way.
fn linker_flags(kubernetes: &str) -> String {
    let set = |package: &str| format!("-X {package}.gitVersion={kubernetes}");
    format!("-s -w {} {}", set("k8s.io/component-base/version"), set("k8s.io/client-go/pkg/version"))
}

fn word_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_whitespace().next()
}
