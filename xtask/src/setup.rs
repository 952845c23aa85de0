//! `cargo xtask setup`: makes sure that what the other verbs need is there. Under a second when nothing is missing; on a
//! system that it does not know it installs nothing, and says what to install by hand.

mod apt;
pub(crate) mod bpf;
pub(crate) mod go;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{control_plane, helm, steps};

#[derive(Args)]
pub(crate) struct Options {
    /// Only what building needs; neither the demo's and the tests' tools nor the benchmarks' peers.
    #[arg(long)]
    build_only: bool,
}

/// What the tools are wanted for; each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    Build,
    Test,
    Bench,
}

/// A program that something needs, and the Debian package it comes in.
struct Tool {
    program: &'static str,
    package: &'static str,
    wanted: For,
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        program: "cc",
        package: "build-essential",
        wanted: For::Build,
        why: "links, and compiles the C parts of TLS",
    },
    Tool { program: "c++", package: "build-essential", wanted: For::Build, why: "links bpf-linker against LLVM" },
    Tool { program: "ip", package: "iproute2", wanted: For::Test, why: "makes network namespaces" },
    Tool { program: "ethtool", package: "ethtool", wanted: For::Test, why: "sets checksum offload on test devices" },
    Tool { program: "ping", package: "iputils-ping", wanted: For::Test, why: "asks test hosts whether they are there" },
    Tool { program: "curl", package: "curl", wanted: For::Test, why: "the demo's HTTPS client" },
    Tool { program: "jq", package: "jq", wanted: For::Test, why: "the commands of docs/migrate.md" },
    Tool {
        program: "keepalived",
        package: "keepalived",
        wanted: For::Test,
        why: "the routers that elections must get on with",
    },
    Tool {
        program: "nft",
        package: "nftables",
        wanted: For::Test,
        why: "kube-proxy's rules, and what L4 is measured against",
    },
    Tool { program: "iptables", package: "iptables", wanted: For::Test, why: "kube-proxy's rules in its other mode" },
    Tool { program: "nginx", package: "nginx-light", wanted: For::Bench, why: "what the proxy is measured against" },
    Tool { program: "haproxy", package: "haproxy", wanted: For::Bench, why: "what the proxy is measured against" },
    Tool { program: "wrk", package: "wrk", wanted: For::Bench, why: "HTTP/1.1 load" },
    Tool { program: "h2load", package: "nghttp2-client", wanted: For::Bench, why: "HTTP/2 load" },
];

pub(crate) fn setup(options: &Options) -> Result<()> {
    if options.build_only {
        return tools(For::Build);
    }
    tools(For::Bench)?;
    control_plane::prepare()?;
    helm::prepare()
}

/// Installs what is missing for a purpose.
pub(crate) fn tools(purpose: For) -> Result<()> {
    let started = Instant::now();
    steps::title("Set-up");
    let missing: Vec<&Tool> = TOOLS.iter().filter(|t| t.wanted <= purpose && on_path(t.program).is_none()).collect();
    for tool in &missing {
        steps::note(&format!("missing: {} ({}), package {}", tool.program, tool.why, tool.package));
    }
    if !missing.is_empty() {
        let mut packages: Vec<&str> = missing.iter().map(|t| t.package).collect();
        packages.dedup();
        apt::install("install tools", &packages)?;
    }
    bpf::prepare()?;
    if purpose >= For::Test {
        checkers()?;
        mount_bpffs()?;
    }
    steps::note(&format!("all there ({})", steps::elapsed(started)));
    Ok(())
}

/// rustfmt and clippy: a minimal tool chain comes without them.
fn checkers() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if steps::ask(&mut steps::cargo(&[subcommand, "--version"])).is_err() {
            let mut add = Command::new("rustup");
            steps::run(&format!("add {component}"), add.args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// Where a program is; `sbin` counts although an ordinary user's `PATH` may lack it.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Pinned maps live there. systemd mounts it; a container or a minimal system may not.
fn mount_bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|mount| mount.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    if !Path::new("/sys/fs/bpf").is_dir() {
        bail!("/sys/fs/bpf does not exist: this kernel is built without BPF (CONFIG_BPF_SYSCALL)");
    }
    steps::need_root("setup", "it mounts bpffs on /sys/fs/bpf")?;
    steps::run("mount bpffs on /sys/fs/bpf", Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}
