//! L4 through one edge: the agent in `nat` mode against nftables DNAT with masquerade, and against no edge at all, in the same
//! namespaces in turn. Rates and CPU time of the whole machine for each unit of work: client, edge and backend share its
//! cores, so only differences between the rows say something about the edge. A veth copies each packet for XDP, which a NIC
//! does not, so there is no bar here.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::table::{self, quantile};

const BACKEND: &str = "192.0.2.11";
const VIP: &str = "192.0.2.100";
const HTTP: u16 = 8080;
const SINK: u16 = 9002;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: bench, namespace: default, annotations: { sluicegate.io/vips: "192.0.2.100" } }
spec:
  type: LoadBalancer
  ports:
    - { name: http, port: 8080, protocol: TCP }
    - { name: sink, port: 9002, protocol: TCP }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: bench-v4, namespace: default, labels: { kubernetes.io/service-name: bench } }
addressType: IPv4
ports:
  - { name: http, port: 8080, protocol: TCP }
  - { name: sink, port: 9002, protocol: TCP }
endpoints: [{ addresses: [192.0.2.11], conditions: { ready: true } }]
"#;

/// TCP through one edge: nat mode against nftables.
#[derive(Parser)]
struct Arguments {
    /// How often each is measured; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// What stands between the client and the backend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    None,
    Sluicegate,
    Nftables,
}

impl Edge {
    const ALL: [Self; 3] = [Self::None, Self::Sluicegate, Self::Nftables];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no edge (direct)",
            Self::Sluicegate => "sluicegate, nat",
            Self::Nftables => "nftables DNAT",
        }
    }
}

/// What the client does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Close,
    KeepAlive,
    Bulk,
}

impl Work {
    const ALL: [Self; 3] = [Self::Close, Self::KeepAlive, Self::Bulk];

    const fn name(self) -> &'static str {
        match self {
            Self::Close => "connect, request, close",
            Self::KeepAlive => "keep-alive requests",
            Self::Bulk => "bulk, one connection up",
        }
    }

    /// Of the rate, and of what CPU time is counted for.
    const fn units(self) -> (&'static str, &'static str) {
        match self {
            Self::Bulk => ("MB/s", "µs CPU a MB"),
            Self::Close | Self::KeepAlive => ("requests/s", "µs CPU each"),
        }
    }
}

#[derive(Clone, Copy)]
struct Measure {
    rate: f64,
    cpu_us: f64,
}

fn main() -> ExitCode {
    table::ended("benchmark", run())
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    warn_if_busy()?;
    let lan = Lan::new("l4")?;
    let edge = lan.host("edge", &["192.0.2.1/24"])?;
    edge.forward()?;
    let client = lan.host("client", &["192.0.2.21/24"])?;
    let backend = lan.host("b", &[&format!("{BACKEND}/24")])?;
    let _backend = start_backend(&backend)?;
    let place = Place::new("l4")?;
    place.manifest("bench.yaml", MANIFEST)?;
    let mut measures: Vec<(Edge, Work, Measure)> = Vec::new();
    for round in 1..=arguments.rounds {
        for kind in Edge::ALL {
            println!("round {round} of {}: {}", arguments.rounds, kind.name());
            let standing = Standing::put(kind, &edge, &place)?;
            let target = if kind == Edge::None { BACKEND } else { VIP };
            for work in Work::ALL {
                let measure = measure(&client, target, work, Duration::from_secs(arguments.seconds))
                    .with_context(|| format!("{} through {}", work.name(), kind.name()))?;
                measures.push((kind, work, measure));
            }
            standing.remove()?;
        }
    }
    print(&measures);
    Ok(())
}

fn start_backend(host: &Host) -> Result<Running> {
    host.ns.spawn(Command::new(sibling("demo_backend")?).arg("b").stdin(Stdio::null()))
}

/// An edge at work.
enum Standing<'a> {
    Nothing,
    Agent(Box<Agent>),
    Rules(&'a Host),
}

impl<'a> Standing<'a> {
    fn put(kind: Edge, edge: &'a Host, place: &Place) -> Result<Self> {
        match kind {
            Edge::None => Ok(Self::Nothing),
            Edge::Sluicegate => {
                Ok(Self::Agent(Box::new(Agent::start(edge, &place.directory, &place.pins, &["--hold-vips", "all"])?)))
            }
            Edge::Nftables => {
                edge.ip(&["addr", "add", &format!("{VIP}/32"), "dev", "eth0"])?;
                let rules = format!(
                    "table ip bench {{\n\
                     chain pre {{ type nat hook prerouting priority dstnat; ip daddr {VIP} tcp dport {{ {HTTP}, {SINK} }} dnat to {BACKEND}; }}\n\
                     chain post {{ type nat hook postrouting priority srcnat; ip daddr {BACKEND} masquerade; }}\n}}"
                );
                edge.ns.run("nft", &[&rules])?;
                Ok(Self::Rules(edge))
            }
        }
    }

    fn remove(self) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Agent(mut agent) => agent.stop(),
            Self::Rules(edge) => {
                edge.ns.run("nft", &["delete table ip bench"])?;
                edge.ip(&["addr", "del", &format!("{VIP}/32"), "dev", "eth0"]).map(drop)
            }
        }
    }
}

/// Does the work for a time and reads what it cost.
fn measure(client: &Host, target: &str, work: Work, time: Duration) -> Result<Measure> {
    // Neighbours are resolved and the first flow is made before the clock runs.
    client.ns.run("curl", &["-sf", "--max-time", "5", "-o", "/dev/null", &format!("http://{target}:{HTTP}/")])?;
    let before = busy()?;
    let started = Instant::now();
    let units = match work {
        Work::Bulk => bulk(client, target, time)?,
        Work::Close => wrk(client, target, time, &["-H", "Connection: close"])?,
        Work::KeepAlive => wrk(client, target, time, &[])?,
    };
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measure { rate: units / seconds, cpu_us: (busy()? - before) * 1e6 / units })
}

/// Requests that succeeded.
fn wrk(client: &Host, target: &str, time: Duration, more: &[&str]) -> Result<f64> {
    let url = format!("http://{target}:{HTTP}/");
    let duration = format!("-d{}s", time.as_secs());
    let mut arguments = vec!["-t1", "-c16", &duration];
    arguments.extend(more);
    arguments.push(&url);
    let said = client.ns.run("wrk", &arguments)?;
    let errors = said.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    if let Some(errors) = errors {
        bail!("wrk saw errors: {}", errors.trim());
    }
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    requests.with_context(|| format!("wrk printed no number of requests: {said}"))
}

/// Megabytes that the backend took.
fn bulk(client: &Host, target: &str, time: Duration) -> Result<f64> {
    let to: SocketAddr = format!("{target}:{SINK}").parse().context("the sink's address")?;
    client.ns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).context("connect to the sink")?;
        let block = vec![b'x'; 1 << 18];
        let started = Instant::now();
        while started.elapsed() < time {
            stream.write_all(&block).context("send")?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let taken = std::io::read_to_string(&mut stream).context("read the sink's count")?;
        let bytes: u64 = taken.trim().parse().context("the sink's count")?;
        Ok(bytes as f64 / 1e6)
    })
}

/// CPU time is the whole machine's, so whatever else runs is counted too.
fn warn_if_busy() -> Result<()> {
    let (before, started) = (busy()?, Instant::now());
    std::thread::sleep(Duration::from_millis(500));
    let share = (busy()? - before) / started.elapsed().as_secs_f64();
    if share > 0.1 {
        println!("note: other programs use {share:.1} cores of this machine; the figures below contain that");
    }
    Ok(())
}

/// CPU seconds that this machine has been busy: user, nice, system, irq and softirq (proc(5), `/proc/stat`).
fn busy() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat begins with {first}")
    };
    // SAFETY: sysconf takes no pointer.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok((user + nice + system + irq + softirq) / hertz as f64)
}

fn print(measures: &[(Edge, Work, Measure)]) {
    for work in Work::ALL {
        let (rate_unit, cpu_unit) = work.units();
        println!("\n{}\n  {:18} {rate_unit:>12} {cpu_unit:>14}", work.name(), "");
        let of = |kind: Edge, value: fn(&Measure) -> f64| {
            let chosen = measures.iter().filter(|(k, w, _)| *k == kind && *w == work);
            let mut values: Vec<f64> = chosen.map(|(_, _, measure)| value(measure)).collect();
            quantile(&mut values, 0.5).unwrap_or(f64::NAN)
        };
        for kind in Edge::ALL {
            println!("  {:18} {:>12.0} {:>14.1}", kind.name(), of(kind, |m| m.rate), of(kind, |m| m.cpu_us));
        }
        let ratio = |value: fn(&Measure) -> f64| of(Edge::Sluicegate, value) / of(Edge::Nftables, value);
        println!("  {:18} {:>12.2} {:>14.2}", "sluicegate ÷ nft", ratio(|m| m.rate), ratio(|m| m.cpu_us));
    }
}
