//! `cargo xtask demo`: sets up, builds, and becomes the demo (`tests/src/bin/demo.rs`), which does the showing.

use anyhow::Result;
use clap::Args;

use crate::{build, control_plane, setup, steps};

#[derive(Args)]
pub(crate) struct Options {
    /// On a Kubernetes cluster: two edges, a real API server, an application that is applied with kubectl.
    #[arg(long, conflicts_with = "clean")]
    cluster: bool,
    /// Leave everything running and print commands to play with.
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Remove what `--keep` (or a crash) left.
    #[arg(long)]
    clean: bool,
}

pub(crate) fn demo(options: &Options) -> Result<()> {
    steps::need_root("demo", "it makes network namespaces and loads BPF programs")?;
    setup::tools(setup::For::Test)?;
    if options.cluster {
        control_plane::prepare()?;
    }
    steps::title("Build");
    build::agent(false)?;
    let mut arguments = vec!["build", "--package", "ingress-tests", "--bin", "demo"];
    arguments.extend(build::PEERS);
    steps::run("build the demo and its peers", &mut build::cargo(&arguments)?)?;
    let mut demo = std::process::Command::new(steps::target().join("debug").join("demo"));
    if options.cluster {
        demo.arg("--cluster");
    }
    if options.keep {
        demo.arg("--keep");
    }
    if options.clean {
        demo.arg("--clean");
    }
    steps::become_program(&mut demo)
}
