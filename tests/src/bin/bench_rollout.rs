//! All pods of a Service are replaced under load, again and again: how many requests fail. At L4, where a client's connection is
//! a pod's, and at L7, where it is the proxy's.
//!
//! What a pod must do for that, here and behind any load balancer: it serves on for some seconds after it was told to end (`preStop`),
//! since the edges hear of it at the same time as the pod; then it takes nothing new, and tells whoever asks on an open
//! connection to ask elsewhere (`Connection: close`). A pod that closes a connection while a request is on its way loses that request.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ingress_tests::cluster::{ControlPlane, Kubelet, Node};
use ingress_tests::deploy;
use ingress_tests::edge::Agent;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::load::web::{self, Site};
use ingress_tests::load::{self, Outcome, Stop};
use ingress_tests::place::Place;
use ingress_tests::table::{self, Table};
use tokio::sync::watch;

const APP: &str = include_str!("../../demo/rollout.yaml");
const L4: &str = "192.0.2.101";
const L7: &str = "192.0.2.100";
const PATIENCE: Duration = Duration::from_mins(2);

/// Rollouts under load.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Requests a second, on all of them together.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Rollouts at each layer.
    #[arg(long, default_value_t = 3)]
    rollouts: u32,
}

fn main() -> ExitCode {
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    load::allow_many_files();
    let lan = Lan::new("brollout")?;
    let plug = |name: &str, n: u8| lan.host(name, &[&format!("192.0.2.{n}/24"), &format!("2001:db8:1::{n}/64")]);
    let (edge, workers, client, control) =
        (plug("edge", 1)?, [plug("w1", 11)?, plug("w2", 12)?], plug("client", 21)?, plug("api", 9)?);
    let node = |name: &str, host: &Host, n: u8, index: u8| -> Result<Node> {
        host.forward()?;
        Ok(Node::new(name, host, &[&format!("192.0.2.{n}"), &format!("2001:db8:1::{n}")], index))
    };
    let nodes =
        vec![node("edge", &edge, 1, 1)?, node("worker-1", &workers[0], 11, 2)?, node("worker-2", &workers[1], 12, 3)?];
    for node in &nodes[1..] {
        node.route_pods_from(&edge)?;
    }
    let cluster = ControlPlane::start("brollout", &control.ns, [192, 0, 2, 9].into())?;
    let _kubelet = Kubelet::start(&cluster, nodes)?;
    cluster.kubectl(&["apply", "-k", &deploy::path("kustomize/base").to_string_lossy()], "")?;
    cluster.apply(APP)?;
    let kubeconfig = cluster.service_account_kubeconfig("sluicegate-system", "sluicegate")?;
    let place = Place::new("brollout")?;
    let options = ["--node", "edge", "--hold-vips", "all"];
    let mut agent = Agent::of_cluster(&edge, &place.directory, &place.pins, &kubeconfig, &options);
    agent.start_again()?;
    cluster.kubectl(&["rollout", "status", "deployment/shop", "--timeout=120s"], "")?;

    let mut table = Table::default();
    let at = |vip: &str| -> Result<SocketAddr> { Ok(SocketAddr::new(vip.parse().context("an address")?, 80)) };
    for (layer, site) in
        [("L4", Site::plain(at(L4)?, "shop.example", "/")), ("L7", Site::plain(at(L7)?, "shop.example", "/"))]
    {
        answers(&client, &site)?;
        under_load(layer, &site, &client, &cluster, arguments, &mut table)?;
    }
    table.close()
}

/// Waits until somebody answers.
fn answers(client: &Host, site: &Site) -> Result<()> {
    let began = Instant::now();
    loop {
        let asked = client.inside(|| runtime()?.block_on(async { web::Connection::open(site).await?.get().await }));
        match asked {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error.context("the application does not answer")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn under_load(
    layer: &str,
    site: &Site,
    client: &Host,
    cluster: &ControlPlane,
    arguments: &Arguments,
    table: &mut Table,
) -> Result<()> {
    let load = Load::start(client, site, arguments);
    // Until all connections are open and each has asked some times.
    std::thread::sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for _ in 0..arguments.rollouts {
        let began = Instant::now();
        let before = pods(cluster)?;
        cluster.kubectl(&["rollout", "restart", "deployment/shop"], "")?;
        cluster.kubectl(&["rollout", "status", "deployment/shop", "--timeout=120s"], "")?;
        while pods(cluster)?.iter().any(|pod| before.contains(pod)) {
            if began.elapsed() > PATIENCE {
                bail!("pods of before are still there after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        times.push(format!("{:.1} s", began.elapsed().as_secs_f64()));
    }
    let (outcome, time) = load.finish()?;
    println!("   {layer}: all pods replaced, and the old ones gone, in {}", times.join(", "));
    for (_, why) in outcome.failures.iter().take(5) {
        println!("     {why}");
    }
    let rate = outcome.ok as f64 / time.as_secs_f64();
    let (connections, wanted) = (arguments.connections, f64::from(arguments.rate));
    let text = format!("{rate:.0}/s");
    table.row(
        &format!("{layer}: requests on {connections} connections"),
        text,
        format!("at least {wanted:.0}/s"),
        rate >= wanted,
    );
    let failed = outcome.failures.len();
    let all = outcome.ok + failed as u64;
    let what = format!("{layer}: failed in {} rollouts of all pods", arguments.rollouts);
    table.row(&what, format!("{failed} of {all}"), "0", failed == 0);
    Ok(())
}

fn pods(cluster: &ControlPlane) -> Result<Vec<String>> {
    let path = "jsonpath={.items[*].metadata.name}";
    let names = cluster.kubectl(&["get", "pods", "-l", "app=shop", "-o", path], "")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// A thread of its own in the client's namespace.
struct Load {
    stop: watch::Sender<bool>,
    began: Instant,
    thread: std::thread::JoinHandle<Result<Outcome>>,
}

impl Load {
    fn start(client: &Host, site: &Site, arguments: &Arguments) -> Self {
        let (stop, stopped) = Stop::by_hand();
        // A little faster than the rate that is wanted, which the first moments fall short of.
        let (connections, rate) = (arguments.connections, 1.02 * f64::from(arguments.rate));
        let (ns, site) = (client.ns.clone(), site.clone());
        let thread = std::thread::spawn(move || {
            ns.enter_thread()?;
            Ok(runtime()?.block_on(web::steady(&site, connections, rate, stopped)))
        });
        Self { stop, began: Instant::now(), thread }
    }

    fn finish(self) -> Result<(Outcome, Duration)> {
        let time = self.began.elapsed();
        self.stop.send_replace(true);
        match self.thread.join() {
            Ok(outcome) => Ok((outcome?, time)),
            Err(_) => bail!("the load panicked"),
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")
}
