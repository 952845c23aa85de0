//! What the agent costs: memory, and CPU while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ingress_tests::cluster::ControlPlane;
use ingress_tests::cost::{kib, until_idle};
use ingress_tests::edge::Agent;
use ingress_tests::table::Table;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::NODES;

const HEARTBEATS: Duration = Duration::from_secs(20);
/// A hundred nodes that report every ten seconds.
const BEAT: Duration = Duration::from_millis(100);

/// CPU while nodes report and nothing else happens.
pub(crate) fn idle(cluster: &ControlPlane, agent: &Agent, table: &mut Table) -> Result<()> {
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

/// Quiet seconds before memory is looked at.
const QUIET: usize = 5;

/// What the kernel counts as resident (KiB), once the agent has nothing to do and has given back what it does not need.
pub(crate) fn memory(agent: &Agent) -> Result<u64> {
    let id = agent.id().context("the agent runs")?;
    until_idle(id, QUIET)?;
    kib(id, "status", "VmRSS")
}

/// User and system time of a process, in ticks (proc(5), `/proc/PID/stat`, fields 14 and 15).
fn cpu_ticks(id: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("read the agent's times")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after_name.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok());
    Ok(field(11).context("utime")? + field(12).context("stime")?)
}
