//! Our proxy as a peer: one listener in clear and one with TLS, one route, one backend.

use std::net::SocketAddr;
use std::sync::Arc;

use ingress_agent::model::route::{HostTable, Listener, Tls};
use ingress_agent::model::snapshot::Snapshot;
use ingress_agent::proxy::{Proxy, ProxyOptions};
use ingress_tests::http::site::{host, pool, prefix, route};

use super::peers::WORKERS;

pub(crate) fn run(http: SocketAddr, https: SocketAddr, backend: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hosts = Arc::new(HostTable { any: Some(host(vec![route(prefix(""), "web")])), ..HostTable::default() });
    let pool = Arc::new(pool("web", &[backend]));
    let listener = |at: SocketAddr, tls| {
        let (hosts, settings) = (Arc::clone(&hosts), Arc::default());
        Arc::new(Listener { vip: at.ip(), port: at.port(), tls, hosts, settings })
    };
    let snapshot = Snapshot {
        generation: 1,
        listeners: vec![listener(http, None), listener(https, Some(Tls::default()))],
        pools: [(pool.name.clone(), pool)].into(),
        ..Snapshot::default()
    };
    runtime.block_on(async {
        let proxy = Proxy::start(ProxyOptions { workers: WORKERS, ..ProxyOptions::default() })?;
        let problems = proxy.apply(Arc::new(snapshot)).await?;
        anyhow::ensure!(problems.is_empty(), "{problems:?}");
        std::future::pending().await
    })
}
