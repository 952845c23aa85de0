//! The proxy by itself, as the agent runs it: facts by its parser, the snapshot by its plan, from a directory of manifests. XDP has no
//! part in what a request costs the proxy, so both it and nginx are asked over one network namespace's loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use ingress_agent::model::rejection::Severity;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::proxy::{Proxy, ProxyOptions};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;

use crate::peers::WORKERS;

pub(crate) fn run(manifests: &Path, http_port: u16) -> Result<()> {
    let mut store = Store::new(SourceOptions::default());
    for entry in std::fs::read_dir(manifests).context("read the manifests' directory")? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        store.put(&path.to_string_lossy(), Ok(&text));
    }
    let facts = store.publish(SystemTime::now(), &[]).context("no facts came of the manifests")?;
    let options = PlanOptions { node: "edge".to_owned(), http_port, https_port: 0, ..PlanOptions::default() };
    let planned = plan(&facts, &options, None);
    let fault = planned.snapshot.rejections.iter().find(|r| r.severity == Severity::Rejected);
    ensure!(fault.is_none(), "the bench's own manifests are refused: {fault:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let proxy = Proxy::start(ProxyOptions { workers: WORKERS, ..ProxyOptions::default() })?;
        let problems = proxy.apply(Arc::clone(&planned.snapshot)).await?;
        ensure!(problems.is_empty(), "{problems:?}");
        std::future::pending().await
    })
}
