//! Health checks that Ingresses ask for: one for each endpoint and setting of this node, whatever the number of workers and
//! Ingresses. They run on a thread of their own, which exists only where somebody asked; workers are told what has
//! changed, and hold it where they hold ejections, so that a request pays nothing for it.

mod probe;

mod verdict;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::pools::PoolId;
use super::upstream::io::CompiledUpstream;
use super::worker::Command;
use crate::model::policy::{HealthCheck, Upstream};
use crate::model::snapshot::{AppProtocol, Pool, PoolName};
use crate::model::traffic::EndpointHealth;
use probe::{Speech, probe};
use verdict::Verdict;

/// Checks under way at one time: endpoints that answer nothing hold a socket each until their time is over.
const AT_ONCE: usize = 512;

/// A pool of the generation in force whose endpoints are to be checked.
pub(super) struct Wanted {
    pub(super) id: PoolId,
    pub(super) pool: Arc<Pool>,
    pub(super) upstream: Option<Arc<CompiledUpstream>>,
    pub(super) check: Arc<HealthCheck>,
}

/// What a check has found about an endpoint of a pool.
#[derive(Clone, Copy)]
pub(super) struct Finding {
    pub(super) pool: PoolId,
    pub(super) endpoint: SocketAddr,
    pub(super) well: bool,
}

/// The side that the proxy holds.
pub(super) struct Health {
    orders: Mutex<Option<mpsc::UnboundedSender<Vec<Wanted>>>>,
    readings: Readings,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

/// By a number for each check.
type Readings = Arc<Mutex<BTreeMap<u64, EndpointHealth>>>;

impl Health {
    pub(super) fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self { orders: Mutex::default(), readings: Readings::default(), workers }
    }

    /// From now on these are checked, and nothing else.
    pub(super) fn apply(&self, wanted: Vec<Wanted>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.is_none() && !wanted.is_empty() {
            match start(self.workers.clone(), Arc::clone(&self.readings)) {
                Ok(sender) => *orders = Some(sender),
                Err(error) => tracing::error!(%error, "health is not checked: its thread cannot start"),
            }
        }
        if let Some(orders) = &*orders {
            // It ends with the process only.
            let _ = orders.send(wanted);
        }
    }

    pub(super) fn read(&self) -> Vec<EndpointHealth> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn start(
    workers: Vec<mpsc::UnboundedSender<Command>>,
    readings: Readings,
) -> std::io::Result<mpsc::UnboundedSender<Vec<Wanted>>> {
    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("health".to_owned()).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "health is not checked: no event loop"),
        };
        runtime.block_on(async move {
            let mut desk = Desk {
                shared: Rc::new(Shared { workers, readings, sockets: Semaphore::new(AT_ONCE) }),
                pools: HashMap::new(),
                checks: HashMap::new(),
                next: 0,
            };
            while let Some(wanted) = orders.recv().await {
                desk.apply(wanted);
            }
        });
    })?;
    Ok(sender)
}

/// What makes two checks one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    target: SocketAddr,
    protocol: AppProtocol,
    upstream: Option<Arc<Upstream>>,
    check: Arc<HealthCheck>,
}

/// The thread's side.
struct Desk {
    shared: Rc<Shared>,
    pools: HashMap<PoolId, (Arc<Pool>, HashMap<SocketAddr, Key>)>,
    checks: HashMap<Key, Check>,
    next: u64,
}

struct Shared {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    readings: Readings,
    sockets: Semaphore,
}

struct Check {
    number: u64,
    state: Rc<State>,
    task: JoinHandle<()>,
}

struct State {
    /// Whose endpoint it is.
    of: RefCell<BTreeSet<(PoolId, SocketAddr)>>,
    verdict: RefCell<Verdict>,
}

impl Desk {
    fn apply(&mut self, wanted: Vec<Wanted>) {
        let now: HashSet<PoolId> = wanted.iter().map(|w| w.id).collect();
        let gone: Vec<PoolId> = self.pools.keys().filter(|id| !now.contains(id)).copied().collect();
        let mut findings = Vec::new();
        for id in gone {
            if let Some((_, keys)) = self.pools.remove(&id) {
                for (endpoint, key) in keys {
                    self.leave(id, endpoint, &key, &mut findings);
                }
            }
        }
        for wanted in wanted {
            let last = self.pools.remove(&wanted.id);
            if let Some((pool, keys)) = last {
                if Arc::ptr_eq(&pool, &wanted.pool) {
                    self.pools.insert(wanted.id, (pool, keys));
                    continue;
                }
                let keys_now = keys_of(&wanted);
                for (endpoint, key) in keys.iter().filter(|(endpoint, key)| keys_now.get(*endpoint) != Some(*key)) {
                    self.leave(wanted.id, *endpoint, key, &mut findings);
                }
                for (endpoint, key) in keys_now.iter().filter(|(endpoint, key)| keys.get(*endpoint) != Some(*key)) {
                    self.enter(&wanted, *endpoint, key, &mut findings);
                }
                self.pools.insert(wanted.id, (Arc::clone(&wanted.pool), keys_now));
            } else {
                let keys = keys_of(&wanted);
                for (endpoint, key) in &keys {
                    self.enter(&wanted, *endpoint, key, &mut findings);
                }
                self.pools.insert(wanted.id, (Arc::clone(&wanted.pool), keys));
            }
        }
        self.shared.tell(findings);
    }

    fn enter(&mut self, wanted: &Wanted, endpoint: SocketAddr, key: &Key, findings: &mut Vec<Finding>) {
        if let Some(check) = self.checks.get(key) {
            check.state.of.borrow_mut().insert((wanted.id, endpoint));
            if !check.state.verdict.borrow().well {
                findings.push(Finding { pool: wanted.id, endpoint, well: false });
            }
            return;
        }
        let number = self.next;
        self.next += 1;
        let of = RefCell::new(BTreeSet::from([(wanted.id, endpoint)]));
        let state = Rc::new(State { of, verdict: RefCell::default() });
        let reading = EndpointHealth {
            pool: wanted.pool.name.clone(),
            endpoint,
            check: HealthCheck::clone(&wanted.check),
            well: true,
            passed: 0,
            failed: 0,
            reason: None,
        };
        self.shared.readings.lock().unwrap_or_else(PoisonError::into_inner).insert(number, reading);
        let speech = Speech::new(&wanted.check, key.protocol, wanted.upstream.as_ref());
        let subject =
            Subject { number, name: wanted.pool.name.clone(), key: key.clone(), state: Rc::clone(&state), speech };
        let task = tokio::task::spawn_local(check_again_and_again(Rc::clone(&self.shared), subject));
        self.checks.insert(key.clone(), Check { number, state, task });
    }

    fn leave(&mut self, pool: PoolId, endpoint: SocketAddr, key: &Key, findings: &mut Vec<Finding>) {
        let Some(check) = self.checks.get(key) else { return };
        check.state.of.borrow_mut().remove(&(pool, endpoint));
        if !check.state.verdict.borrow().well {
            // Nobody knows any more; whoever has this endpoint again begins anew.
            findings.push(Finding { pool, endpoint, well: true });
        }
        if check.state.of.borrow().is_empty() {
            check.task.abort();
            self.shared.readings.lock().unwrap_or_else(PoisonError::into_inner).remove(&check.number);
            self.checks.remove(key);
        }
    }
}

fn keys_of(wanted: &Wanted) -> HashMap<SocketAddr, Key> {
    let upstream = wanted.upstream.as_ref().map(|u| Arc::clone(&u.source));
    let protocol = upstream.as_ref().map_or(wanted.pool.app_protocol, |u| u.protocol);
    let takers = wanted.pool.backends.iter().filter(|b| b.takes_new());
    let key = |address: SocketAddr| {
        let target = SocketAddr::new(address.ip(), wanted.check.port.unwrap_or(address.port()));
        Key { target, protocol, upstream: upstream.clone(), check: Arc::clone(&wanted.check) }
    };
    takers.map(|b| (b.address, key(b.address))).collect()
}

struct Subject {
    number: u64,
    name: PoolName,
    key: Key,
    state: Rc<State>,
    speech: Speech,
}

async fn check_again_and_again(shared: Rc<Shared>, subject: Subject) {
    let (check, target) = (&*subject.key.check, subject.key.target);
    let mut turn = 0_u64;
    loop {
        // It is never closed.
        let Ok(socket) = shared.sockets.acquire().await else { return };
        let begun = Instant::now();
        let result = tokio::time::timeout(check.timeout, probe(check, target, &subject.speech)).await;
        drop(socket);
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {:?}", check.timeout)));
        shared.note(&subject, result);
        turn += 1;
        // Up to a tenth sooner: checks that began together spread by and by.
        let sooner = super::policy::spread(subject.number ^ (turn << 32)) % 100;
        let wait = check.interval.mul_f64(1.0 - sooner as f64 / 1000.0);
        tokio::time::sleep(wait.saturating_sub(begun.elapsed()).max(Duration::from_millis(1))).await;
    }
}

impl Shared {
    fn note(&self, subject: &Subject, result: Result<(), String>) {
        let changed = subject.state.verdict.borrow_mut().add(&subject.key.check, result.is_ok());
        let well = subject.state.verdict.borrow().well;
        if let Some(reading) = self.readings.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&subject.number) {
            reading.well = well;
            match &result {
                Ok(()) => reading.passed += 1,
                Err(_) => reading.failed += 1,
            }
            // What was wrong last is of interest until all is well again.
            reading.reason = result.as_ref().err().cloned().or_else(|| reading.reason.take().filter(|_| !well));
        }
        if !changed {
            return;
        }
        let (pool, endpoint) = (&subject.name, subject.key.target);
        match result {
            Ok(()) => tracing::info!(%pool, %endpoint, check = %subject.key.check, "endpoint is well again"),
            Err(reason) => {
                tracing::warn!(%pool, %endpoint, check = %subject.key.check, %reason, "endpoint fails its health check");
            }
        }
        let of = subject.state.of.borrow();
        self.tell(of.iter().map(|(pool, endpoint)| Finding { pool: *pool, endpoint: *endpoint, well }).collect());
    }

    fn tell(&self, findings: Vec<Finding>) {
        if findings.is_empty() {
            return;
        }
        let findings: Arc<[Finding]> = findings.into();
        for worker in &self.workers {
            // One that has ended sends no requests.
            let _ = worker.send(Command::Health(Arc::clone(&findings)));
        }
    }
}
