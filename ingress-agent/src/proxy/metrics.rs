//! What the proxy counts. Each worker writes its own counters with plain loads and stores; readers add them up when
//! asked. Nothing here is shared for writing, so counting costs no cache line between cores.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::meter::{List, Meter};
use crate::model::measure::{Bounds, Series};
use crate::model::snapshot::ObjectName;
use crate::model::traffic::EndpointHealth;

/// Upper bounds of the latency histogram in microseconds; a last bucket takes the rest.
pub const LATENCY_BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        // One writer: a load and a store, not a locked addition.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one worker that belong to no route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerCounters {
    pub(super) connections: Counter,
    pub(super) open: Counter,
    pub(super) handshakes: Counter,
    pub(super) handshake_failures: Counter,
    pub(super) passed_through: Counter,
    pub(super) proxy_header_failures: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) unrouted: [Counter; 6],
    pub(super) errors: [Counter; UpstreamError::ALL.len()],
    pub(super) retries: Counter,
    pub(super) ejections: Counter,
    pub(super) over_budget: Counter,
    pub(super) log_lines_lost: Counter,
    /// Where requests are measured: those under way, and all that ended.
    pub(super) metering: Counter,
    pub(super) metered: Counter,
}

/// Counters of one route in one worker. A request meets two cache lines of it, most likely for the first time in a while.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct RouteCounters {
    by_class: [Counter; 6],
    latency_sum: Counter,
    bytes_out: Counter,
    latency: [Counter; LATENCY_BOUNDS.len() + 1],
    series: List,
}

impl RouteCounters {
    /// Reads the two lines that a request of the usual kind counts in.
    pub(super) fn look(&self) -> u64 {
        self.by_class[class(200)].value() ^ self.latency[0].value()
    }

    /// Called by their worker only, with how long the request took until when.
    pub(super) fn record(
        &self,
        status: u16,
        (took, now): (Duration, Instant),
        bytes_out: u64,
        meter: Option<(&Meter, &Bounds)>,
    ) {
        self.by_class[class(status)].add(1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS.iter().position(|&bound| micros <= bound).unwrap_or(LATENCY_BOUNDS.len());
        self.latency[bucket].add(1);
        self.latency_sum.add(micros);
        self.bytes_out.add(bytes_out);
        if let Some((meter, bounds)) = meter {
            self.series.record(meter, bounds, status, (took, now), bytes_out);
        }
    }
}

/// Whose route it is, and which.
pub(super) type RouteName = Arc<(ObjectName, String)>;

/// Counters of one route, a slot a worker, made when first used: most of 10,000 routes see no traffic on most cores.
#[derive(Debug)]
pub(super) struct RouteStats {
    pub(super) of: RouteName,
    workers: Box<[OnceLock<Arc<RouteCounters>>]>,
}

/// What went wrong between the proxy and a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    Connect,
    ConnectTimeout,
    Reset,
    ReadTimeout,
    SendTimeout,
    RequestTimeout,
    BadResponse,
    NoBackend,
}

impl UpstreamError {
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Reset,
        Self::ReadTimeout,
        Self::SendTimeout,
        Self::RequestTimeout,
        Self::BadResponse,
        Self::NoBackend,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::ReadTimeout => "read_timeout",
            Self::SendTimeout => "send_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::BadResponse => "bad_response",
            Self::NoBackend => "no_backend",
        }
    }
}

/// A reading of all counters, since the start of the process.
#[derive(Clone, Debug, Default)]
pub struct HttpTraffic {
    /// Generation that every worker serves.
    pub generation: u64,
    pub connections: u64,
    pub open_connections: u64,
    pub tls_handshakes: u64,
    pub tls_handshake_failures: u64,
    pub passed_through: u64,
    pub proxy_header_failures: u64,
    /// Bytes on the wire from and to clients.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Answers without a route (404, 400, …) by the first digit of the status; index 0 is unused.
    pub unrouted: [u64; 6],
    /// In the order of [`UpstreamError::ALL`].
    pub upstream_errors: [u64; UpstreamError::ALL.len()],
    pub retries: u64,
    pub ejections: u64,
    /// Tries that there would have been, but for the budget.
    pub over_budget: u64,
    pub log_lines_lost: u64,
    /// Where requests are measured: those under way, and all that ended.
    pub metering: u64,
    pub metered: u64,
    /// Routes of the snapshot that have seen a request.
    pub routes: Vec<RouteTraffic>,
    pub health: Vec<EndpointHealth>,
}

#[derive(Clone, Debug)]
pub struct RouteTraffic {
    pub owner: ObjectName,
    pub rule: String,
    /// By the first digit of the status; index 0 counts requests that the client gave up before any answer.
    pub by_class: [u64; 6],
    /// Requests per bucket of [`LATENCY_BOUNDS`] (not cumulative), the last one without bound.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
    pub latency_sum: Duration,
    pub bytes_out: u64,
    /// Where requests are measured.
    pub series: Vec<Series>,
}

impl RouteStats {
    pub(super) fn new(of: RouteName, workers: usize) -> Self {
        Self { of, workers: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    /// Those of a worker.
    pub(super) fn counters(&self, worker: usize) -> Arc<RouteCounters> {
        self.workers.get(worker).map(|slot| Arc::clone(slot.get_or_init(Arc::default))).unwrap_or_default()
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn read(&self) -> Option<RouteTraffic> {
        let mut sum = RouteTraffic {
            owner: self.of.0.clone(),
            rule: self.of.1.clone(),
            by_class: [0; 6],
            latency: [0; LATENCY_BOUNDS.len() + 1],
            latency_sum: Duration::ZERO,
            bytes_out: 0,
            series: Vec::new(),
        };
        let mut used = false;
        for counters in self.workers.iter().filter_map(OnceLock::get) {
            used = true;
            add_all(&mut sum.by_class, &counters.by_class);
            add_all(&mut sum.latency, &counters.latency);
            sum.latency_sum += Duration::from_micros(counters.latency_sum.value());
            sum.bytes_out += counters.bytes_out.value();
            counters.series.read_into(&mut sum.series);
        }
        used.then_some(sum)
    }
}

/// First digit of a status, 0 for anything that is not one.
pub(super) fn class(status: u16) -> usize {
    match status / 100 {
        digit @ 1..=5 => digit as usize,
        _ => 0,
    }
}

fn add_all(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.value();
    }
}

impl HttpTraffic {
    pub(super) fn read(workers: &[Arc<WorkerCounters>]) -> Self {
        let mut sum = Self::default();
        for w in workers {
            sum.connections += w.connections.value();
            sum.open_connections += w.open.value();
            sum.tls_handshakes += w.handshakes.value();
            sum.tls_handshake_failures += w.handshake_failures.value();
            sum.passed_through += w.passed_through.value();
            sum.proxy_header_failures += w.proxy_header_failures.value();
            sum.bytes_in += w.bytes_in.value();
            sum.bytes_out += w.bytes_out.value();
            add_all(&mut sum.unrouted, &w.unrouted);
            add_all(&mut sum.upstream_errors, &w.errors);
            sum.retries += w.retries.value();
            sum.ejections += w.ejections.value();
            sum.over_budget += w.over_budget.value();
            sum.log_lines_lost += w.log_lines_lost.value();
            sum.metering += w.metering.value();
            sum.metered += w.metered.value();
        }
        sum
    }
}
