//! The proxy beside nginx and HAProxy on this machine: CPU microseconds a request, requests a second, latency. All peers
//! take turns within one run, in front of the same backend, with their access logs off and two workers each; a figure is
//! the median of the turns. A ratio is the median of the ratios turn by turn: the machine's speed drifts by more than the peers
//! differ, and within a turn it is the same for all. Prints ratios; exits 1 if a bar of issue 3 is missed and `--bars` was given.

mod changes;

mod load;

mod peers;

mod serve;

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use load::{Sample, Scenario};
use peers::Peer;

/// As the agent's binary does: glibc's allocator asks the kernel more often.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Turns of each peer in each scenario.
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// Length of one turn.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Exit 1 if a bar is missed.
    #[arg(long)]
    bars: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Be the proxy, in a process of its own, until killed.
    #[command(hide = true)]
    Serve { http: SocketAddr, https: SocketAddr, backend: SocketAddr },
    /// How long a change takes to be effective at 1,000 × 100 endpoints and 10,000 routes.
    Changes,
}

fn main() -> anyhow::Result<()> {
    ingress_agent::memory::small_pages();
    let args = Args::parse();
    match args.verb {
        Some(Verb::Serve { http, https, backend }) => return serve::run(http, https, backend),
        Some(Verb::Changes) => return changes::run(),
        None => {}
    }
    let stage = peers::Stage::new()?;
    let mut missed = Vec::new();
    println!("{:34}{:>9}{:>10}{:>9}{:>9}   CPU of ours ÷ theirs", "", "CPU µs", "req/s", "p50 µs", "p99 µs");
    for scenario in Scenario::ALL.iter().filter(|s| s.name().contains(&args.only)) {
        let mut samples: Vec<(&Peer, Vec<Sample>)> = stage.peers.iter().map(|p| (p, Vec::new())).collect();
        for turn in 0..args.turns {
            let count = samples.len();
            for place in 0..count {
                // Nobody is always first.
                let (peer, taken) = &mut samples[(place + turn) % count];
                let sample = load::run(*scenario, peer, args.seconds);
                taken.push(sample.with_context(|| format!("{} through {}", scenario.name(), peer.name))?);
            }
        }
        let ours: Vec<f64> = samples[0].1.iter().map(|s| s.cpu_micros).collect();
        for (peer, taken) in &samples {
            let cpu = median(taken.iter().map(|s| s.cpu_micros));
            let ratio = median(taken.iter().zip(&ours).map(|(theirs, ours)| ours / theirs.cpu_micros));
            let bar = scenario.bar(peer.name);
            let verdict = match bar {
                Some(bar) if ratio > bar => {
                    missed.push(format!("{}: {ratio:.3} of {}, the bar is {bar}", scenario.name(), peer.name));
                    format!("{ratio:.3}  (bar {bar}: missed)")
                }
                Some(bar) => format!("{ratio:.3}  (bar {bar}: held)"),
                None if peer.name == "sluicegate" => String::new(),
                None => format!("{ratio:.3}"),
            };
            println!(
                "{:<24}{:<10}{cpu:>9.1}{:>10.0}{:>9.0}{:>9.0}   {verdict}",
                scenario.name(),
                peer.name,
                median(taken.iter().map(|s| s.per_second)),
                median(taken.iter().map(|s| s.p50_micros)),
                median(taken.iter().map(|s| s.p99_micros)),
            );
        }
    }
    if args.bars && !missed.is_empty() {
        bail!("bars missed: {}", missed.join("; "));
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
