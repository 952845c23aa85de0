//! Getting one request answered by some backend of a pool: whose turn, which connection, and what to do when that fails.
//! A request is sent a second time only if no backend can have acted on the first.

pub(super) mod io;

pub(super) mod response;

pub(super) mod h1;

pub(super) mod h2;

use std::future::Future;
use std::io::Result as IoResult;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use smallvec::SmallVec;

use super::body::{Kind, RequestBody};
use super::deadline::Deadline;
use super::metrics::UpstreamError;
use super::pools::{Backend, Lease, WorkerPool};
use super::request::Outgoing;
use super::terms::Terms;
use super::worker::Worker;
use crate::model::policy::{RetryBudget, RetryOn};
use crate::model::route::Balance;
use crate::model::snapshot::AppProtocol;
use h1::{Connection, Exchange, Failed};

/// Why there is no answer from a backend. Each becomes a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NoBackend,
    Connect,
    ConnectTimeout,
    /// Closed before the first byte of a response.
    Reset,
    ReadTimeout,
    SendTimeout,
    RequestTimeout,
    BadResponse(&'static str),
    /// The request's body, not the backend.
    TooLarge,
    Client,
}

impl Failure {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect | Self::Reset | Self::BadResponse(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::ReadTimeout | Self::SendTimeout | Self::RequestTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Client => StatusCode::BAD_REQUEST,
        }
    }

    const fn counted(self) -> Option<UpstreamError> {
        Some(match self {
            Self::NoBackend => UpstreamError::NoBackend,
            Self::Connect => UpstreamError::Connect,
            Self::ConnectTimeout => UpstreamError::ConnectTimeout,
            Self::Reset => UpstreamError::Reset,
            Self::ReadTimeout => UpstreamError::ReadTimeout,
            Self::SendTimeout => UpstreamError::SendTimeout,
            Self::RequestTimeout => UpstreamError::RequestTimeout,
            Self::BadResponse(_) => UpstreamError::BadResponse,
            Self::TooLarge | Self::Client => return None,
        })
    }
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) kind: Kind,
    /// 101: the connection, no longer HTTP, with the lease that counts it.
    pub(super) tunnel: Option<(Box<Connection>, Lease)>,
}

/// What became of the attempts, for the access log.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) backend: Option<SocketAddr>,
    pub(super) received: u64,
    /// Whether anybody wants to know how long connecting took.
    pub(super) timed: bool,
    /// That time; 0 where a connection was open.
    pub(super) connecting: Duration,
}

pub(super) async fn ask(
    worker: &Rc<Worker>,
    pool: &WorkerPool,
    terms: &Terms,
    outgoing: &Outgoing<'_>,
    body: RequestBody,
    trace: &mut Trace,
) -> Result<Answer, Failure> {
    let result = attempts(worker, pool, terms, outgoing, body, trace).await;
    if let Err(failure) = &result
        && let Some(kind) = failure.counted()
    {
        worker.counters.errors[kind as usize].add(1);
        tracing::debug!(pool = %pool.name, backend = ?trace.backend, ?failure, "no answer from a backend");
    }
    result
}

async fn attempts(
    worker: &Rc<Worker>,
    pool: &WorkerPool,
    terms: &Terms,
    outgoing: &Outgoing<'_>,
    mut body: RequestBody,
    trace: &mut Trace,
) -> Result<Answer, Failure> {
    let mut deadline = Deadline::new(&worker.deadlines);
    deadline.limit(terms.timeouts.request);
    let budget = terms.policy.as_ref().map_or_else(RetryBudget::default, |policy| policy.retry_budget);
    pool.budget.add(budget);
    let mut tries = Tries { worker, pool, terms, budget, tried: SmallVec::new(), began: None };
    // RFC 9110 §9.2.2: only these may be sent again without knowing what became of the first.
    let idempotent = idempotent(outgoing.method());
    let repeatable = idempotent && body.is_empty();
    let on = terms.policy.as_ref().map(|policy| policy.retry_on);
    let again = on.is_some_and(|on| idempotent || on.non_idempotent);
    let kept = if again { body.kept().cloned() } else { None };
    loop {
        let preferred = outgoing.prefer.and_then(|prefer| pool.preferred(prefer, &tries.tried, || worker.random()));
        let picked = preferred.or_else(|| pool.pick(terms.balance, &tries.tried, || worker.random()));
        let backend = picked.ok_or(Failure::NoBackend)?;
        trace.backend = Some(backend.address);
        if pool.protocol == AppProtocol::H2c {
            let began = trace.timed.then(Instant::now);
            match h2::sender(&backend, pool.upstream.as_deref(), &deadline, terms.timeouts.connect).await {
                Ok(sender) => {
                    trace.connecting = began.map_or(Duration::ZERO, |began| began.elapsed());
                    return h2::exchange(sender, outgoing, body, deadline, terms.timeouts, Lease::new(backend)).await;
                }
                Err(failure) => {
                    tries.after_connect(&backend, failure)?;
                    deadline = again_within(worker, terms, deadline, failure);
                }
            }
            continue;
        }
        let mut idle = backend.take_idle();
        loop {
            // A request that cannot be repeated asks the kernel first whether the backend has closed.
            let (connection, reused) = match idle.take() {
                Some(connection) if repeatable || !connection.peer_closed() => (connection, true),
                _ => match connect(&backend, pool, &deadline, terms, trace).await {
                    Ok(connection) => (connection, false),
                    Err(failure) => {
                        tries.after_connect(&backend, failure)?;
                        deadline = again_within(worker, terms, deadline, failure);
                        break;
                    }
                },
            };
            let lease = Lease::new(Rc::clone(&backend));
            let asked = (terms.balance == Balance::Ewma).then(Instant::now);
            match exchange(connection, outgoing, body, deadline, terms, lease, trace).await {
                Ok(answer) => {
                    if let Some(asked) = asked {
                        let now = Instant::now();
                        backend.average.observe(now.saturating_duration_since(asked), now);
                    }
                    let unwanted = again && on.is_some_and(|on| on.status(answer.status));
                    let next = || {
                        let whole = kept.as_ref().and_then(RequestBody::again);
                        whole.or_else(|| repeatable.then(RequestBody::empty))
                    };
                    let Some(next) = unwanted.then(next).flatten().filter(|_| tries.another(&backend, Cost::Budget))
                    else {
                        return Ok(answer);
                    };
                    body = next;
                    deadline = Deadline::new(&worker.deadlines);
                    deadline.limit(terms.timeouts.request);
                    break;
                }
                // RFC 9112 §9.3.1: the backend closed an idle connection just as we used it.
                Err(Failed { failure: Failure::Reset, body: b, deadline: d }) if reused && repeatable && !b.begun => {
                    worker.counters.retries.add(1);
                    body = b;
                    deadline = d;
                    // The other idle connections are likely as dead; the loop opens a new one.
                }
                Err(Failed { failure, body: mut b, .. }) => {
                    let wanted = again && on.is_some_and(|on| retries(on, failure)) && b.begin_again();
                    // A connection that was closed while it was idle is no backend's answer to load.
                    let cost = if reused && failure == Failure::Reset { Cost::Free } else { Cost::Budget };
                    if !wanted || !tries.another(&backend, cost) {
                        return Err(failure);
                    }
                    body = b;
                    deadline = Deadline::new(&worker.deadlines);
                    deadline.limit(terms.timeouts.request);
                    break;
                }
            }
        }
    }
}

/// A limit that was reached stays reached: the next try has its own. The whole request's limit is never renewed.
fn again_within(worker: &Worker, terms: &Terms, deadline: Deadline, failure: Failure) -> Deadline {
    if failure == Failure::ConnectTimeout && terms.timeouts.request.is_none() {
        return Deadline::new(&worker.deadlines);
    }
    deadline
}

/// Whether nginx's words cover a failure.
fn retries(on: RetryOn, failure: Failure) -> bool {
    match failure {
        Failure::Connect | Failure::Reset => on.error,
        Failure::ConnectTimeout | Failure::ReadTimeout | Failure::SendTimeout => on.timeout,
        Failure::BadResponse(_) => on.invalid_header,
        Failure::NoBackend | Failure::RequestTimeout | Failure::TooLarge | Failure::Client => false,
    }
}

/// Whether a try is one of those that may double a load. What never reached a backend is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    Free,
    Budget,
}

/// What was tried for one request.
struct Tries<'a> {
    worker: &'a Worker,
    pool: &'a WorkerPool,
    terms: &'a Terms,
    budget: RetryBudget,
    tried: SmallVec<[SocketAddr; 4]>,
    /// When the first of them ended.
    began: Option<Instant>,
}

impl Tries<'_> {
    /// Decides after a failure to connect: `Ok` is another try.
    fn after_connect(&mut self, backend: &Backend, failure: Failure) -> Result<(), Failure> {
        if failure == Failure::RequestTimeout {
            return Err(failure);
        }
        if let Some(until) = self.pool.failed(backend) {
            self.worker.ejected(self.pool, backend, until);
        }
        // Nothing has reached a backend, so any request may try again.
        let wanted = self.terms.policy.as_ref().is_none_or(|policy| retries(policy.retry_on, failure));
        if wanted && self.another(backend, Cost::Free) { Ok(()) } else { Err(failure) }
    }

    fn another(&mut self, backend: &Backend, cost: Cost) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.tried.push(backend.address);
        let policy = self.terms.policy.as_ref();
        // ingress-nginx asks a lone backend as often as several.
        let others = policy.is_some() || self.tried.len() < self.pool.backends().len();
        let in_time = policy.and_then(|p| p.retry_on.within).is_none_or(|within| began.elapsed() < within);
        let more = (self.tried.len() as u32) < self.terms.retry.tries.max(1) && others && in_time;
        if !more {
            return false;
        }
        if cost == Cost::Budget && !self.pool.budget.take(self.budget, Instant::now()) {
            self.worker.counters.over_budget.add(1);
            return false;
        }
        self.worker.counters.retries.add(1);
        true
    }
}

async fn exchange(
    mut connection: Box<Connection>,
    outgoing: &Outgoing<'_>,
    body: RequestBody,
    deadline: Deadline,
    terms: &Terms,
    lease: Lease,
    trace: &mut Trace,
) -> Result<Answer, Failed> {
    connection.out.clear();
    outgoing.write_head(&mut connection.out, &body);
    let (head, exchange) =
        Exchange::new(connection, body, deadline, terms.timeouts, lease).head(outgoing.method()).await?;
    trace.received = exchange.received();
    let (status, headers) = (head.status, head.headers);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer { status, headers, kind: Kind::Empty, tunnel: exchange.into_tunnel() });
    }
    Ok(Answer { status, headers, kind: exchange.into_body(), tunnel: None })
}

async fn connect(
    backend: &Backend,
    pool: &WorkerPool,
    deadline: &Deadline,
    terms: &Terms,
    trace: &mut Trace,
) -> Result<Box<Connection>, Failure> {
    let began = trace.timed.then(Instant::now);
    deadline.arm(Some(terms.timeouts.connect));
    let io = match pool.protocol {
        AppProtocol::Https => within(deadline, io::tls(backend.address, pool.upstream.as_deref())).await?,
        AppProtocol::Http1 | AppProtocol::H2c => within(deadline, io::tcp(backend.address)).await?,
    };
    backend.connected();
    trace.connecting = began.map_or(Duration::ZERO, |began| began.elapsed());
    Ok(Box::new(Connection::new(io)))
}

/// `future` unless the deadline comes first.
async fn within<T>(deadline: &Deadline, future: impl Future<Output = IoResult<T>>) -> Result<T, Failure> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(result) => std::task::Poll::Ready(result.map_err(|_| Failure::Connect)),
        std::task::Poll::Pending if deadline.over(cx) => std::task::Poll::Ready(Err(if deadline.total_over() {
            Failure::RequestTimeout
        } else {
            Failure::ConnectTimeout
        })),
        std::task::Poll::Pending => std::task::Poll::Pending,
    })
    .await
}

pub(super) fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}
