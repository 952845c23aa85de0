//! Takes everything away that outlives the agent: the pinned programs and maps, the addresses, and what was saved. The only place where
//! forwarding is stopped on purpose.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::sources::kube::remove_saved;
use crate::{dataplane, vip};

/// Refuses, and changes nothing, while an agent uses the pins.
///
/// Saved facts go last: they hold private keys. With `wait` it returns only on SIGTERM or SIGINT: in a pod that must stay, or it would be started again.
pub fn run(pin_path: &Path, state_dir: &Path, wait: bool) -> Result<()> {
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
