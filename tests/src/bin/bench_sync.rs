//! What the flow sync costs: two edges, established flows on one of them, and the CPU time of the threads of both, while the flows are
//! told for the first time and when nothing changes. The flows are made by the packet program, from packets that it is given.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ingress_tests::edges::{Edges, VIP, records};
use ingress_tests::packet::{ACK, SYN, tcp};
use ingress_tests::wait::within;
use ingress_tests::xdp_run::{pinned, test_run};
use xdp_ebpf::SCHEMA;

/// CPU time of the flow sync.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
    /// Places in the flow table of each edge.
    #[arg(long, default_value_t = 1_000_000)]
    max_flows: u32,
    /// Flows told a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u32,
    /// Seconds without a change that are measured.
    #[arg(long, default_value_t = 20)]
    quiet: u64,
}

fn main() -> Result<()> {
    let o = Options::parse();
    let edges = Edges::new("bsync")?;
    let size = |options: &mut ingress_agent::dataplane::DataplaneOptions| options.max_flows = o.max_flows;
    let (a, b) = (edges.open_a(size), edges.open_b(size));
    let program = pinned(&edges.pins[0].0.join(format!("v{SCHEMA}/programs/sluicegate_ingress")))?;
    let interface = edges.a.ip(&["-o", "link", "show", "eth0"])?;
    let interface: u32 = interface.split(':').next().and_then(|n| n.trim().parse().ok()).context("eth0's number")?;

    let idle = Cpu::now()?;
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(5));
    let idle = (idle.until_now()?, began.elapsed());
    println!("an empty table of {} places: {} of a core for both threads", o.max_flows, share(idle));

    // A few find all their source ports taken.
    let made = edges.a.inside(|| -> Result<u64> {
        (0..o.flows).try_fold(0, |made, n| Ok(made + u64::from(establish(&program, interface, n)?)))
    })?;
    println!("{made} flows are established, {} records", records(&edges.pins[0]));
    let (cpu, began) = (Cpu::now()?, Instant::now());
    let told = || {
        let (a, b) = (a.sync()?, b.sync()?);
        (a.told >= made && b.taken >= made).then_some(())
    };
    within(Duration::from_mins(5), "all flows are told", told);
    let first = (cpu.until_now()?, began.elapsed());
    println!(
        "all are told after {:.1} s: {:.0} ms of CPU on both edges together",
        first.1.as_secs_f64(),
        first.0 * 1e3
    );
    ensure!(records(&edges.pins[1]) as u64 >= made * 99 / 100, "the other edge has {}", records(&edges.pins[1]));

    let (before, cpu, began) = (a.sync().context("on")?.sent, Cpu::now()?, Instant::now());
    std::thread::sleep(Duration::from_secs(o.quiet));
    let quiet = (cpu.until_now()?, began.elapsed());
    let again = a.sync().context("on")?.sent - before;
    println!(
        "{} flows that do not change: {} of a core for both threads; {} entries a second are repeated, {} in all",
        o.flows,
        share(quiet),
        again / o.quiet.max(1),
        again
    );
    println!("rejected: {:?}", b.sync().context("on")?.rejected.iter().filter(|r| r.1 > 0).collect::<Vec<_>>());
    Ok(())
}

fn share((cpu, wall): (f64, Duration)) -> String {
    format!("{:.2} %", cpu / wall.as_secs_f64() * 100.0)
}

/// SYN, SYN and ACK from whatever endpoint it was sent to, ACK.
fn establish(program: &OwnedFd, interface: u32, n: u32) -> Result<bool> {
    let [_, high, middle, low] = n.to_be_bytes();
    let client: SocketAddr = (std::net::Ipv4Addr::new(172, 16 | high, middle, low), 40_000).into();
    let vip: SocketAddr = VIP.parse()?;
    let run = |bytes: &[u8]| {
        let context = [0, bytes.len() as u32, 0, interface, 0, 0];
        test_run(program.as_raw_fd(), bytes, &context.map(u32::to_ne_bytes).concat(), 1)
    };
    let sent = run(&tcp(client, vip, SYN).bytes())?.packet;
    let ip = |at: usize| -> std::net::Ipv4Addr { [sent[at], sent[at + 1], sent[at + 2], sent[at + 3]].into() };
    let port = |at: usize| u16::from_be_bytes([sent[at], sent[at + 1]]);
    let (source, endpoint) = (SocketAddr::from((ip(26), port(34))), SocketAddr::from((ip(30), port(36))));
    if endpoint.ip() == vip.ip() {
        return Ok(false);
    }
    run(&tcp(endpoint, source, SYN | ACK).bytes())?;
    run(&tcp(client, vip, ACK).bytes())?;
    Ok(true)
}

/// CPU time of all threads of the flow sync in this process, in seconds.
struct Cpu(f64);

impl Cpu {
    fn now() -> Result<Self> {
        let mut nanoseconds = 0u64;
        for task in fs::read_dir("/proc/self/task")?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == "flow-sync" {
                // proc(5): nanoseconds on the CPU first.
                let spent = fs::read_to_string(task.path().join("schedstat"))?;
                nanoseconds += spent.split(' ').next().and_then(|n| n.parse::<u64>().ok()).context("schedstat")?;
            }
        }
        ensure!(nanoseconds > 0, "no thread of the flow sync is running");
        Ok(Self(nanoseconds as f64 / 1e9))
    }

    fn until_now(&self) -> Result<f64> {
        Ok(Self::now()?.0 - self.0)
    }
}
