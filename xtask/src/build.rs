//! `cargo xtask build`: the agent, with the BPF programs compiled into it by `ingress-agent/build.rs`.
//! Says which tool chain builds the programs; never installs anything itself (`setup` does).

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{setup, steps};

/// `ingress-agent/build.rs` reads the name of the tool chain that builds the BPF programs from here.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "SLUICEGATE_BPF_TOOLCHAIN";

/// The programs that the demo and the benchmarks start beside the agent, as cargo's arguments.
pub(crate) const PEERS: [&str; 6] = ["--bin", "demo_backend", "--bin", "demo_client", "--bin", "outage_probe"];

#[derive(Args)]
pub(crate) struct Options {
    /// With optimisations, as it is shipped.
    #[arg(long)]
    release: bool,
}

pub(crate) fn build(options: &Options) -> Result<()> {
    setup::tools(setup::For::Build)?;
    steps::title("Build");
    agent(options.release)?;
    let profile = if options.release { "release" } else { "debug" };
    steps::note(&format!("the agent: {}", steps::target().join(profile).join("sluicegate").display()));
    Ok(())
}

/// Builds the binary `sluicegate`.
pub(crate) fn agent(release: bool) -> Result<()> {
    let profile = if release { "release" } else { "dev" };
    let what = format!("build the agent ({profile})");
    steps::run(&what, &mut cargo(&["build", "--package", "ingress-agent", "--bins", "--profile", profile])?)
}

/// A cargo that knows which tool chain builds the BPF programs.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = steps::cargo(arguments);
    let toolchain = setup::bpf::chosen()?;
    // The build script's own default is not said, or cargo would build again whatever a plain `cargo build` built.
    if toolchain != setup::bpf::DEBIAN {
        command.env(TOOLCHAIN_VARIABLE, toolchain);
    }
    Ok(command)
}
