//! The backends as one worker sees them: whose turn it is, who is ejected, and the idle connections to each. Belongs to
//! a worker alone; a new snapshot replaces only the pools that changed, and backends that stay keep their connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::model::policy::UpstreamKeep;
use crate::model::route::Balance;
use crate::model::snapshot::{AppProtocol, BackendState, Pool, PoolName};

use super::ewma::Average;
use super::policy::{digest, spread};
use super::upstream::h1::Connection;
use super::upstream::h2::Shared;
use super::upstream::io::CompiledUpstream;

/// A pool's number for the life of the process. Never given to another pool, so that a request that is under way with
/// an old route cannot reach a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolId(pub(super) u32);

/// This many connect failures in a row eject a backend.
const FAILURES: u32 = 3;
/// For so long at first, twice as long each further time, up to [`EJECTED_MOST`].
const EJECTED: Duration = Duration::from_secs(10);
const EJECTED_MOST: Duration = Duration::from_mins(5);

/// Up to this many backends, least-request looks at all of them; beyond, at two chosen at random.
const LOOK_AT_ALL: usize = 8;

pub(super) struct WorkerPool {
    pub(super) name: PoolName,
    pub(super) protocol: AppProtocol,
    pub(super) upstream: Option<Arc<CompiledUpstream>>,
    /// Those that take new requests.
    ready: Vec<Rc<Backend>>,
    /// All weights alike: the turn is an index, and no weight need be summed.
    even: bool,
    turn: Cell<usize>,
    /// Until when some backend may be ejected; before, the fast way is closed.
    uneven_until: Cell<Option<Instant>>,
}

/// Which backend a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefer {
    Backend(u64),
    Hash(u64),
    /// Any of a set of so many, of which the hash chooses one.
    Subset {
        hash: u64,
        size: u32,
    },
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    digest: u64,
    weight: Cell<u32>,
    current: Cell<i64>,
    under_way: Cell<u32>,
    /// How fast it answers, where somebody chooses by that.
    pub(super) average: Average,
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    #[expect(clippy::vec_box, reason = "a connection moves between here and each exchange: a pointer, not its bytes")]
    idle: RefCell<Vec<Box<Connection>>>,
    pub(super) h2: RefCell<Option<Shared>>,
    /// The worker's.
    keep: Keep,
    /// No longer in any snapshot, or draining: finished connections are not kept.
    retired: Cell<bool>,
}

/// How connections are kept, which settings may change under them.
pub(super) type Keep = Rc<Cell<UpstreamKeep>>;

/// One request under way at a backend.
pub(super) struct Lease(pub(super) Rc<Backend>);

impl Lease {
    pub(super) fn new(backend: Rc<Backend>) -> Self {
        backend.under_way.set(backend.under_way.get() + 1);
        Self(backend)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
    }
}

impl WorkerPool {
    /// `start` makes workers begin at different backends.
    pub(super) fn new(
        pool: &Pool,
        upstream: Option<&Arc<CompiledUpstream>>,
        last: Option<&Self>,
        start: usize,
        keep: &Keep,
    ) -> Self {
        let protocol = upstream.map_or(pool.app_protocol, |u| u.source.protocol);
        let same_protocol = last.filter(|last| last.protocol == protocol);
        let mut known = same_protocol.map(|last| last.ready.clone()).unwrap_or_default();
        known.sort_by_key(|b| b.address);
        let mut ready = Vec::with_capacity(pool.backends.len());
        for backend in &pool.backends {
            if backend.state != BackendState::Ready || backend.weight == 0 {
                continue;
            }
            let kept = known.binary_search_by_key(&backend.address, |b| b.address).ok().map(|at| Rc::clone(&known[at]));
            let entry = kept.unwrap_or_else(|| Rc::new(Backend::new(backend.address, keep)));
            entry.weight.set(backend.weight);
            ready.push(entry);
        }
        let even = ready.windows(2).all(|pair| pair[0].weight.get() == pair[1].weight.get());
        if !even && last.is_none() {
            // The same sequence, begun elsewhere: advance the smooth weights by `start` turns at most once round.
            let total: u64 = ready.iter().map(|b| u64::from(b.weight.get())).sum();
            for _ in 0..(start as u64 % total.clamp(1, 1024)) {
                smooth(&ready, |_| true);
            }
        }
        if let Some(last) = last {
            for old in &last.ready {
                // Sorted by address, as pools are.
                let now = ready.binary_search_by_key(&old.address, |b| b.address);
                if !now.is_ok_and(|at| Rc::ptr_eq(&ready[at], old)) {
                    old.retire();
                }
            }
        }
        Self {
            name: pool.name.clone(),
            protocol,
            upstream: upstream.cloned(),
            even,
            turn: Cell::new(last.map_or(start, |last| last.turn.get())),
            uneven_until: Cell::new(last.and_then(|last| last.uneven_until.get())),
            ready,
        }
    }

    /// The backend for the next request, avoiding `not` (already tried) and ejected ones while others remain.
    pub(super) fn pick(&self, balance: Balance, not: &[SocketAddr], random: impl Fn() -> u64) -> Option<Rc<Backend>> {
        let simple = not.is_empty() && self.uneven_until.get().is_none();
        if simple && self.even && balance == Balance::RoundRobin {
            let turn = self.turn.get();
            let chosen = self.ready.get(turn % self.ready.len().max(1))?;
            self.turn.set(turn.wrapping_add(1));
            return Some(Rc::clone(chosen));
        }
        let now = Instant::now();
        if self.uneven_until.get().is_some_and(|until| until <= now) {
            self.uneven_until.set(None);
        }
        let healthy = |b: &Backend| !not.contains(&b.address) && b.ejected_until.get().is_none_or(|until| until <= now);
        let untried = |b: &Backend| !not.contains(&b.address);
        // Never all: where every backend is ejected or was tried, the rule gives way.
        self.choose(balance, &random, healthy)
            .or_else(|| self.choose(balance, &random, untried))
            .or_else(|| self.choose(balance, &random, |_| true))
    }

    /// The backend that a cookie or a hash leads to, unless it was tried or is ejected.
    pub(super) fn preferred(
        &self,
        prefer: Prefer,
        not: &[SocketAddr],
        random: impl Fn() -> u64,
    ) -> Option<Rc<Backend>> {
        let now = self.uneven_until.get().map(|_| Instant::now());
        let usable = |b: &&Rc<Backend>| {
            !not.contains(&b.address) && b.ejected_until.get().is_none_or(|until| now.is_some_and(|now| until <= now))
        };
        let chosen = match prefer {
            Prefer::Backend(digest) => self.ready.iter().filter(usable).find(|b| b.digest == digest),
            Prefer::Hash(hash) => self.ready.iter().filter(usable).max_by_key(|b| spread(hash ^ b.digest)),
            Prefer::Subset { hash, size } => {
                let of: SmallVec<[_; 8]> = self.subset(hash, size as usize).filter(usable).collect();
                let draw = if of.len() > 1 { random() as usize % of.len() } else { 0 };
                of.get(draw).copied()
            }
        };
        chosen.cloned()
    }

    /// The set of a hash, as ingress-nginx makes them: `size` after `size`, and the last one filled up from the beginning.
    fn subset(&self, hash: u64, size: usize) -> impl Iterator<Item = &Rc<Backend>> {
        let count = self.ready.len();
        let sets = count.div_ceil(size.max(1));
        let set = (0..sets).max_by_key(|set| spread(hash ^ spread(*set as u64 + 1))).unwrap_or(0);
        // A set that is larger than all there are has each of them once.
        (0..size.min(count)).map(move |at| &self.ready[(set * size + at) % count])
    }

    /// The next in turn: a second try takes its turn as the first one does (golden case 161).
    fn rotate(&self, usable: impl Fn(&Backend) -> bool) -> Option<Rc<Backend>> {
        let (turn, count) = (self.turn.get(), self.ready.len());
        let step = (0..count).find(|step| usable(&self.ready[turn.wrapping_add(*step) % count]))?;
        self.turn.set(turn.wrapping_add(step + 1));
        Some(Rc::clone(&self.ready[turn.wrapping_add(step) % count]))
    }

    /// The better of two. One that nobody has asked counts as middling: all at once would ask a newcomer that is the best by default.
    fn fastest(&self, draw: u64, usable: impl Fn(&Backend) -> bool) -> Option<Rc<Backend>> {
        let count = self.ready.len();
        if count < 2 {
            return self.ready.first().filter(|b| usable(b)).cloned();
        }
        let first = draw as u32 as usize % count;
        let other = (first + 1 + (draw >> 32) as usize % (count - 1)) % count;
        let (a, b) = (&self.ready[first], &self.ready[other]);
        if !usable(a) || !usable(b) {
            return self.rotate(usable);
        }
        let now = Instant::now();
        let score = |backend: &Backend| {
            backend.average.score(now).unwrap_or_else(|| {
                let known: Vec<f64> = self.ready.iter().filter_map(|b| b.average.score(now)).collect();
                known.iter().sum::<f64>() / known.len().max(1) as f64
            })
        };
        Some(Rc::clone(if score(a) <= score(b) { a } else { b }))
    }

    /// Whether a cookie's backend is one of these.
    pub(super) fn has(&self, digest: u64) -> bool {
        self.ready.iter().any(|b| b.digest == digest)
    }

    fn choose(
        &self,
        balance: Balance,
        random: &impl Fn() -> u64,
        usable: impl Fn(&Backend) -> bool,
    ) -> Option<Rc<Backend>> {
        match balance {
            Balance::RoundRobin if self.even => self.rotate(usable),
            Balance::RoundRobin => smooth(&self.ready, usable).cloned(),
            Balance::Ewma => self.fastest(random(), usable),
            Balance::LeastRequest => {
                let load = |b: &Backend| u64::from(b.under_way.get()) * 1_000_000 / u64::from(b.weight.get().max(1));
                let count = self.ready.len();
                if count > LOOK_AT_ALL {
                    let draw = random();
                    let (a, b) = (draw as u32 as usize % count, (draw >> 32) as usize % count);
                    let (a, b) = (&self.ready[a], &self.ready[b]);
                    if usable(a) && usable(b) {
                        return Some(Rc::clone(if load(a) <= load(b) { a } else { b }));
                    }
                }
                // Ties go round, or the first one would take all of a light load.
                let start = self.turn.get();
                self.turn.set(start.wrapping_add(1));
                let rotated = (0..count).map(|i| &self.ready[(start.wrapping_add(i)) % count]);
                rotated.filter(|b| usable(b)).min_by_key(|b| load(b)).cloned()
            }
        }
    }

    /// A connect failure. True if it ejected the backend.
    pub(super) fn failed(&self, backend: &Backend) -> bool {
        let failures = backend.failures.get() + 1;
        backend.failures.set(failures);
        if failures < FAILURES || self.ready.len() < 2 {
            return false;
        }
        let times = backend.ejections.get();
        backend.ejections.set(times.saturating_add(1));
        // One more failure after the time is over ejects again.
        backend.failures.set(FAILURES - 1);
        let until = Instant::now() + EJECTED.saturating_mul(1 << times.min(10)).min(EJECTED_MOST);
        backend.ejected_until.set(Some(until));
        self.uneven_until.set(self.uneven_until.get().max(Some(until)));
        true
    }

    pub(super) fn backends(&self) -> &[Rc<Backend>] {
        &self.ready
    }

    pub(super) fn retire(&self) {
        for backend in &self.ready {
            backend.retire();
        }
    }
}

/// nginx's smooth weighted round robin: everybody gains its weight, the richest is chosen and pays the total.
fn smooth(ready: &[Rc<Backend>], usable: impl Fn(&Backend) -> bool) -> Option<&Rc<Backend>> {
    let mut total = 0;
    let mut best: Option<&Rc<Backend>> = None;
    for backend in ready.iter().filter(|b| usable(b)) {
        let weight = i64::from(backend.weight.get());
        total += weight;
        backend.current.set(backend.current.get() + weight);
        if best.is_none_or(|b| backend.current.get() > b.current.get()) {
            best = Some(backend);
        }
    }
    let best = best?;
    best.current.set(best.current.get() - total);
    Some(best)
}

impl Backend {
    fn new(address: SocketAddr, keep: &Keep) -> Self {
        Self {
            address,
            digest: digest(address),
            weight: Cell::new(1),
            current: Cell::new(0),
            under_way: Cell::new(0),
            average: Average::default(),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            ejected_until: Cell::new(None),
            idle: RefCell::default(),
            h2: RefCell::default(),
            keep: Rc::clone(keep),
            retired: Cell::new(false),
        }
    }

    pub(super) fn connected(&self) {
        if self.failures.get() > 0 {
            self.failures.set(0);
            self.ejections.set(0);
            self.ejected_until.set(None);
        }
    }

    /// The connection used last is the one most likely still open.
    pub(super) fn take_idle(&self) -> Option<Box<Connection>> {
        self.idle.borrow_mut().pop()
    }

    pub(super) fn keep_idle(&self, connection: Box<Connection>) {
        let (mut idle, keep) = (self.idle.borrow_mut(), self.keep.get());
        let room = idle.len() < keep.connections as usize && !keep.idle.is_zero();
        let young = connection.idle_since.saturating_duration_since(connection.since) < keep.life;
        if !self.retired.get() && room && young && connection.requests < keep.requests {
            idle.push(connection);
        }
    }

    /// Closes connections that are idle for too long or that the backend closed.
    pub(super) fn sweep(&self, now: Instant) {
        let keep = self.keep.get();
        self.idle.borrow_mut().retain_mut(|c| now.duration_since(c.idle_since) < keep.idle && !c.looks_closed());
    }

    fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.h2.borrow_mut().take();
    }
}
