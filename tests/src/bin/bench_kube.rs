//! The agent on a large cluster behind a real API server: how soon it has read it, what it weighs, how soon a changed
//! EndpointSlice carries traffic, and what it costs while nothing happens but node heartbeats.

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt, stream};
use ingress_tests::cluster::ControlPlane;
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::load;
use ingress_tests::place::Place;
use ingress_tests::table::{Table, ms, quantile};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ENDPOINTS: usize = 100;
/// Requests to the API server at one time, while it is filled.
const AT_ONCE: usize = 32;
const HEARTBEATS: Duration = Duration::from_secs(20);
/// A hundred nodes that report every ten seconds.
const BEAT: Duration = Duration::from_millis(100);
const NODES: usize = 100;

/// A large cluster: first sync, memory, changes, idle cost.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    ingresses: usize,
    /// Of 100 endpoints each.
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How many changes of an EndpointSlice are timed.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// How many changes of other slices come before memory is looked at again.
    #[arg(long, default_value_t = 10_000)]
    churn: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
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
    cluster.with_client(async |api| fill(&api, arguments).await)?;
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
    timed_changes(&cluster, &client, arguments.changes, &mut table)?;
    idle(&cluster, &agent, &mut table)?;
    cluster.with_client(async |api| churn(&api, arguments).await)?;
    let last = memory(&agent)?;
    let text = format!("{}, peak {}", mb(last), mb(kib(&agent, "VmHWM")?));
    let flat = last <= first + first / 10;
    table.row(&format!("RSS after {} more changes", arguments.churn), text, "flat (within 10 %)", flat);
    agent.stop()?;
    let ready = agent.start_again()?;
    table.row("restart, from exec to ready", ms(ready), "at most 5 s", ready <= Duration::from_secs(5));
    println!();
    table.print();
    Ok(())
}

async fn fill(client: &Client, arguments: &Arguments) -> Result<()> {
    let namespace = json!({"metadata": {"name": "demo"}});
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let class = json!({"metadata": {"name": "sluicegate", "annotations": {"sluicegate.io/vips": "10.1.0.100"}},
        "spec": {"controller": "sluicegate.io/ingress-controller"}});
    Api::<IngressClass>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    create::<Service>(client, [service("echo", "10.1.0.101", 9000)]).await?;
    create::<EndpointSlice>(client, [slice("echo", 9000, ["10.1.0.11".to_owned()])]).await?;
    let named = |i: usize| format!("s-{i}");
    create::<Service>(client, (0..arguments.services).map(|i| service(&named(i), "10.1.0.102", port(i)))).await?;
    create::<EndpointSlice>(client, (0..arguments.services).map(|i| slice(&named(i), 8080, endpoints(i, 0)))).await?;
    let ingresses = (0..arguments.ingresses).map(|i| ingress(i, &named(i % arguments.services.max(1)), arguments));
    create::<Ingress>(client, ingresses).await?;
    let nodes = (0..NODES).map(|i| json!({"metadata": {"name": format!("node-{i}")}}));
    let api = Api::<Node>::all(client.clone());
    for node in nodes {
        api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    }
    Ok(())
}

fn port(service: usize) -> usize {
    10_000 + service
}

/// A hundred addresses; another `turn` gives the last one another number.
fn endpoints(service: usize, turn: usize) -> impl Iterator<Item = String> {
    let address = move |i: usize| format!("10.{}.{}.{}", 60 + service / 256, service % 256, 1 + i);
    (0..ENDPOINTS - 1).chain([ENDPOINTS + turn % 100]).map(address)
}

fn service(name: &str, vip: &str, port: usize) -> Value {
    json!({"metadata": {"name": name, "namespace": "demo", "annotations": {"sluicegate.io/vips": vip}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": port}]}})
}

fn slice(service: &str, port: u16, addresses: impl IntoIterator<Item = String>) -> Value {
    let endpoints: Vec<_> = addresses
        .into_iter()
        .map(|a| json!({"addresses": [a], "nodeName": "worker", "conditions": {"ready": true, "serving": true}}))
        .collect();
    json!({"metadata": {"name": format!("{service}-1"), "namespace": "demo",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": port, "protocol": "TCP"}]})
}

fn ingress(i: usize, service: &str, arguments: &Arguments) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": port(i % arguments.services.max(1))}}});
    json!({"metadata": {"name": format!("i-{i}"), "namespace": "demo"},
        "spec": {"ingressClassName": "sluicegate", "rules": [{"host": format!("h-{i}.example"),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
}

async fn create<K>(client: &Client, objects: impl IntoIterator<Item = Value>) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), "demo");
    let mut done = stream::iter(objects)
        .map(async |object| {
            let object = serde_json::from_value(object).context("make an object")?;
            api.create(&PostParams::default(), &object).await.context("create an object").map(drop)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// Changes slices that nobody looks at.
async fn churn(client: &Client, arguments: &Arguments) -> Result<()> {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), "demo");
    let mut done = stream::iter(0..arguments.churn)
        .map(async |turn| {
            let service = turn % arguments.services;
            let new = slice(&format!("s-{service}"), 8080, endpoints(service, 1 + turn / arguments.services));
            let patch = json!({"endpoints": new["endpoints"]});
            let name = format!("s-{service}-1");
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.context("change a slice").map(drop)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// From the API server's answer to a changed slice until a client reaches the new endpoint through XDP.
fn timed_changes(cluster: &ControlPlane, client: &Host, count: usize, table: &mut Table) -> Result<()> {
    let mut times = Vec::new();
    cluster.with_client(async |api| {
        let api = Api::<EndpointSlice>::namespaced(api, "demo");
        for turn in 0..count {
            let (address, name) = [("10.1.0.12", "two"), ("10.1.0.11", "one")][turn % 2];
            let patch = json!({"endpoints": slice("echo", 9000, [address.to_owned()])["endpoints"]});
            api.patch("echo-1", &PatchParams::default(), &Patch::Merge(patch)).await.context("change the slice")?;
            let changed = Instant::now();
            client.inside(|| -> Result<()> {
                while asked().as_deref() != Some(name) {
                    ensure!(changed.elapsed() < Duration::from_secs(10), "change {turn} has no effect in 10 s");
                }
                Ok(())
            })?;
            times.push(changed.elapsed());
        }
        Ok(())
    })?;
    let figures = [0.5, 0.99, 1.0].map(|share| quantile(&mut times, share).unwrap_or_default());
    let text = format!("p50 {}, p99 {}, worst {}", ms(figures[0]), ms(figures[1]), ms(figures[2]));
    table.row(
        &format!("{count} slice changes: live in XDP"),
        text,
        "p99 at most 30 ms",
        figures[1] <= Duration::from_millis(30),
    );
    Ok(())
}

fn asked() -> Option<String> {
    let address: SocketAddr = "10.1.0.101:9000".parse().ok()?;
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.split(' ').next().map(str::to_owned)
}

/// CPU while nodes report and nothing else happens.
fn idle(cluster: &ControlPlane, agent: &Agent, table: &mut Table) -> Result<()> {
    let id = agent.id().context("the agent runs")?;
    memory(agent)?;
    let before = cpu_ticks(id)?;
    let began = Instant::now();
    cluster.with_client(async |api| {
        let api = Api::<Node>::all(api);
        for beat in 0.. {
            if began.elapsed() > HEARTBEATS {
                break;
            }
            let condition = json!([{"type": "Ready", "status": "True", "reason": format!("beat-{beat}")}]);
            let patch = json!({"status": {"conditions": condition}});
            let name = format!("node-{}", beat % NODES);
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await.context("a heartbeat")?;
            tokio::time::sleep(BEAT).await;
        }
        Ok(())
    })?;
    // A tick is 10 ms (USER_HZ).
    let share = (cpu_ticks(id)? - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    table.row("CPU of the idle agent, node heartbeats", format!("{:.2} %", share * 100.0), "below 1 %", share < 0.01);
    Ok(())
}

/// What the kernel counts as resident (KiB), once the agent has nothing to do.
fn memory(agent: &Agent) -> Result<u64> {
    let id = agent.id().context("the agent runs")?;
    let mut before = cpu_ticks(id)?;
    for _ in 0..60 {
        thread::sleep(Duration::from_secs(1));
        let now = cpu_ticks(id)?;
        if now <= before + 2 {
            break;
        }
        before = now;
    }
    kib(agent, "VmRSS")
}

fn kib(agent: &Agent, key: &str) -> Result<u64> {
    let id = agent.id().context("the agent runs")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("read the agent's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| format!("{key} of the agent"))
}

fn mb(kib: u64) -> String {
    format!("{:.0} MB", kib as f64 / 1024.0)
}

/// User and system time of a process, in ticks (proc(5), `/proc/PID/stat`, fields 14 and 15).
fn cpu_ticks(id: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("read the agent's times")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after_name.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok());
    Ok(field(11).context("utime")? + field(12).context("stime")?)
}
