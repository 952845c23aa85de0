//! Takes everything away that outlives the agent: the pinned programs and maps, and the addresses. The only place where
//! forwarding is stopped on purpose.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{dataplane, vip};

/// Refuses, and changes nothing, while an agent uses the pins.
pub fn run(pin_path: &Path) -> Result<()> {
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
    Ok(())
}
