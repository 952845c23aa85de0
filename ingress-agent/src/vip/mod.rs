//! Holds virtual addresses: adds them to the interface, announces them, takes them back. A thread of its own, so that
//! announcements are never late because something else is busy.
//!
//! With `vrrp` an election stands between what the plan says and what is held, on a thread that not even this one delays; without,
//! the plan's set comes straight in. This room never decides who should stand for election, and never asks Kubernetes.

mod vrrp;

mod schedule;

mod claims;

mod frame;

mod lingering;

mod holder;

mod elector;

mod netlink;

mod wire;

mod arp_settings;

mod realtime;

mod voice;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{mpsc, oneshot, watch};

use crate::model::election::{ElectionReport, Fitness, Move, VipGroup};
use crate::model::holding::Holding;
use elector::{Elector, Order};
use holder::{Command, Holder, LinkFacts};
use voice::Voice;
use vrrp::auth::Auth;
use vrrp::election::Election;

pub use elector::Hooks;
pub use vrrp::election::VrrpOptions;
pub use vrrp::keys::{AuthOptions, KeyFile};
pub use vrrp::packet::{Checksum, Password, Version};

#[derive(Clone, Debug)]
pub struct VipOptions {
    /// Where the addresses go. It may be missing or down; then they wait.
    pub interface: String,
    /// Where kernel settings are written: `/proc/sys`, or where a container has the host's.
    pub proc_sys: PathBuf,
    /// How the nodes elect who holds what; `None`: this node holds all that it is told to.
    pub vrrp: Option<VrrpOptions>,
}

/// The running holder. Dropping it without [`Vips::release`] leaves the addresses in place.
#[derive(Debug)]
pub struct Vips {
    orders: Orders,
    report: watch::Receiver<Arc<Holding>>,
    elections: Arc<Mutex<ElectionReport>>,
    thread: Option<JoinHandle<()>>,
    log: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Orders {
    Static(mpsc::UnboundedSender<Command>),
    Elected(mpsc::UnboundedSender<Order>),
}

/// Longest wait for the kernel to take the addresses back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

impl Vips {
    /// Starts the thread, in the network namespace of the caller. Nothing is added or removed before [`Vips::apply`] or
    /// [`Vips::elect`].
    pub fn start(options: VipOptions) -> Result<Self> {
        Self::start_with(options, Hooks::default())
    }

    /// [`Vips::start`] with others that take part in elections.
    pub fn start_with(options: VipOptions, hooks: Hooks) -> Result<Self> {
        let auth = options.vrrp.as_ref().and_then(|vrrp| vrrp.auth.as_ref());
        let auth = auth.map(vrrp::keys::read).transpose()?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, report) =
            watch::channel(Arc::new(Holding { interface: options.interface.clone(), ..Holding::default() }));
        let elections = Arc::<Mutex<ElectionReport>>::default();
        let (voice, log) = Voice::start()?;
        let (order, orders) = mpsc::unbounded_channel();
        let elects = options.vrrp.is_some();
        let start = Start {
            options,
            auth,
            report: sender,
            voice,
            commands: receiver,
            hold: commands.clone(),
            orders,
            elections: Arc::clone(&elections),
            hooks,
        };
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("vip".into())
            .spawn(move || start.run(&ready))
            .context("start the VIP thread")?;
        started.recv().context("the VIP thread ended at once")??;
        let orders = if elects { Orders::Elected(order) } else { Orders::Static(commands) };
        Ok(Self { orders, report, elections, thread: Some(thread), log: Some(log) })
    }

    /// From now on these addresses, and no others, are held. Returns at once; [`Vips::holding`] tells how it goes. With elections
    /// it does nothing.
    pub fn apply(&self, held: BTreeSet<IpAddr>) {
        if let Orders::Static(commands) = &self.orders {
            // The thread ends only by `release`, which consumes `self`, or by a panic, which `is_alive` shows.
            let _ = commands.send(Command::Hold { held, unsure: BTreeSet::new(), open: BTreeSet::new() });
        }
    }

    /// From now on this node stands for election for these groups, and no others.
    pub fn elect(&self, groups: Arc<[VipGroup]>) {
        self.order(Order::Elect(groups));
    }

    /// Connections to these addresses, and no others, end in this node's proxy: when another node takes one over, they may go on for
    /// [`VrrpOptions::drain`].
    pub fn ends_here(&self, addresses: BTreeSet<IpAddr>) {
        self.order(Order::EndsHere(addresses));
    }

    /// How fit this node is to hold anything.
    pub fn fit(&self, fitness: Fitness) {
        self.order(Order::Fit(fitness));
    }

    /// Gives everything to other nodes and takes nothing, or stands for election again.
    pub fn drain(&self, draining: bool) {
        self.order(Order::Drain(draining));
    }

    /// Moves the groups of these addresses.
    pub fn give(&self, addresses: BTreeSet<IpAddr>, to: Move) {
        self.order(Order::Move(addresses, to));
    }

    fn order(&self, order: Order) {
        if let Orders::Elected(orders) = &self.orders {
            // As in `apply`.
            let _ = orders.send(order);
        }
    }

    pub fn holding(&self) -> Arc<Holding> {
        Arc::clone(&self.report.borrow())
    }

    /// How the elections stand, not older than a second. Nothing without elections.
    pub fn elections(&self) -> ElectionReport {
        self.elections.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let sent = match &self.orders {
            Orders::Static(commands) => commands.send(Command::Release(done)).is_ok(),
            Orders::Elected(orders) => orders.send(Order::Release(done)).is_ok(),
        };
        anyhow::ensure!(sent, "the VIP thread is gone");
        tokio::time::timeout(RELEASE_TIMEOUT, result)
            .await
            .context("the kernel did not take the addresses back in time")?
            .context("the VIP thread is gone")??;
        for thread in [self.thread.take(), self.log.take()].into_iter().flatten() {
            let _ = thread.join();
        }
        Ok(())
    }
}

/// All that the thread needs.
struct Start {
    options: VipOptions,
    auth: Option<Auth>,
    report: watch::Sender<Arc<Holding>>,
    voice: Voice,
    commands: mpsc::UnboundedReceiver<Command>,
    hold: mpsc::UnboundedSender<Command>,
    orders: mpsc::UnboundedReceiver<Order>,
    elections: Arc<Mutex<ElectionReport>>,
    hooks: Hooks,
}

impl Start {
    fn run(self, ready: &std::sync::mpsc::Sender<Result<()>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => return drop(ready.send(Err(anyhow!(e).context("start the runtime of the VIP thread")))),
        };
        let interface = self.options.interface.clone();
        let vrrp = self.options.vrrp.clone();
        let (facts, link) = watch::channel(LinkFacts::default());
        let opened = runtime.block_on(async { Holder::open(self.options, self.report, facts, self.voice.clone()) });
        let holder = match opened {
            Ok(holder) => holder,
            Err(e) => return drop(ready.send(Err(e))),
        };
        let mut elections = None;
        if let Some(options) = vrrp {
            let elector = Elector {
                interface,
                election: Election::new(options).signed(self.auth),
                holder: self.hold,
                link,
                report: self.elections,
                voice: self.voice,
                hooks: self.hooks,
                notes: Vec::new(),
                sockets: None,
                unsent: 0,
                reported: Instant::now(),
            };
            let orders = self.orders;
            // A request to the kernel about links or addresses waits for its one lock on them (rtnl), which whoever makes
            // pods holds for long: an advert must not wait behind it.
            let thread = std::thread::Builder::new().name("vrrp".into()).spawn(move || elect(elector, orders));
            match thread.context("start the thread of elections") {
                Ok(thread) => elections = Some(thread),
                Err(e) => return drop(ready.send(Err(e))),
            }
            // What is missing, the other thread tells.
            let _ = realtime::enter();
        } else {
            drop((self.voice, self.hold));
        }
        // `start` waits for exactly this.
        let _ = ready.send(Ok(()));
        runtime.block_on(holder.run(self.commands));
        if let Some(thread) = elections {
            let _ = thread.join();
        }
    }
}

/// Runs elections to their end, on the thread that calls it.
fn elect(mut elector: Elector, orders: mpsc::UnboundedReceiver<Order>) {
    elector.notes = realtime::enter();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(elector.run(orders)),
        Err(e) => elector.voice.warn(format!("start the runtime of elections: {e}; no address is held")),
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
    for address in netlink::Netlink::delivered().await? {
        netlink.deliver_no_more(address).await?;
    }
    Ok(removed)
}
