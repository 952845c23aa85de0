//! Holds virtual addresses: adds them to the interface, announces them, takes them back. A thread of its own, so that
//! announcements (and later VRRP adverts) are never late because something else is busy.
//!
//! The input is a set of addresses. Today the plan's set comes straight in; with VRRP an election stands between, on this
//! same thread, and the rest stays. This room never decides who should hold an address, and never asks Kubernetes.

mod vrrp;

mod schedule;

mod frame;

mod holder;

mod netlink;

mod wire;

mod arp_settings;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::{mpsc, oneshot, watch};

use crate::model::holding::Holding;
use holder::{Command, Holder};

#[derive(Clone, Debug)]
pub struct VipOptions {
    /// Where the addresses go. It may be missing or down; then they wait.
    pub interface: String,
    /// Where kernel settings are written: `/proc/sys`, or where a container has the host's.
    pub proc_sys: PathBuf,
}

/// The running holder. Dropping it without [`Vips::release`] leaves the addresses in place.
#[derive(Debug)]
pub struct Vips {
    commands: mpsc::UnboundedSender<Command>,
    report: watch::Receiver<Arc<Holding>>,
    thread: Option<JoinHandle<()>>,
}

/// Longest wait for the kernel to take the addresses back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

impl Vips {
    /// Starts the thread, in the network namespace of the caller. Nothing is added or removed before [`Vips::apply`].
    pub fn start(options: VipOptions) -> Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, report) =
            watch::channel(Arc::new(Holding { interface: options.interface.clone(), ..Holding::default() }));
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("vip".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(e) => return drop(ready.send(Err(anyhow!(e).context("start the runtime of the VIP thread")))),
                };
                runtime.block_on(async {
                    match Holder::open(options, sender) {
                        Ok(holder) => {
                            // `start` waits for exactly this.
                            let _ = ready.send(Ok(()));
                            holder.run(receiver).await;
                        }
                        Err(e) => drop(ready.send(Err(e))),
                    }
                });
            })
            .context("start the VIP thread")?;
        started.recv().context("the VIP thread ended at once")??;
        Ok(Self { commands, report, thread: Some(thread) })
    }

    /// From now on these addresses, and no others, are held. Returns at once; [`Vips::holding`] tells how it goes.
    pub fn apply(&self, held: BTreeSet<IpAddr>) {
        // The thread ends only by `release`, which consumes `self`, or by a panic, which `is_alive` shows.
        let _ = self.commands.send(Command::Hold(held));
    }

    pub fn holding(&self) -> Arc<Holding> {
        Arc::clone(&self.report.borrow())
    }

    /// Changes whenever [`Vips::holding`] does.
    pub fn watch(&self) -> watch::Receiver<Arc<Holding>> {
        self.report.clone()
    }

    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Takes the addresses off the interface and ends the thread.
    pub async fn release(mut self) -> Result<()> {
        let (done, result) = oneshot::channel();
        self.commands.send(Command::Release(done)).context("the VIP thread is gone")?;
        tokio::time::timeout(RELEASE_TIMEOUT, result)
            .await
            .context("the kernel did not take the addresses back in time")?
            .context("the VIP thread is gone")??;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        Ok(())
    }
}

/// Removes every address that any agent ever added in this network namespace; for a deliberate uninstall.
pub async fn remove_leftovers() -> Result<Vec<IpAddr>> {
    let netlink = netlink::Netlink::open()?;
    let mut removed = Vec::new();
    for found in netlink.addresses().await?.into_iter().filter(|f| f.ours) {
        netlink.remove(found.index, found.address).await?;
        removed.push(found.address);
    }
    Ok(removed)
}
