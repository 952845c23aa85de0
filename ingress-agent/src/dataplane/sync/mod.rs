//! Flow sync: edges tell each other the flows that need their record to go on. When an address moves, its established connections
//! find the record at the new holder.
//!
//! Only `nat` flows are told: their endpoint answers to an address that moves with the service. Only flows that are established and
//! a second old: others are reopened by their clients, or chosen alike by every node's table and hash of ports. Whoever sees a
//! flow's packets tells the others; a record that came from a peer is not told on until a packet of it came here. Nothing is
//! acknowledged: entries are idempotent, and each is repeated every 20 s.
//!
//! By the same way edges tell each other what they let through under limits that they share. That is told once: what is lost on the way is
//! let through once more.
//!
//! Read in the order `datagram` (the wire) → `replay`, `peer`, `pace` (pure) → `directory`, `table`, `ledger` (what is there, and who
//! knows it) → `walk` (what is told) → `limits` (the other thing that is) → `node` (the thread).

mod datagram;

mod replay;

mod peer;

mod pace;

mod ticks;

pub(in crate::dataplane) mod directory;

mod table;

mod ledger;

mod walk;

mod limits;

mod post;

mod node;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;

use self::directory::Directory;
use self::node::Node;
use self::peer::Peer;
use self::post::Post;
pub(super) use self::post::is_own;
use self::table::Table;
use super::clock::Clock;
use super::maps::Maps;
use super::pins::Pins;
use crate::model::sync::{SharedLimits, SyncReading};

/// With whom flows are shared, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOptions {
    /// The other edges. This node's own addresses may be among them.
    pub peers: Vec<IpAddr>,
    /// UDP, the same on every edge.
    pub port: u16,
    /// A file with the key that all edges share: at least 16 bytes after white space at its ends is taken off.
    pub key_file: PathBuf,
    /// Flows told a second at most, counted for each peer.
    pub rate: u32,
}

/// RFC 2104 §3: a key shorter than the hash's output makes HMAC weaker; half of it is what nobody guesses.
const KEY_LEAST: usize = 16;
/// More than this is another file.
const KEY_MOST: usize = 4096;

/// What the thread and others share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    settled: AtomicBool,
    reading: Mutex<SyncReading>,
    /// From when the proxy is there.
    limits: OnceLock<SharedLimits>,
}

/// The running flow sync. Dropping it ends its thread; the records stay.
#[derive(Debug)]
pub(super) struct FlowSync {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What of the data plane it works on.
pub(super) struct Host<'a> {
    pub pins: &'a Pins,
    pub maps: &'a Maps,
    pub directory: Directory,
    pub hz: u32,
}

impl FlowSync {
    /// Starts the thread, in the network namespace of the caller. It asks and tells nothing before the first snapshot is in the maps.
    pub(super) fn start(options: &SyncOptions, key: hmac::Key, host: Host<'_>) -> Result<Self> {
        let Host { pins, maps, directory, hz } = host;
        let (own, others): (Vec<_>, Vec<_>) = options.peers.iter().copied().partition(|address| is_own(*address));
        for address in own {
            tracing::info!(%address, "this --sync-peer is this node itself");
        }
        let peers = others.into_iter().map(|address| Peer::new(address, options.port)).collect();
        let shared = Arc::<Shared>::default();
        let clock = Clock::new(maps.config.load(0).tick_shift)?;
        let post = Post::open(options.port, key)?;
        let table = Table::open(pins, maps)?;
        let node = Node::new(table, directory, (clock, hz), peers, post, options.rate, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("flow-sync".into()).spawn(move || node.run());
        Ok(Self { shared, thread: Some(thread.context("start the thread of the flow sync")?) })
    }

    pub(super) fn reading(&self) -> SyncReading {
        self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on what these say is told, and what comes for them is said to them. The first ones stay.
    pub(super) fn share_limits(&self, limits: SharedLimits) {
        let _ = self.shared.limits.set(limits);
    }

    /// A cheap look from any thread: see [`SyncReading::settled`].
    pub(super) fn settled(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.settled.load(Ordering::Acquire)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for FlowSync {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// The shared key of a file.
pub(super) fn read_key(path: &Path) -> Result<hmac::Key> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("read --sync-key-file {shown}"))?;
    let key = bytes.trim_ascii();
    ensure!(
        (KEY_LEAST..=KEY_MOST).contains(&key.len()),
        "--sync-key-file {shown} holds {} bytes; {KEY_LEAST} to {KEY_MOST} are wanted (`openssl rand -hex 32` makes good ones)",
        key.len()
    );
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key))
}
