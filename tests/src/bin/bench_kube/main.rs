//! The agent on a large cluster behind a real API server: how soon it has read it, what it weighs, how soon a changed
//! EndpointSlice carries traffic, and what it costs while nothing happens but node heartbeats.

mod cluster;

mod probe;

mod cost;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use ingress_tests::cluster::ControlPlane;
use ingress_tests::cost::{kib, mb};
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::Lan;
use ingress_tests::load;
use ingress_tests::place::Place;
use ingress_tests::table::{self, Table, ms};

use cluster::ENDPOINTS;
use cost::memory;

/// A large cluster: first sync, memory, changes, idle cost.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    ingresses: usize,
    /// Of 100 endpoints each.
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How many changes of an EndpointSlice are timed, each in XDP and in the proxy.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// How many changes of other slices come before memory has the size that it should keep. By default each Service's
    /// slice changes a dozen times: what the first sync laid side by side is replaced piece by piece, as in any cluster that lives.
    #[arg(long)]
    warm_up: Option<usize>,
    /// How many come then, before memory is looked at again.
    #[arg(long, default_value_t = 10_000)]
    churn: usize,
}

fn main() -> ExitCode {
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    load::allow_many_files();
    let lan = Lan::new("bkube")?;
    let host = |name: &str, n: u8| lan.host(name, &[&format!("10.1.0.{n}/24")]);
    let (edge, client, control) = (host("edge", 2)?, host("client", 4)?, host("control", 9)?);
    let backends = [host("b1", 11)?, host("b2", 12)?];
    let mut running = Vec::new();
    for (host, name) in backends.iter().zip(["one", "two"]) {
        host.receive_xdp()?;
        running.push(host.ns.spawn(Command::new(sibling("demo_backend")?).arg(name).stdout(Stdio::null()))?);
    }
    client.receive_xdp()?;
    let cluster = ControlPlane::start("bkube", &control.ns, [10, 1, 0, 9].into())?;
    let began = Instant::now();
    cluster.with_client(async |api| cluster::fill(&api, arguments).await)?;
    println!(
        "   {} Ingresses, {} Services of {ENDPOINTS} endpoints each; written in {} s",
        arguments.ingresses,
        arguments.services,
        began.elapsed().as_secs()
    );

    let mut table = Table::default();
    let place = Place::new("bkube")?;
    let options = ["--max-backends", "101000", "--hold-vips", "10.1.0.101,10.1.0.100"];
    let mut agent = Agent::of_cluster(&edge, &place.directory, &place.pins, cluster.admin_kubeconfig(), &options);
    let ready = agent.start_again()?;
    table.row("first sync, from exec to ready", ms(ready), "at most 5 s", ready <= Duration::from_secs(5));
    let first = memory(&agent)?;
    table.row("RSS after it", mb(first), "at most 250 MB", first <= 250 << 10);
    probe::in_xdp(&cluster, &client, arguments.changes, &mut table)?;
    probe::in_proxy(&cluster, &client, arguments.changes, &mut table)?;
    cost::idle(&cluster, &agent, &mut table)?;
    lasting_memory(&cluster, &agent, arguments, &mut table)?;
    agent.stop()?;
    let ready = agent.start_again()?;
    table.row("restart, from exec to ready", ms(ready), "at most 5 s", ready <= Duration::from_secs(5));
    println!();
    table.print();
    Ok(())
}

/// Memory is flat if ten thousand changes more do not make it larger by more than a twentieth, once every slice has changed a dozen
/// times: so long the heap goes on to spread, by a tenth in all, as objects that are replaced lie between those that stay. From there on
/// 30,000 changes were seen to add nothing.
fn lasting_memory(cluster: &ControlPlane, agent: &Agent, arguments: &Arguments, table: &mut Table) -> Result<()> {
    let warm_up = arguments.warm_up.unwrap_or(12 * arguments.services);
    let all = warm_up + arguments.churn;
    cluster.with_client(async |api| cluster::churn(&api, arguments.services, 0..warm_up).await)?;
    let warm = memory(agent)?;
    table.row(&format!("RSS after {warm_up} changes"), mb(warm), "at most 250 MB", warm <= 250 << 10);
    cluster.with_client(async |api| cluster::churn(&api, arguments.services, warm_up..all).await)?;
    let last = memory(agent)?;
    let text = format!("{}, peak {}", mb(last), mb(kib(agent.id().context("the agent runs")?, "status", "VmHWM")?));
    let wanted = format!("flat: at most 5 % above {}", mb(warm));
    table.row(&format!("RSS after {} changes more", arguments.churn), text, wanted, last <= warm + warm / 20);
    Ok(())
}
