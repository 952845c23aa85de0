//! `cargo xtask demo`: sets up, builds, and becomes the demo (`tests/src/bin/demo.rs`), which does the showing.

use anyhow::Result;
use clap::Args;

use crate::{build, setup, steps};

#[derive(Args)]
pub(crate) struct Options {
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
    steps::title("Build");
    build::agent(false)?;
    let arguments =
        ["build", "--package", "ingress-tests", "--bin", "demo", "--bin", "demo_backend", "--bin", "demo_client"];
    steps::run("build the demo and its peers", &mut build::cargo(&arguments)?)?;
    let mut demo = std::process::Command::new(steps::target().join("debug").join("demo"));
    if options.keep {
        demo.arg("--keep");
    }
    if options.clean {
        demo.arg("--clean");
    }
    steps::become_program(&mut demo)
}
