//! The order of starting, applying and draining. One control thread plans and applies; the rooms do their work on threads
//! of their own. After the start nothing that is read, from wherever, ends the agent: what cannot be applied is reported by
//! `/readyz`, logged once, and tried again.
//!
//! facts → plan → data plane and proxy → addresses: an address is announced only when both have a generation in force that
//! serves it, and on a graceful stop it goes first.

mod progress;

mod rejections;

mod signals;

mod answer;

mod source;

mod report;

mod conflicts;

mod ready;

mod elections;

mod moves;

mod drain;

mod explain;

mod precedence;

mod limit_drops;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::admin::Admin;
use crate::checks::Checks;
use crate::config::Config;
use crate::dataplane::Dataplane;
use crate::memory::Leftovers;
use crate::model::conflict::Conflict;
use crate::model::election::{RouterKey, VipGroup};
use crate::model::facts::Facts;
use crate::model::report::Report;
use crate::model::snapshot::Snapshot;
use crate::model::source::SourceState;
use crate::plan::{self, Plan};
use crate::proxy::{Proxy, ProxyOptions};
use crate::status::Status;
use crate::vip::Vips;
use limit_drops::LimitDrops;
use moves::Moves;
use progress::Progress;
use signals::{Caught, Signals};
use source::Source;

/// Questions that may wait for the control thread.
const QUERIES: usize = 64;
const TICK: Duration = Duration::from_secs(1);
/// A proxy that takes longer to answer hangs: what this node says of the cluster is then no longer what it serves.
const PROXY_ANSWERS: Duration = Duration::from_secs(30);

/// A question on its way through the proxy: the snapshot that it is about, and what the proxy says in the end.
type Asking<'a> = Pin<Box<dyn Future<Output = (Arc<Snapshot>, Result<Vec<String>>)> + 'a>>;

/// `sluicegate run`, to its end. An error means that it never began to serve.
pub fn run(config: Config) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the control runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::open()?;
    // What can fail without having touched anything comes first.
    let (ask, mut queries) = mpsc::channel(QUERIES);
    let admin = Admin::start(config.admin.clone(), ask)?;
    let dataplane = Dataplane::open(config.dataplane.clone()).context("start the data plane")?;
    let (tell, mut offences) = limit_drops::channel(config.dataplane.limit_drop);
    let proxy = Proxy::start(ProxyOptions { offences: tell, ..config.proxy.clone() }).context("start the proxy")?;
    dataplane.share_limits(proxy.shared_limits());
    let hooks = config.vips.vrrp.as_ref().map(|vrrp| elections::hooks(&dataplane, vrrp)).transpose()?;
    let vips = Vips::start_with(config.vips.clone(), hooks.unwrap_or_default());
    let vips = vips.context("start the holder of addresses")?;
    let checks = Checks::start(config.checks.clone())?;
    let (publish, facts) = watch::channel(Arc::new(Facts::default()));
    let mut facts = source::resolved(&config, facts);
    let (say, source_state) = watch::channel(SourceState::default());
    let (told, report) = watch::channel(Arc::new(Report::default()));
    let (beat, pulse) = watch::channel(Instant::now());
    let status = config.status.clone().map(|o| Status::start(o, report, pulse));
    let status = status.transpose().context("start the reporter")?;
    precedence::take();
    let source = Source::start(&config, publish, say).context("start the source of facts")?;
    info!("sluicegate {} runs on node {}", env!("CARGO_PKG_VERSION"), config.plan.node);

    let mut holding = vips.watch();
    let mut control = Control::new(config, dataplane, vips, checks, source_state, told, status);
    control.beat = Some(beat);
    let mut in_proxy: Option<Asking> = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // One change at a time is in the proxy; what comes meanwhile is one change, too.
        if in_proxy.is_none() {
            in_proxy = control.next_for_proxy().map(|order| ask_proxy(&proxy, order));
            control.proxy_asked = in_proxy.as_ref().map(|_| Instant::now());
        }
        tokio::select! {
            Ok(()) = facts.changed() => {
                let new = Arc::clone(&facts.borrow_and_update());
                control.plan(&new);
            }
            (snapshot, result) = answered(&mut in_proxy) => {
                in_proxy = None;
                control.proxy_asked = None;
                control.proxy_applied(&snapshot, result);
            }
            _ = tick.tick() => control.tick(),
            Ok(()) = holding.changed() => control.follow_moves(&proxy),
            Some(query) = queries.recv() => answer::answer(query, &mut control, Some(&proxy)),
            Some(offence) = offences.recv() => control.offended(&offence, &mut offences),
            caught = signals.next() => match caught {
                Caught::Hangup => {
                    info!("SIGHUP: the access log is opened again");
                    proxy.reopen();
                }
                Caught::Stop(name) => {
                    info!("{name}: draining");
                    break;
                }
            },
        }
        control.report();
    }
    drop(in_proxy);
    // Nothing new is taken; what is known is saved while requests finish.
    let stopping = tokio::spawn(source.stop());
    drain::drain(control, proxy, &mut queries, &mut signals).await;
    stopping.await.context("stop the source of facts")?;
    drop(admin);
    Ok(())
}

/// What the proxy is asked to do.
enum Order {
    Apply(Arc<Snapshot>),
    /// Say what is still wrong with this one, which it has in force.
    Check(Arc<Snapshot>),
}

fn ask_proxy(proxy: &Proxy, order: Order) -> Asking<'_> {
    Box::pin(async move {
        match order {
            Order::Apply(snapshot) => (Arc::clone(&snapshot), proxy.apply(snapshot).await),
            Order::Check(snapshot) => (snapshot, proxy.problems().await),
        }
    })
}

async fn answered(asking: &mut Option<Asking<'_>>) -> (Arc<Snapshot>, Result<Vec<String>>) {
    match asking {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What the control thread knows.
struct Control {
    config: Config,
    dataplane: Dataplane,
    /// `None` once released.
    vips: Option<Vips>,
    started: Instant,
    plan: Option<Plan>,
    /// Whether facts were ever read.
    read: bool,
    /// What their source says of itself.
    source: watch::Receiver<SourceState>,
    l4: Progress,
    l7: Progress,
    /// What the proxy is to be asked next.
    for_proxy: Option<Order>,
    /// In force in the proxy, and in the data plane.
    in_proxy: Option<Arc<Snapshot>>,
    in_dataplane: Option<Arc<Snapshot>>,
    held: Option<BTreeSet<IpAddr>>,
    /// What this node stands for election for.
    elected: Option<Arc<[VipGroup]>>,
    /// What the data plane was told of them: by which router an address is elected, and where adverts come in.
    guarded: Option<(BTreeMap<IpAddr, RouterKey>, BTreeSet<IpAddr>)>,
    moves: Moves,
    limit_drops: LimitDrops,
    /// What others on the LAN use of it, as of the last tick.
    conflicts: BTreeSet<Conflict>,
    checks: Checks,
    /// An operator, not a signal, wants the addresses elsewhere.
    moved_away: bool,
    /// The last that both had in force.
    in_force: Arc<Snapshot>,
    /// What this node says of itself.
    told: watch::Sender<Arc<Report>>,
    /// Who says it; `None` where there is no cluster.
    status: Option<Status>,
    /// Says now and then that what is planned is applied: by that the reporter knows that it may speak for the cluster.
    beat: Option<watch::Sender<Instant>>,
    /// Since when the proxy has been applying.
    proxy_asked: Option<Instant>,
    tick_fault: Option<String>,
    leftovers: Leftovers,
    was_ready: bool,
    draining: bool,
}

impl Control {
    fn new(
        config: Config,
        dataplane: Dataplane,
        vips: Vips,
        checks: Checks,
        source: watch::Receiver<SourceState>,
        told: watch::Sender<Arc<Report>>,
        status: Option<Status>,
    ) -> Self {
        Self {
            config,
            dataplane,
            vips: Some(vips),
            started: Instant::now(),
            plan: None,
            read: false,
            source,
            l4: Progress::new("dataplane"),
            l7: Progress::new("proxy"),
            for_proxy: None,
            in_proxy: None,
            in_dataplane: None,
            held: None,
            elected: None,
            guarded: None,
            moves: Moves::default(),
            limit_drops: LimitDrops::default(),
            conflicts: BTreeSet::new(),
            checks,
            moved_away: false,
            in_force: Arc::default(),
            told,
            status,
            beat: None,
            proxy_asked: None,
            tick_fault: None,
            leftovers: Leftovers::default(),
            was_ready: false,
            draining: false,
        }
    }

    fn plan(&mut self, facts: &Facts) {
        // Nothing must be concluded from not having read anything yet: pinned maps go on serving what they hold.
        if facts.revision == 0 {
            return;
        }
        self.read = true;
        self.limit_drops.nodes = facts.nodes.clone();
        let began = Instant::now();
        let plan = plan::plan(facts, &self.config.plan, self.plan.as_ref());
        let before = self.plan.as_ref().map(|p| Arc::clone(&p.snapshot));
        let snapshot = Arc::clone(&plan.snapshot);
        self.plan = Some(plan);
        if before.as_ref().is_some_and(|b| Arc::ptr_eq(b, &snapshot)) {
            return;
        }
        rejections::log(before.as_ref().map_or(&[], |b| &b.rejections), &snapshot.rejections);
        debug!(generation = snapshot.generation, took = ?began.elapsed(), "planned");
        let now = Instant::now();
        self.leftovers.worked(now);
        self.l4.planned(now);
        self.l7.planned(now);
        self.for_proxy = Some(Order::Apply(Arc::clone(&snapshot)));
        self.apply_to_dataplane(&snapshot);
    }

    fn apply_to_dataplane(&mut self, snapshot: &Arc<Snapshot>) {
        let began = Instant::now();
        let news = match self.dataplane.apply(snapshot) {
            Ok(applied) => {
                debug!(generation = snapshot.generation, took = ?began.elapsed(), "applied to the data plane");
                self.in_dataplane = Some(Arc::clone(snapshot));
                self.l4.done(snapshot.generation, applied.problems, Instant::now())
            }
            Err(e) => self.l4.failed(format!("{e:#}"), Instant::now()),
        };
        news.tell("dataplane");
        self.hold();
    }

    fn next_for_proxy(&mut self) -> Option<Order> {
        self.for_proxy.take()
    }

    fn proxy_applied(&mut self, snapshot: &Arc<Snapshot>, result: Result<Vec<String>>) {
        let news = match result {
            Ok(problems) => {
                debug!(generation = snapshot.generation, "applied to the proxy");
                self.in_proxy = Some(Arc::clone(snapshot));
                self.l7.done(snapshot.generation, problems, Instant::now())
            }
            Err(e) => self.l7.failed(format!("{e:#}"), Instant::now()),
        };
        news.tell("proxy");
        self.hold();
    }

    /// Holds the addresses of a generation that both have in force.
    fn hold(&mut self) {
        let (Some(l4), Some(l7)) = (&self.in_dataplane, &self.in_proxy) else { return };
        if !Arc::ptr_eq(l4, l7) {
            return;
        }
        self.in_force = Arc::clone(l4);
        if self.config.vips.vrrp.is_some() {
            let groups = Arc::clone(&self.in_force.groups);
            return self.elect(groups);
        }
        let held: BTreeSet<IpAddr> =
            self.in_force.vips.iter().filter(|(_, vip)| vip.held_here).map(|(a, _)| *a).collect();
        if self.held.as_ref() != Some(&held) {
            if let Some(vips) = &self.vips {
                vips.apply(held.clone());
            }
            self.held = Some(held);
        }
    }

    fn tick(&mut self) {
        let fault = self.dataplane.tick().err().map(|e| format!("{e:#}"));
        if let Some(fault) = fault.as_ref().filter(|f| self.tick_fault.as_ref() != Some(*f)) {
            warn!("dataplane: {fault}");
        }
        self.tick_fault = fault;
        let now = Instant::now();
        self.leftovers.give_back(now);
        self.tell_dropped(now);
        if let Some(beat) = self.beat.as_ref().filter(|_| self.proxy_asked.is_none_or(|t| now < t + PROXY_ANSWERS)) {
            beat.send_replace(now);
        }
        if let Some(snapshot) = self.plan.as_ref().map(|p| Arc::clone(&p.snapshot)) {
            if self.l4.is_due(now) {
                self.apply_to_dataplane(&snapshot);
            }
            self.for_proxy = self.for_proxy.take().or_else(|| self.again_for_proxy(snapshot, now));
        }
        self.fit();
        self.guard_again();
        if let Some(vips) = &self.vips {
            let found = conflicts::conflicts(&vips.holding(), &vips.elections(), now);
            if self.config.vips.vrrp.is_some() {
                conflicts::log(&self.conflicts, &found);
            }
            self.conflicts = found;
        }
        let ready = self.not_ready();
        if ready.is_empty() != self.was_ready {
            self.was_ready = ready.is_empty();
            if self.was_ready {
                info!("ready");
            } else {
                warn!("not ready: {}", ready.join("; "));
            }
        }
    }

    /// The proxy tries a listener that it could not bind again by itself; it only has to be asked how that went.
    fn again_for_proxy(&self, planned: Arc<Snapshot>, now: Instant) -> Option<Order> {
        let current = self.in_proxy.as_ref().is_some_and(|s| Arc::ptr_eq(s, &planned));
        if current {
            return (!self.l7.problems.is_empty()).then_some(Order::Check(planned));
        }
        self.l7.is_due(now).then_some(Order::Apply(planned))
    }
}
