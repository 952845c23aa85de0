//! `cargo xtask bench`: builds the benchmarks in release mode and runs them one after another, each with the whole machine.
//! What they print is theirs; this file only knows their names.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{build, control_plane, setup, steps};

#[derive(Args)]
pub(crate) struct Options {
    /// Which ones; all if none is named.
    #[arg(value_enum)]
    which: Vec<Which>,
    /// The same as `failover`.
    #[arg(long)]
    failover: bool,
    /// Passed on to the benchmark, after `--`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Nanoseconds a packet, for each kind of packet.
    Xdp,
    /// CPU microseconds a request against nginx and `HAProxy`.
    Proxy,
    /// TCP through one edge in `nat` mode against nftables.
    L4,
    /// Milliseconds from a manifest's rename to its effect at 1,000 services, memory, and a killed agent.
    Live,
    /// A cluster of 10,000 Ingresses behind a real API server: first sync, memory, changes, idle cost.
    Kube,
    /// All pods of a Service are replaced under load, at L4 and at L7: failed requests.
    Rollout,
    /// How long an address does not answer when its node dies or it is moved, beside keepalived.
    Failover,
    /// The admission webhook at 10,000 Ingresses: a review by itself, and what it adds to a write through the API server.
    Webhook,
    /// CPU time of the flow sync between two edges with 100,000 flows.
    Sync,
    /// 10,000 Ingresses: CPU a request against nginx with the same locations and directives, changes under load, memory.
    Ingress,
}

impl Which {
    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "bench_xdp",
            Self::Proxy => "bench_proxy",
            Self::L4 => "bench_l4",
            Self::Live => "bench_live",
            Self::Kube => "bench_kube",
            Self::Rollout => "bench_rollout",
            Self::Failover => "bench_failover",
            Self::Webhook => "bench_webhook",
            Self::Sync => "bench_sync",
            Self::Ingress => "bench_ingress",
        }
    }
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    steps::need_root("bench", "it makes network namespaces and loads BPF programs")?;
    setup::tools(setup::For::Bench)?;
    let mut named = options.which.clone();
    named.extend(options.failover.then_some(Which::Failover));
    let which = if named.is_empty() { Which::value_variants() } else { &named };
    let of_cluster = [Which::Kube, Which::Rollout, Which::Webhook, Which::Failover];
    if which.iter().any(|one| of_cluster.contains(one)) {
        control_plane::prepare()?;
    }
    steps::title("Build");
    build::agent(true)?;
    let mut arguments = vec!["build", "--release", "--package", "ingress-tests"];
    arguments.extend(build::PEERS);
    for one in which {
        arguments.extend(["--bin", one.program()]);
    }
    steps::run("build the benchmarks (release)", &mut build::cargo(&arguments)?)?;
    let mut failed = Vec::new();
    for one in which {
        steps::title(one.program());
        let program = steps::target().join("release").join(one.program());
        let status = std::process::Command::new(&program).args(&options.arguments).status()?;
        if !status.success() {
            failed.push(one.program());
        }
    }
    if !failed.is_empty() {
        bail!("{} failed", failed.join(", "));
    }
    Ok(())
}
