//! One worker: a thread with a runtime of its own, listening sockets of its own, backends' connections of its own. It
//! shares with the others only what never changes, so that no request waits for another core.

mod questions;

mod fitness;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Limits;
use super::access_log::{Line, LogBuffer};
use super::client::{Client, Order};
use super::compile::{Given, PoolChanges, Routing};
use super::condition::Condition;
use super::deadline::{Deadlines, ROUND};
use super::health::Finding;
use super::hosts::CompiledRoute;
use super::listen;
use super::metrics::{RouteCounters, WorkerCounters};
use super::policy::{Limiter, Passwords, Refusals, Verdicts};
use super::pools::{IdleConnections, PoolId, WorkerPool};
use super::serve;
use super::upstream::io::CompiledUpstream;
use crate::model::measure::Bounds;
use crate::model::snapshot::Pool;
use questions::Asked;

pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) limits: Limits,
    pub(super) meters: Option<Arc<Bounds>>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) routing: RefCell<Arc<Routing>>,
    pub(super) generation: Cell<u64>,
    pools: RefCell<Vec<Option<Known>>>,
    /// Parallel to them: those that a request has needed. What each request looks at stands close together.
    made: RefCell<Vec<Option<Rc<WorkerPool>>>>,
    idle: Rc<IdleConnections>,
    pub(super) deadlines: Rc<Deadlines>,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// Connections that are no HTTP and cannot be told anything.
    streams: Cell<usize>,
    log: Option<RefCell<LogBuffer>>,
    random: Cell<u64>,
    listeners: RefCell<BTreeMap<SocketAddr, Listening>>,
    draining: Cell<bool>,
    away: RefCell<Away>,
    /// The other workers, who hear of ejections.
    peers: Vec<mpsc::WeakUnboundedSender<Command>>,
    pub(super) limiter: Arc<Limiter>,
    /// `None`: nobody wants to know.
    pub(super) refusals: Option<Arc<Refusals>>,
    pub(super) passwords: Passwords,
    pub(super) verdicts: Verdicts,
    questions: RefCell<HashMap<(String, u16, bool), Asked>>,
    /// Told when a connection ends while draining.
    closed: Notify,
}

/// A pool of the snapshot. Its backends are made when a request first needs them: of 100,000 endpoints, most belong to
/// services that HTTP never reaches, or not through this worker.
struct Known {
    source: Arc<Pool>,
    upstream: Option<Arc<CompiledUpstream>>,
    condition: Condition,
}

enum Listening {
    Bound { stop: Rc<Notify>, _task: JoinHandle<()> },
    Failed(String),
}

/// Addresses that this node held, and when what is left of their connections is closed.
pub(super) type Away = BTreeMap<IpAddr, Instant>;

/// What the proxy tells a worker.
pub(super) enum Command {
    Apply {
        routing: Arc<Routing>,
        pools: Arc<PoolChanges>,
        done: oneshot::Sender<Vec<String>>,
    },
    Problems(oneshot::Sender<Vec<String>>),
    /// What health checks found.
    Health(Arc<[Finding]>),
    /// Another worker has ejected it, until then.
    Ejected(PoolId, SocketAddr, Instant),
    /// Other nodes have these addresses now; connections to each may go on until then.
    Away(Away),
    /// Stop accepting, finish what is under way within the time, then end.
    Drain(Duration, oneshot::Sender<()>),
}

pub(super) struct Birth {
    pub(super) index: usize,
    pub(super) limits: Limits,
    pub(super) meters: Option<Arc<Bounds>>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) log: Option<LogBuffer>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) seed: u64,
    pub(super) limiter: Arc<Limiter>,
    pub(super) refusals: Option<Arc<Refusals>>,
    /// Weak, or workers would keep each other alive.
    pub(super) peers: Vec<mpsc::WeakUnboundedSender<Command>>,
}

/// The worker's life.
pub(super) async fn run(birth: Birth) {
    let worker = Rc::new(Worker {
        index: birth.index,
        limits: birth.limits,
        meters: birth.meters,
        counters: birth.counters,
        routing: RefCell::default(),
        generation: Cell::new(0),
        pools: RefCell::default(),
        made: RefCell::default(),
        idle: Rc::default(),
        deadlines: Rc::new(Deadlines::new()),
        clients: RefCell::default(),
        next_client: Cell::new(0),
        streams: Cell::new(0),
        log: birth.log.map(RefCell::new),
        random: Cell::new(birth.seed | 1),
        listeners: RefCell::default(),
        draining: Cell::new(false),
        away: RefCell::default(),
        peers: birth.peers,
        limiter: birth.limiter,
        refusals: birth.refusals,
        passwords: Passwords::new(birth.seed),
        verdicts: Verdicts::default(),
        questions: RefCell::default(),
        closed: Notify::new(),
    });
    let rounds = tokio::task::spawn_local(rounds(Rc::clone(&worker)));
    let mut commands = birth.commands;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Apply { routing, pools, done } => {
                worker.apply(routing, &pools);
                // Nobody may be waiting any more.
                let _ = done.send(worker.problems());
            }
            Command::Problems(done) => {
                let _ = done.send(worker.problems());
            }
            Command::Health(findings) => worker.found(&findings),
            Command::Ejected(pool, endpoint, until) => {
                // Also where no request has needed the pool here yet: the first one would learn of it the hard way.
                if let Some(pool) = worker.pool(pool) {
                    pool.ejected(endpoint, until);
                }
            }
            Command::Away(away) => worker.move_away(away),
            Command::Drain(timeout, done) => {
                worker.drain(timeout).await;
                let _ = done.send(());
                break;
            }
        }
    }
    rounds.abort();
    worker.flush_log();
}

/// Once a second, and sooner when a short limit is due: limits, idle connections, the log, listeners that failed.
async fn rounds(worker: Rc<Worker>) {
    let mut swept = Instant::now();
    loop {
        let until = worker.deadlines.round(Instant::now());
        let sooner = tokio::time::timeout_at(until.into(), worker.deadlines.sooner.notified()).await.is_ok();
        let now = Instant::now();
        if sooner || now.duration_since(swept) < ROUND {
            continue;
        }
        swept = now;
        worker.deadlines.set_now(now);
        let millis = worker.deadlines.now();
        for client in worker.clients.borrow().values() {
            if let Some(order) = client.overdue(millis, &worker.limits) {
                client.tell(order);
            }
            if worker.away.borrow().get(&client.listener.ip()).is_some_and(|until| *until <= now) {
                client.tell(Order::Abort);
            }
        }
        worker.idle.sweep(now);
        worker.flush_log();
        if !worker.draining.get() {
            Rc::clone(&worker).bind_missing();
        }
    }
}

impl Worker {
    fn apply(self: &Rc<Self>, routing: Arc<Routing>, changes: &PoolChanges) {
        let now = Instant::now();
        self.idle.settings.set(routing.keep());
        let (mut pools, mut made) = (self.pools.borrow_mut(), self.made.borrow_mut());
        for (id, pool) in changes {
            let at = id.0 as usize;
            if pools.len() <= at {
                pools.resize_with(at + 1, || None);
                made.resize_with(at + 1, || None);
            }
            let (last, old) = (pools[at].take(), made[at].take());
            match pool {
                Some(Given { source, upstream, slow_start }) => {
                    let mut condition = Condition::default();
                    if let Some(last) = last {
                        condition = last.condition;
                        condition.changed(&last.source, source, now);
                        let new = |last| {
                            WorkerPool::new(Some(*id), source, upstream.as_ref(), &condition, Some(last), 0, &self.idle)
                        };
                        made[at] = old.as_deref().map(|old| Rc::new(new(old)));
                    }
                    condition.slow_start = *slow_start;
                    pools[at] = Some(Known { source: Arc::clone(source), upstream: upstream.clone(), condition });
                }
                None => {
                    if let Some(old) = old {
                        old.retire();
                    }
                }
            }
        }
        drop((pools, made));
        self.generation.set(routing.generation);
        self.routing.replace(routing);
        self.listeners.borrow_mut().retain(|address, listening| {
            let kept = self.routing.borrow().listens(address);
            if !kept && let Listening::Bound { stop, .. } = listening {
                stop.notify_one();
            }
            kept
        });
        Rc::clone(self).bind_missing();
    }

    fn bind_missing(self: Rc<Self>) {
        let wanted: Vec<SocketAddr> = self.routing.borrow().addresses().copied().collect();
        for address in wanted {
            if matches!(self.listeners.borrow().get(&address), Some(Listening::Bound { .. })) {
                continue;
            }
            let listening = match listen::bind(address) {
                Ok(listener) => {
                    let stop = Rc::new(Notify::new());
                    let accepting = serve::accept(Rc::clone(&self), address, listener, Rc::clone(&stop));
                    Listening::Bound { stop, _task: tokio::task::spawn_local(accepting) }
                }
                Err(error) => Listening::Failed(listen::explain(address, &error)),
            };
            self.listeners.borrow_mut().insert(address, listening);
        }
    }

    fn problems(&self) -> Vec<String> {
        let listeners = self.listeners.borrow();
        let failed = listeners.values().filter_map(|l| match l {
            Listening::Failed(problem) => Some(problem.clone()),
            Listening::Bound { .. } => None,
        });
        failed.collect()
    }

    async fn drain(&self, timeout: Duration) {
        self.draining.set(true);
        for listening in std::mem::take(&mut *self.listeners.borrow_mut()).into_values() {
            if let Listening::Bound { stop, .. } = listening {
                stop.notify_one();
            }
        }
        // Connections that were waiting to be accepted are accepted yet, and told to finish as they come.
        tokio::task::yield_now().await;
        let clients: Vec<_> = self.clients.borrow().values().map(Rc::clone).collect();
        for client in &clients {
            client.tell(Order::Finish);
        }
        drop(clients);
        let finished = async {
            while !self.clients.borrow().is_empty() || self.streams.get() > 0 {
                self.closed.notified().await;
            }
        };
        if tokio::time::timeout(timeout, finished).await.is_err() {
            let open = self.clients.borrow().len() + self.streams.get();
            tracing::info!(open, "drain: time is over, closing what is left");
        }
    }

    /// Connections to addresses that came back go on, but for what they were told.
    fn move_away(&self, away: Away) {
        for client in self.clients.borrow().values().filter(|c| away.contains_key(&c.listener.ip())) {
            client.tell(Order::Last);
        }
        self.away.replace(away);
    }

    /// Registers a connection; the number is for [`Self::leave`].
    pub(super) fn enter(&self, client: &Rc<Client>) -> u64 {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        self.clients.borrow_mut().insert(number, Rc::clone(client));
        self.counters.connections.add(1);
        self.counters.open.add(1);
        if self.draining.get() {
            client.tell(Order::Finish);
        }
        // Of a client that has not heard of the move.
        if self.away.borrow().contains_key(&client.listener.ip()) {
            client.tell(Order::Last);
        }
        number
    }

    pub(super) fn leave(&self, number: u64) {
        self.clients.borrow_mut().remove(&number);
        self.counters.open.sub(1);
        self.closed.notify_one();
    }

    pub(super) fn stream_began(&self) {
        self.streams.set(self.streams.get() + 1);
        self.counters.connections.add(1);
        self.counters.open.add(1);
    }

    pub(super) fn stream_ended(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.counters.open.sub(1);
        self.closed.notify_one();
    }

    /// Reads what a request of this route needs later. Where there are thousands, none of it is in a cache: asked for together, these places
    /// come in the time of the slowest, and not one after the other.
    pub(super) fn foresee(&self, route: &CompiledRoute) {
        let counted = route.counters(self.index).map(RouteCounters::look);
        let made = self.made.borrow();
        let pool = route.pools.first().and_then(|(id, _)| made.get(id.0 as usize)?.as_deref());
        std::hint::black_box((counted, pool.map(WorkerPool::look)));
    }

    pub(super) fn pool(&self, id: PoolId) -> Option<Rc<WorkerPool>> {
        let at = id.0 as usize;
        let mut made = self.made.borrow_mut();
        if let Some(made) = made.get(at)? {
            return Some(Rc::clone(made));
        }
        let pools = self.pools.borrow();
        let Known { source, upstream, condition } = pools.get(at)?.as_ref()?;
        // Workers begin at different backends, or all first requests would meet at one.
        let start = self.index * 7919;
        let new = WorkerPool::new(Some(id), source, upstream.as_ref(), condition, None, start, &self.idle);
        Some(Rc::clone(made[at].insert(Rc::new(new))))
    }

    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    pub(super) fn log(&self, line: &Line, status: u16, sent: u64, took: Duration) {
        if let Some(log) = &self.log {
            self.counters.log_lines_lost.add(log.borrow_mut().add(line, status, sent, took));
        }
    }

    fn flush_log(&self) {
        if let Some(log) = &self.log {
            self.counters.log_lines_lost.add(log.borrow_mut().flush());
        }
    }

    /// splitmix64: for spreading load and naming requests, not for secrets.
    pub(super) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
