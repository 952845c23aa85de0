//! How soon a change is live at 1,000 services of 100 endpoints, what the agent weighs at that size, and whether anything is
//! lost when it is killed, restarted and upgraded under 1,000 connections. Every figure is what clients see: none is the
//! agent's own word but its memory, which the kernel tells.

mod cluster;
mod probe;

use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use ingress_tests::cost::{kib, mb, until_idle};
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::load::web::Site;
use ingress_tests::load::{self, Outcome, Stop};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::realtime;
use ingress_tests::table::{self, Table, ms, quantile};

use crate::cluster::Cluster;

/// Connections that are held while the agent comes and goes.
const HELD: usize = 1_000;
/// Each of them says something this often.
const SPEAK_EVERY: Duration = Duration::from_millis(300);

/// Beside the changes, at L4 and at L7 each: requests a second on so many connections, evenly, since a burst of them would be what a change
/// then waits for.
const CONNECTIONS: usize = 20;
const REQUESTS: f64 = 400.0;

/// Milliseconds from a manifest's rename to its effect, memory, and a killed agent.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How many changes of each kind, each of another service: as many as there is room for, so that the 99th percentile is not the
    /// word of two.
    #[arg(long, default_value_t = 330)]
    changes: usize,
}

fn main() -> ExitCode {
    table::ended("benchmark", run())
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    load::allow_many_files();
    let lan = Lan::new("live")?;
    let edge = lan.host("edge", &["192.0.2.1/24", "10.50.0.254/24"])?;
    edge.forward()?;
    let client = lan.host("client", &["192.0.2.21/24"])?;
    let bystander = lan.host("other", &["192.0.2.22/24"])?;
    let (many, one) = cluster::backends(&lan)?;
    let _backends = [backend(&many, "many")?, backend(&one, "one")?];
    let place = Place::new("live")?;
    let cluster = Cluster { services: arguments.services };
    cluster.write(&place)?;

    let mut table = Table::default();
    println!("{} services of {} endpoints each", arguments.services, cluster::ENDPOINTS);
    // The echo service's endpoints come on top of the 100,000 that the default allows.
    let options = ["--hold-vips", "all", "--max-backends", "101000"];
    let mut agent = Agent::start(&edge, &place.directory, &place.pins, &options)?;
    memory(&agent, &mut table)?;
    changes(&agent, &cluster, &client, &bystander, arguments.changes, &mut table)?;
    comings_and_goings(&mut agent, &bystander, &mut table)?;
    println!();
    table.print();
    Ok(())
}

/// Another machine, which has its own cores.
fn backend(host: &Host, name: &str) -> Result<Running> {
    let running = host.ns.spawn(Command::new(sibling("demo_backend")?).arg(name).stdin(Stdio::null()))?;
    realtime::before_others(running.0.id()).with_context(|| format!("put backend {name} first"))?;
    Ok(running)
}

/// What the kernel counts as resident, once the agent has nothing to do.
fn memory(agent: &Agent, table: &mut Table) -> Result<()> {
    let id = agent.id().context("the agent runs")?;
    until_idle(id, 1)?;
    let kib = |key: &str| kib(id, "status", key);
    let (all, peak) = (kib("VmRSS")?, kib("VmHWM")?);
    let parts = format!(
        "{} (anonymous {}, files and maps {}; peak {})",
        mb(all),
        mb(kib("RssAnon")?),
        mb(kib("RssFile")? + kib("RssShmem")?),
        mb(peak)
    );
    table.row("RSS of the idle agent", parts, "at most 120 MB", all <= 120 * 1024);
    Ok(())
}

/// Changes one service after another, and watches that nothing else notices.
fn changes(
    agent: &Agent,
    cluster: &Cluster,
    client: &Host,
    other: &Host,
    count: usize,
    table: &mut Table,
) -> Result<()> {
    let quiet = cluster.services - 1;
    let l7 = Site::plain(cluster::web(), cluster::HOST, &cluster::path(quiet, false));
    let l4 = Site::plain(cluster::frontend(quiet), "any.example", "/");
    let (stop_loads, stop) = Stop::by_hand();
    let (mut xdp, mut proxy, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let (proxied, forwarded) = thread::scope(|scope| {
        let loads = scope.spawn(|| {
            other.ns.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let of = |site, stop| load::web::steady(site, CONNECTIONS, REQUESTS, stop);
                let both = async { tokio::join!(of(&l7, stop.clone()), of(&l4, stop)) };
                anyhow::Ok(runtime.block_on(both))
            })
        });
        let measured = client.ns.inside(|| {
            realtime::before_others(0).context("put the probe first")?;
            // In turns, each kind on services of its own; the last one is the load's.
            for first in (0..quiet.saturating_sub(2)).step_by(3).take(count) {
                let of = |service| move || format!("change of service {service}");
                xdp.push(probe::endpoint_in_xdp(agent, first).with_context(of(first))?);
                proxy.push(probe::endpoint_in_proxy(agent, first + 1).with_context(of(first + 1))?);
                paths.push(probe::path_in_proxy(agent, first + 2).with_context(of(first + 2))?);
            }
            anyhow::Ok(())
        });
        let _ = stop_loads.send(true);
        let loads = loads.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        measured.and(loads)
    })?;
    let within = Some(Duration::from_millis(10));
    for (what, times, bar) in [
        ("endpoint changed: live in XDP", &mut xdp, within),
        ("endpoint changed: live in the proxy", &mut proxy, within),
        ("Ingress changed: live in the proxy", &mut paths, None),
    ] {
        let figures = [0.5, 0.99, 1.0].map(|share| quantile(times, share).unwrap_or_default());
        let text =
            format!("{} times, p50 {}, p99 {}, worst {}", times.len(), ms(figures[0]), ms(figures[1]), ms(figures[2]));
        let wanted = bar.map_or("reported".to_owned(), |bar| format!("p99 at most {}", ms(bar)));
        table.row(what, text, wanted, bar.is_none_or(|bar| figures[1] <= bar));
    }
    for (what, outcome) in [("through the proxy", &proxied), ("through XDP", &forwarded)] {
        let held = outcome.failures.is_empty() && outcome.ok > 0;
        let text = format!("{} of {}", outcome.failures.len(), outcome.ok);
        table.row(&format!("failed or closed meanwhile, {what}"), text, "0", held);
        show_failures(outcome);
    }
    Ok(())
}

fn show_failures(outcome: &Outcome) {
    for (_, why) in outcome.failures.iter().take(3) {
        println!("     {why}");
    }
}

/// Kills, restarts and upgrades the agent under held connections, each with a message every so often.
fn comings_and_goings(agent: &mut Agent, client: &Host, table: &mut Table) -> Result<()> {
    println!("   {HELD} TCP connections through XDP; the agent is killed twice and stopped once, and started again");
    let (stop_hold, stop) = Stop::by_hand();
    let outcome = thread::scope(|scope| {
        let (opened, all_open) = std::sync::mpsc::channel();
        let hold = scope.spawn(move || {
            client.ns.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(load::hold(cluster::echo(), HELD, None, SPEAK_EVERY, stop, || {
                    let _ = opened.send(());
                }))
            })
        });
        let done = (|| {
            all_open.recv_timeout(Duration::from_mins(1)).context("the connections were not open within a minute")?;
            for graceful in [false, true, false] {
                if graceful {
                    agent.stop()?;
                } else {
                    agent.kill()?;
                }
                // Every connection speaks while no agent is there.
                thread::sleep(2 * SPEAK_EVERY);
                let ready = agent.start_again()?;
                println!("   {} and back, ready after {}", if graceful { "stopped" } else { "killed" }, ms(ready));
                thread::sleep(Duration::from_millis(500));
            }
            anyhow::Ok(())
        })();
        let _ = stop_hold.send(true);
        let outcome = hold.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(outcome)
    })?;
    let lost = outcome.failures.len();
    table.row("L4 connections lost", format!("{lost} of {HELD}"), "0", lost == 0 && outcome.ok == HELD as u64);
    show_failures(&outcome);
    Ok(())
}
