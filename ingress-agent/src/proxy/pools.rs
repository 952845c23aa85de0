//! The backends as one worker sees them: whose turn it is, who is ejected, and the idle connections to each. Belongs to
//! a worker alone; a new snapshot replaces only the pools that changed, and backends that stay keep their connections.

mod backend;
mod idle;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::model::route::Balance;
use crate::model::snapshot::{AppProtocol, Pool, PoolName};

use super::budget::Budget;
use super::condition::{Condition, share};
use super::policy::spread;
use super::upstream::io::CompiledUpstream;
pub(super) use backend::{Backend, Lease};
pub(super) use idle::IdleConnections;

/// A pool's number for the life of the process. Never given to another pool, so that a request that is under way with
/// an old route cannot reach a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PoolId(pub(super) u32);

/// This many connect failures in a row eject a backend.
const FAILURES: u32 = 3;
/// For so long at first, twice as long each further time, up to [`EJECTED_MOST`].
const EJECTED: Duration = Duration::from_secs(10);
const EJECTED_MOST: Duration = Duration::from_mins(5);

/// Of an illness that has no end in sight.
const FOR_GOOD: Duration = Duration::from_hours(24 * 365);
/// What the whole share is in smooth weights while some have less.
const RAMP: i64 = 1000;

/// Up to this many backends, least-request looks at all of them; beyond, at two chosen at random.
const LOOK_AT_ALL: usize = 8;

/// In this order: what every request needs stands together.
#[repr(C)]
pub(super) struct WorkerPool {
    turn: Cell<usize>,
    /// Those that take new requests.
    ready: SmallVec<[Rc<Backend>; 3]>,
    pub(super) budget: Budget,
    pub(super) protocol: AppProtocol,
    /// All weights alike: the turn is an index, and no weight need be summed.
    even: bool,
    /// Until when some backend may be left out or have less than its share; before, the fast way is closed.
    uneven_until: Cell<Option<Instant>>,
    pub(super) upstream: Option<Arc<CompiledUpstream>>,
    slow_start: Option<Duration>,
    /// `None`: of no snapshot.
    pub(super) id: Option<PoolId>,
    pub(super) name: PoolName,
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

impl WorkerPool {
    /// `start` makes workers begin at different backends.
    pub(super) fn new(
        id: Option<PoolId>,
        pool: &Pool,
        upstream: Option<&Arc<CompiledUpstream>>,
        condition: &Condition,
        last: Option<&Self>,
        start: usize,
        idle: &Rc<IdleConnections>,
    ) -> Self {
        let protocol = upstream.map_or(pool.app_protocol, |u| u.source.protocol);
        let same_protocol = last.filter(|last| last.protocol == protocol);
        let mut known = same_protocol.map(|last| last.ready.clone()).unwrap_or_default();
        known.sort_by_key(|b| b.address);
        let mut ready = SmallVec::<[Rc<Backend>; 3]>::with_capacity(pool.backends.len());
        for backend in &pool.backends {
            if !backend.takes_new() {
                continue;
            }
            let kept = known.binary_search_by_key(&backend.address, |b| b.address).ok().map(|at| Rc::clone(&known[at]));
            let idle = || idle.of(backend.address, protocol == AppProtocol::Http1);
            let entry = kept.unwrap_or_else(|| Rc::new(Backend::new(backend.address, idle())));
            entry.weight.set(backend.weight);
            entry.ill.set(condition.is_ill(&backend.address));
            if let Some(since) = condition.since(&backend.address) {
                entry.since.set(Some(since));
            }
            ready.push(entry);
        }
        let even = ready.windows(2).all(|pair| pair[0].weight.get() == pair[1].weight.get());
        if !even && last.is_none() {
            // The same sequence, begun elsewhere: advance the smooth weights by `start` turns at most once round.
            let total: u64 = ready.iter().map(|b| u64::from(b.weight.get())).sum();
            for _ in 0..(start as u64 % total.clamp(1, 1024)) {
                smooth(&ready, |b| i64::from(b.weight.get()), |_| true);
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
        let made = Self {
            id,
            name: pool.name.clone(),
            protocol,
            upstream: upstream.cloned(),
            even,
            turn: Cell::new(last.map_or(start, |last| last.turn.get())),
            budget: last.map_or_else(Budget::default, |last| last.budget.clone()),
            slow_start: condition.slow_start,
            uneven_until: Cell::new(None),
            ready,
        };
        made.settle(Instant::now());
        made
    }

    /// Reads where a request finds its backend.
    pub(super) fn look(&self) -> u32 {
        let backend = self.ready.first().map_or(0, |backend| backend.under_way.get());
        self.turn.get() as u32 ^ backend
    }

    /// Finds out until when the fast way is closed.
    fn settle(&self, now: Instant) {
        let until = |b: &Backend| {
            let ill = b.ill.get().then_some(now + FOR_GOOD);
            let ramp = self.slow_start.and_then(|window| Some(b.since.get()? + window));
            ill.max(b.ejected_until.get()).max(ramp)
        };
        self.uneven_until.set(self.ready.iter().filter_map(|b| until(b)).max().filter(|until| *until > now));
    }

    /// What a health check found.
    pub(super) fn found(&self, endpoint: SocketAddr, well: bool, now: Instant) {
        let Ok(at) = self.ready.binary_search_by_key(&endpoint, |b| b.address) else { return };
        let backend = &self.ready[at];
        if backend.ill.replace(!well) && well && self.slow_start.is_some() {
            backend.since.set(Some(now));
        }
        self.settle(now);
    }

    /// Another worker ejected it.
    pub(super) fn ejected(&self, endpoint: SocketAddr, until: Instant) {
        if let Ok(at) = self.ready.binary_search_by_key(&endpoint, |b| b.address) {
            self.eject(&self.ready[at], until);
        }
    }

    fn eject(&self, backend: &Backend, until: Instant) {
        backend.ejections.set(backend.ejections.get().saturating_add(1));
        // One more failure after the time is over ejects again.
        backend.failures.set(FAILURES - 1);
        backend.ejected_until.set(Some(until));
        let mut uneven = until;
        if let Some(window) = self.slow_start {
            backend.since.set(Some(until));
            uneven += window;
        }
        self.uneven_until.set(self.uneven_until.get().max(Some(uneven)));
    }

    /// Which part of what others get.
    fn share(&self, backend: &Backend, now: Instant) -> f64 {
        match (self.slow_start, backend.since.get()) {
            (Some(window), Some(since)) => share(since, window, now),
            _ => 1.0,
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
        let well = |b: &Backend| {
            !not.contains(&b.address) && !b.ill.get() && b.ejected_until.get().is_none_or(|until| until <= now)
        };
        let untried = |b: &Backend| !not.contains(&b.address);
        let ramping = self.slow_start.is_some() && self.ready.iter().any(|b| self.share(b, now) < 1.0);
        let ramp = ramping.then_some(now);
        if ramping && balance != Balance::RoundRobin {
            // A newcomer is asked about as often as its share says, and then stands beside the others as it is: by load alone one that
            // is idle would get everything, and by load over a small weight nothing until others are busy.
            let draw = random();
            let admitted = |b: &Backend| {
                let part = self.share(b, now);
                well(b) && (part >= 1.0 || (spread(draw ^ b.digest) >> 11) as f64 / (1_u64 << 53) as f64 <= part)
            };
            if let Some(chosen) = self.choose(balance, &random, ramp, admitted) {
                return Some(chosen);
            }
        }
        // Never all: where every backend is ill, ejected or was tried, the rule gives way.
        self.choose(balance, &random, ramp, well)
            .or_else(|| self.choose(balance, &random, ramp, untried))
            .or_else(|| self.choose(balance, &random, ramp, |_| true))
    }

    /// The backend that a cookie or a hash leads to, unless it was tried or is ejected.
    pub(super) fn preferred(
        &self,
        prefer: Prefer,
        not: &[SocketAddr],
        random: impl Fn() -> u64,
    ) -> Option<Rc<Backend>> {
        let now = self.uneven_until.get().map(|_| Instant::now());
        let usable = |b: &Backend| {
            !not.contains(&b.address)
                && !b.ill.get()
                && b.ejected_until.get().is_none_or(|until| now.is_some_and(|now| until <= now))
        };
        // Where nobody is well, everybody is asked, and a client stays with his.
        let any = now.is_some() && !self.ready.iter().any(|b| usable(b));
        let fit = |b: &&Rc<Backend>| usable(b) || any && !not.contains(&b.address);
        let chosen = match prefer {
            Prefer::Backend(digest) => self.ready.iter().filter(fit).find(|b| b.digest == digest),
            Prefer::Hash(hash) => self.ready.iter().filter(fit).max_by_key(|b| spread(hash ^ b.digest)),
            Prefer::Subset { hash, size } => {
                let of: SmallVec<[_; 8]> = self.subset(hash, size as usize).filter(fit).collect();
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
        ramp: Option<Instant>,
        usable: impl Fn(&Backend) -> bool,
    ) -> Option<Rc<Backend>> {
        match balance {
            Balance::RoundRobin if self.even && ramp.is_none() => self.rotate(usable),
            Balance::RoundRobin => {
                let part = |b: &Backend| ramp.map_or(RAMP, |now| (self.share(b, now) * RAMP as f64) as i64);
                let scaled = |b: &Backend| i64::from(b.weight.get()) * part(b);
                let plain = |b: &Backend| i64::from(b.weight.get());
                // One scale for all of a pool's life: what was gained before a slow start is in it.
                if self.slow_start.is_some() {
                    smooth(&self.ready, scaled, usable).cloned()
                } else {
                    smooth(&self.ready, plain, usable).cloned()
                }
            }
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

    /// A connect failure. Until when it ejected the backend, if it did.
    pub(super) fn failed(&self, backend: &Backend) -> Option<Instant> {
        let failures = backend.failures.get() + 1;
        backend.failures.set(failures);
        if failures < FAILURES || self.ready.len() < 2 {
            return None;
        }
        let times = backend.ejections.get();
        let until = Instant::now() + EJECTED.saturating_mul(1 << times.min(10)).min(EJECTED_MOST);
        self.eject(backend, until);
        Some(until)
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
fn smooth(
    ready: &[Rc<Backend>],
    weight: impl Fn(&Backend) -> i64,
    usable: impl Fn(&Backend) -> bool,
) -> Option<&Rc<Backend>> {
    let mut total = 0;
    let mut best: Option<&Rc<Backend>> = None;
    for backend in ready.iter().filter(|b| usable(b)) {
        let weight = weight(backend);
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
