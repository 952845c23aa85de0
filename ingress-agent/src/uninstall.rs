//! Takes everything away that outlives the agent: the pinned programs and maps, the addresses, what was saved, and what stands in the
//! cluster. The only place where
//! forwarding is stopped on purpose.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::sources::kube::remove_saved;
use crate::status::{self, ClearOptions, Cleared};
use crate::{dataplane, vip};

/// Refuses, and changes nothing, while an agent uses the pins.
///
/// Saved facts go last: they hold private keys. With `wait` it returns only on SIGTERM or SIGINT: in a pod that must stay, or it would be started again.
///
/// What was written into the cluster comes after that: the node is clean even if the API server is away, which is then an error.
pub fn run(pin_path: &Path, state_dir: &Path, cluster: Option<&ClearOptions>, wait: bool) -> Result<()> {
    if pin_path.exists() {
        dataplane::uninstall(pin_path)?;
        println!("removed the programs and maps under {}", pin_path.display());
    } else {
        println!("nothing is pinned under {}", pin_path.display());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a tokio runtime")?;
    for address in runtime.block_on(vip::remove_leftovers()).context("remove the virtual addresses")? {
        println!("removed {address}");
    }
    if remove_saved(state_dir)? {
        println!("removed what was saved in {}", state_dir.display());
    }
    if let Some(options) = cluster {
        match runtime.block_on(status::clear(options)).context("take back what was written into the cluster")? {
            Some(Cleared { objects: 0, leases: 0 }) => println!("nothing of the agents is left in the cluster"),
            Some(Cleared { objects, leases }) => {
                println!("took back {objects} statuses, and removed {leases} Leases");
            }
            None => println!("another node serves: what stands in the cluster is left to it"),
        }
    }
    if wait {
        println!("done; waiting for SIGTERM");
        runtime.block_on(told_to_stop())?;
    }
    Ok(())
}

async fn told_to_stop() -> Result<()> {
    // Process 1 of a container dies of no signal that it does not catch.
    let mut term = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
