//! One agent a pin path, one agent an interface. Both claims are held by descriptors alone, so that they vanish with the process
//! however it ends; nothing stale can be left behind.
//!
//! A claim may outlive its owner by a moment: a child that was forked just then shares the descriptors until it execs, and a killed
//! process gives them up only while the kernel takes it apart, when its supervisor may already have started the next. So a claim
//! that is taken is asked for again for [`PATIENCE`] before another agent is said to hold it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a claim may be taken before its holder counts as alive. Far above the life of a forked child, far below what a person
/// who starts a second agent would notice.
const PATIENCE: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Held while this agent runs.
#[derive(Debug)]
pub(super) struct Claims {
    _pins: File,
    _interfaces: Vec<UnixListener>,
}

/// Takes the pin path (created if need be) and the interfaces of this network namespace.
pub(super) fn take(pin_path: &Path, interfaces: &[(String, u32)]) -> Result<Claims> {
    fs::create_dir_all(pin_path).with_context(|| format!("create {}", pin_path.display()))?;
    let claims = take_existing(pin_path)?;
    let interfaces = interfaces.iter().map(|(name, index)| interface(name, *index)).collect::<Result<_>>()?;
    Ok(Claims { _interfaces: interfaces, ..claims })
}

/// Takes a pin path that is there already.
pub(super) fn take_existing(pin_path: &Path) -> Result<Claims> {
    // flock(2) on the directory itself: two paths to one bpffs directory are one claim.
    let pins = File::open(pin_path).with_context(|| format!("open {}", pin_path.display()))?;
    let path = pin_path.display();
    let taken = || match pins.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("lock {path}")),
    };
    if patiently(taken)?.is_none() {
        bail!("another agent uses the pin path {path}: stop it, or give this one another --pin-path");
    }
    Ok(Claims { _pins: pins, _interfaces: Vec::new() })
}

/// Abstract sockets (unix(7)) belong to the network namespace, as the interface's index does.
fn interface(name: &str, index: u32) -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("sluicegate/interface/{index}"))?;
    let bound = || match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(e) => Err(e).with_context(|| format!("claim interface {name}")),
    };
    patiently(bound)?.with_context(|| {
        format!("another agent is attached to interface {name}: stop it first; one agent serves an interface")
    })
}

/// What `take` returns, or `None` where a claim stays taken for [`PATIENCE`].
fn patiently<T>(mut take: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match take()? {
            None if Instant::now() < until => thread::sleep(ASK_AGAIN),
            ended => return Ok(ended),
        }
    }
}
