//! How long the proxy needs until one changed endpoint, and one changed route, is what every worker serves, at the size of
//! a large cluster: 1,000 services of 100 endpoints, 10,000 routes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_agent::model::route::{HostTable, Listener, Tls};
use ingress_agent::model::snapshot::{Pool, Snapshot};
use ingress_agent::proxy::{Proxy, ProxyOptions};
use ingress_tests::http::site::{endpoint, host, pool, prefix, route};

use super::peers::WORKERS;

const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 100;
const HOSTS: usize = 1_000;
const ROUTES: usize = 10;
const CHANGES: usize = 300;

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = resident();
    let mut snapshot = large();
    let proxy = Proxy::start(ProxyOptions { workers: WORKERS, ..ProxyOptions::default() })?;
    let begun = Instant::now();
    let problems = runtime.block_on(proxy.apply(Arc::new(snapshot.clone())))?;
    anyhow::ensure!(problems.is_empty(), "{problems:?}");
    println!("first snapshot ({SERVICES} × {ENDPOINTS} endpoints, {} routes): {:.1?}", HOSTS * ROUTES, begun.elapsed());
    println!("resident memory of snapshot and proxy: {} MB", (resident() - before) / 1024);
    let mut endpoint_times = Vec::with_capacity(CHANGES);
    let mut route_times = Vec::with_capacity(CHANGES);
    for turn in 0..CHANGES {
        let name = format!("s{}", turn * 7 % SERVICES);
        let mut changed: Pool = pool(&name, &[]);
        changed.backends = (0..ENDPOINTS).map(|e| endpoint(address(turn * 7 % SERVICES, e + turn % 5))).collect();
        snapshot.pools.insert(changed.name.clone(), Arc::new(changed));
        endpoint_times.push(timed(&runtime, &proxy, &mut snapshot)?);
        let mut table = (*snapshot.listeners[0].hosts).clone();
        table
            .exact
            .insert(format!("h{}.example", turn % HOSTS), host(vec![route(prefix(&format!("/turn{turn}")), &name)]));
        let table = Arc::new(table);
        let listeners =
            snapshot.listeners.iter().map(|l| Arc::new(Listener { hosts: Arc::clone(&table), ..(**l).clone() }));
        snapshot.listeners = listeners.collect();
        route_times.push(timed(&runtime, &proxy, &mut snapshot)?);
    }
    for (what, mut times) in [("one endpoint changed", endpoint_times), ("one route changed", route_times)] {
        times.sort();
        println!(
            "{what}: effective after {:.2?} (median), {:.2?} (p99)",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }
    runtime.block_on(proxy.drain(Duration::from_secs(1)));
    Ok(())
}

fn timed(runtime: &tokio::runtime::Runtime, proxy: &Proxy, snapshot: &mut Snapshot) -> anyhow::Result<Duration> {
    snapshot.generation += 1;
    let next = Arc::new(snapshot.clone());
    let begun = Instant::now();
    runtime.block_on(proxy.apply(next))?;
    Ok(begun.elapsed())
}

fn address(service: usize, endpoint: usize) -> SocketAddr {
    let number = (service * 256 + endpoint) as u32;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 8080)
}

fn large() -> Snapshot {
    let pools = (0..SERVICES).map(|s| {
        let ends: Vec<SocketAddr> = (0..ENDPOINTS).map(|e| address(s, e)).collect();
        Arc::new(pool(&format!("s{s}"), &ends))
    });
    let exact = (0..HOSTS).map(|h| {
        let routes =
            (0..ROUTES).map(|r| route(prefix(&format!("/path{r}")), &format!("s{}", (h * ROUTES + r) % SERVICES)));
        (format!("h{h}.example"), host(routes.collect()))
    });
    let hosts = Arc::new(HostTable { exact: exact.collect(), ..HostTable::default() });
    let vip = ingress_tests::http::address();
    let listener =
        |port, tls| Arc::new(Listener { vip, port, tls, hosts: Arc::clone(&hosts), settings: Arc::default() });
    Snapshot {
        generation: 1,
        listeners: vec![listener(8080, None), listener(8443, Some(Tls::default()))],
        pools: pools.map(|p| (p.name.clone(), p)).collect(),
        ..Snapshot::default()
    }
}

/// Kilobytes, from `proc_pid_status(5)`.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
