//! One agent a pin path, one agent an interface. Both claims are held by descriptors alone, so that they vanish with the process
//! however it ends; nothing stale can be left behind. A child that was forked a moment ago shares the descriptors until it execs, so
//! giving up a claim in good order undoes it by word instead of by closing alone.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Held while this agent runs.
#[derive(Debug)]
pub(super) struct Claims {
    pins: File,
    interfaces: Vec<UnixListener>,
}

impl Drop for Claims {
    fn drop(&mut self) {
        // flock(2): the lock belongs to the open file, whoever shares it; to unlock releases it for all.
        let _ = self.pins.unlock();
    }
}

/// Takes the pin path (created if need be) and the interfaces of this network namespace.
pub(super) fn take(pin_path: &Path, interfaces: &[(String, u32)]) -> Result<Claims> {
    fs::create_dir_all(pin_path).with_context(|| format!("create {}", pin_path.display()))?;
    let mut claims = take_existing(pin_path)?;
    claims.interfaces = interfaces.iter().map(|(name, index)| interface(name, *index)).collect::<Result<_>>()?;
    Ok(claims)
}

/// Takes a pin path that is there already.
pub(super) fn take_existing(pin_path: &Path) -> Result<Claims> {
    // flock(2) on the directory itself: two paths to one bpffs directory are one claim.
    let pins = File::open(pin_path).with_context(|| format!("open {}", pin_path.display()))?;
    match pins.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "another agent uses the pin path {}: stop it, or give this one another --pin-path",
            pin_path.display()
        ),
        Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("lock {}", pin_path.display())),
    }
    Ok(Claims { pins, interfaces: Vec::new() })
}

/// Abstract sockets (unix(7)) belong to the network namespace, as the interface's index does.
fn interface(name: &str, index: u32) -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("sluicegate/interface/{index}"))?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            bail!("another agent is attached to interface {name}: stop it first; one agent serves an interface")
        }
        Err(e) => Err(e).with_context(|| format!("claim interface {name}")),
    }
}
