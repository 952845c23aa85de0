//! HTTP and TLS: the proxy of layer 7. Workers share what a snapshot compiled to, which never changes, and nothing else;
//! no request waits for a lock, a thread or another core. Knows nothing of Kubernetes or BPF.
//!
//! Read `forward` first, then `upstream`; `framing` and `target` are where requests are refused.

mod forward;

mod routed;

mod action;

mod target;

mod path;

mod odd;

mod framing;

mod hosts;

mod paths;

mod terms;

mod expressions;

mod filters;

mod policy;

mod request;

mod upstream;

mod pools;

mod condition;

mod budget;

mod health;

mod ewma;

mod body;

mod kept;

mod coding;

mod pace;

mod record;

mod meter;

mod reply;

mod mirror;

mod client;

mod serve;

mod small_write;

mod tunnel;

mod proxy_header;

mod stream;

mod splice;

mod hello;

mod local_tasks;

mod worker;

mod listen;

mod deadline;

mod compile;

mod tls;

mod access_log;

mod log_format;

mod line;

pub mod metrics;

mod explain;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

pub use access_log::{AccessLog, AccessLogFormat};
pub use explain::{HttpExplanation, explain};

use crate::model::measure::Bounds;
use crate::model::offence::Offence;
use crate::model::snapshot::Snapshot;
use crate::model::sync::SharedLimits;
use crate::model::traffic::EndpointHealth;
use access_log::LogWriter;
use compile::{Compiler, Routing};
use health::Health;
use metrics::{HttpTraffic, WorkerCounters};
use policy::Limiter;
use worker::{Birth, Command};

#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Threads; at least 1. One a core is right.
    pub workers: usize,
    pub access_log: AccessLog,
    pub access_log_format: AccessLogFormat,
    pub limits: Limits,
    /// Requests are measured as ingress-nginx does, too, in these buckets.
    pub meters: Option<Arc<Bounds>>,
    /// Who is told of clients that go on exceeding limits; what it does not take is left out. `None`: nobody.
    pub offences: Option<mpsc::Sender<Offence>>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            access_log: AccessLog::Off,
            access_log_format: AccessLogFormat::default(),
            limits: Limits::default(),
            meters: None,
            offences: None,
        }
    }
}

/// How long a client may keep us waiting. Looked at once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a request's head, and for the first one from the moment of connecting (`client-header-timeout`).
    pub header: Duration,
    /// Between two reads of a request's body (`client-body-timeout`).
    pub client_body: Duration,
    /// Between two writes of a response.
    pub client_send: Duration,
    /// Between requests (`keep-alive`).
    pub keep_alive: Duration,
}

/// ingress-nginx's defaults.
impl Default for Limits {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self { header: minute, client_body: minute, client_send: minute, keep_alive: Duration::from_secs(75) }
    }
}

/// The running proxy.
pub struct Proxy {
    workers: Vec<WorkerHandle>,
    compiler: Mutex<Compiler>,
    /// In force. Held here so that the generation before is freed by whoever applies the next, never by a worker between two requests.
    routing: Mutex<Arc<Routing>>,
    counters: Vec<Arc<WorkerCounters>>,
    health: Health,
    limiter: Arc<Limiter>,
    log: Option<LogWriter>,
    generation: AtomicU64,
}

struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Starts the workers; nothing is served before the first [`Self::apply`].
    pub fn start(options: ProxyOptions) -> anyhow::Result<Self> {
        let count = options.workers.max(1);
        let log = LogWriter::start(options.access_log)?;
        let compiler = Compiler::new(count)?;
        let limiter = Arc::new(Limiter::default());
        let refusals = options.offences.map(|tell| Arc::new(policy::Refusals::new(tell)));
        let mut workers = Vec::with_capacity(count);
        let mut all_counters = Vec::with_capacity(count);
        let channels: Vec<_> = (0..count).map(|_| mpsc::unbounded_channel()).collect();
        let senders: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        for (index, (sender, commands)) in channels.into_iter().enumerate() {
            let others = senders.iter().enumerate().filter(|(other, _)| *other != index);
            let peers = others.map(|(_, peer)| peer.downgrade()).collect();
            let counters = Arc::new(WorkerCounters::default());
            let birth = Birth {
                index,
                limits: options.limits,
                meters: options.meters.clone(),
                counters: Arc::clone(&counters),
                log: log.as_ref().map(|log| log.buffer(options.access_log_format)),
                commands,
                seed: seed(),
                limiter: Arc::clone(&limiter),
                refusals: refusals.clone(),
                peers,
            };
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime.block_on(worker::run(birth)),
                    Err(error) => tracing::error!(%error, "a proxy worker cannot start its event loop"),
                })
                .context("start a proxy worker")?;
            workers.push(WorkerHandle { commands: sender, thread });
            all_counters.push(counters);
        }
        Ok(Self {
            workers,
            compiler: Mutex::new(compiler),
            routing: Mutex::default(),
            counters: all_counters,
            health: Health::new(senders),
            limiter,
            log,
            generation: AtomicU64::new(0),
        })
    }

    /// Returns when every worker serves this snapshot and has bound what it can: a sentence for each listener that it
    /// could not bind. Those are tried again every second; [`Self::metrics`] shows which are left.
    pub async fn apply(&self, snapshot: Arc<Snapshot>) -> anyhow::Result<Vec<String>> {
        let (routing, pools, checks) = {
            let mut compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner);
            compiler.compile(&snapshot)
        };
        let (routing, pools) = (Arc::new(routing), Arc::new(pools));
        let mut waiting = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, result) = oneshot::channel();
            let command = Command::Apply { routing: Arc::clone(&routing), pools: Arc::clone(&pools), done };
            worker.commands.send(command).ok().context("a proxy worker has ended")?;
            waiting.push(result);
        }
        let problems = collect(waiting).await?;
        self.health.apply(checks);
        self.limiter.know(&snapshot.shared_limits);
        *self.routing.lock().unwrap_or_else(PoisonError::into_inner) = routing;
        self.generation.store(snapshot.generation, Ordering::Release);
        Ok(problems)
    }

    /// Listeners that are not bound now.
    pub async fn problems(&self) -> anyhow::Result<Vec<String>> {
        let mut waiting = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, result) = oneshot::channel();
            worker.commands.send(Command::Problems(done)).ok().context("a proxy worker has ended")?;
            waiting.push(result);
        }
        collect(waiting).await
    }

    pub fn metrics(&self) -> HttpTraffic {
        let mut traffic = HttpTraffic::read(&self.counters);
        traffic.generation = self.generation.load(Ordering::Acquire);
        let compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.routes = compiler.stats().filter_map(|stats| stats.read()).collect();
        drop(compiler);
        traffic.health = self.health.read();
        traffic.routes.sort_by(|a, b| (&a.owner, &a.rule).cmp(&(&b.owner, &b.rule)));
        traffic
    }

    /// After the access log was moved away (logrotate): goes on in a new file of the same name.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Other nodes hold these addresses now, and no others that this one held before. Connections to them get their answers and are told
    /// to end (`Connection: close`, GOAWAY); what is left at the time said is closed.
    pub fn move_away(&self, away: &BTreeMap<IpAddr, Instant>) {
        for worker in &self.workers {
            // One that has ended has no connections.
            let _ = worker.commands.send(Command::Away(away.clone()));
        }
    }

    /// What the limits that edges share have to hear and to tell.
    pub fn shared_limits(&self) -> SharedLimits {
        let (tells, hears) = (Arc::clone(&self.limiter), Arc::clone(&self.limiter));
        SharedLimits {
            take: Box::new(move |uses| tells.take_uses(uses)),
            hear: Box::new(move |used| hears.hear_use(used, Instant::now())),
        }
    }

    /// Endpoints whose health is checked, and what was found.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.health.read()
    }

    /// Connections that are open, tunnels included.
    pub fn open_connections(&self) -> u64 {
        self.counters.iter().map(|counters| counters.open.value()).sum()
    }

    /// Stops accepting, lets requests under way finish (`Connection: close`, GOAWAY), and ends the workers; what is left
    /// after `timeout` is closed.
    pub async fn drain(self, timeout: Duration) {
        let mut waiting = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, ended) = oneshot::channel();
            if worker.commands.send(Command::Drain(timeout, done)).is_ok() {
                waiting.push(ended);
            }
        }
        for ended in waiting {
            // An error says that the worker has ended already.
            let _ = ended.await;
        }
        for worker in self.workers {
            let joined = tokio::task::spawn_blocking(move || worker.thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a proxy worker panicked");
            }
        }
    }
}

async fn collect(waiting: Vec<oneshot::Receiver<Vec<String>>>) -> anyhow::Result<Vec<String>> {
    let mut problems = BTreeSet::new();
    for result in waiting {
        problems.extend(result.await.context("a proxy worker has ended")?);
    }
    Ok(problems.into_iter().collect())
}

/// A seed for spreading load, from the standard library's own source of randomness.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
