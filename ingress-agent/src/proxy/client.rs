//! One client connection as its worker knows it: who it is, which listener it came to, how long it has been waiting for
//! what, and what it has been told to do. Bytes pass through [`ClientIo`], which judges and counts them.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderName, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Limits;
use super::compile::CompiledListener;
use super::framing::{Framing, Judgement, Phase, Violation};
use super::odd::Odd;
use super::policy::{Mutual, Reply};
use super::pools::Lease;
use super::request::forwarded_block;
use super::small_write;
use super::upstream::h1::Connection;
use super::worker::Worker;

/// A write of so many bytes carries more than acknowledgements.
const DATA_LEAST: usize = 64;

pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: IpAddr,
    pub(super) peer_value: HeaderValue,
    /// A PROXY header may have said so.
    pub(super) told: bool,
    /// The address and port that it connected to.
    pub(super) listener: SocketAddr,
    pub(super) port_value: HeaderValue,
    pub(super) port_text: Box<str>,
    pub(super) tls: bool,
    /// The name that it asked a certificate for.
    pub(super) server_name: Option<Box<str>>,
    /// Leaf first; empty where it showed none.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    judged: RefCell<Option<Judged>>,
    pub(super) forwarded_block: Vec<u8>,
    /// The listener as of a generation; looked up again when that has passed.
    compiled: RefCell<(u64, Arc<CompiledListener>)>,
    /// Requests that hyper has handed over on an HTTP/1 connection.
    pub(super) requests: Cell<u32>,
    pub(super) bad_head: Cell<Option<(u32, Violation)>>,
    /// Targets that hyper does not see as they are, by the numbers of their requests.
    odd: RefCell<Vec<(u32, Box<Odd>)>>,
    /// Requests in all.
    count: Cell<u32>,
    /// Requests under way.
    pub(super) under_way: Cell<u32>,
    pub(super) tunnel: RefCell<Option<(Box<Connection>, Lease)>>,
    /// How long a tunnel may be silent: the read limit of its route.
    pub(super) tunnel_idle: Cell<Option<std::time::Duration>>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    waiting: Waiting,
}

/// What a host of a generation made of the client's certificate.
struct Judged {
    generation: u64,
    host: *const Mutual,
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// What a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Serve,
    /// Let the client know with the next answer that the connection ends with it. An idle one stays open: a request may be on its way.
    Last,
    /// Finish what is under way, then close.
    Finish,
    Abort,
}

/// Since when (milliseconds of the worker) the client owes us something.
struct Waiting {
    phase: Cell<Phase>,
    /// When the phase began or, in a body, bytes last came.
    since: Cell<u64>,
    reading: Cell<bool>,
    stuck_writing: Cell<Option<u64>>,
    /// A first request has come: the keep-alive limit applies, no longer that of the first head.
    greeted: Cell<bool>,
    /// Bodies that gave a frame and were not asked for another since, and when any was asked last. HTTP/2 clients can
    /// stop the flow of a stream while the connection looks alive (CVE-2019-9517).
    owed: Cell<u32>,
    asked: Cell<u64>,
}

impl Client {
    pub(super) fn new(
        worker: Rc<Worker>,
        (peer, told): (IpAddr, bool),
        listener: SocketAddr,
        compiled: (u64, Arc<CompiledListener>),
        server_name: Option<Box<str>>,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Self {
        let tls = compiled.1.secure;
        let scheme = if tls { "https" } else { "http" };
        let (peer_text, port_text) = (peer.to_string(), listener.port().to_string());
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let now = worker.deadlines.now();
        Self {
            peer,
            peer_value: value(&peer_text),
            told,
            listener,
            port_value: value(&port_text),
            tls,
            server_name,
            certificates,
            judged: RefCell::default(),
            forwarded_block: forwarded_block(&peer_text, &port_text, scheme),
            port_text: port_text.into(),
            compiled: RefCell::new(compiled),
            requests: Cell::new(0),
            bad_head: Cell::new(None),
            odd: RefCell::default(),
            count: Cell::new(0),
            under_way: Cell::new(0),
            tunnel: RefCell::default(),
            tunnel_idle: Cell::new(None),
            order: Cell::new(Order::Serve),
            waker: RefCell::default(),
            waiting: Waiting {
                phase: Cell::new(Phase::Idle),
                since: Cell::new(now),
                reading: Cell::new(false),
                stuck_writing: Cell::new(None),
                greeted: Cell::new(false),
                owed: Cell::new(0),
                asked: Cell::new(now),
            },
            worker,
        }
    }

    pub(super) const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The listener that serves this connection now; one that was removed goes on for those it has.
    pub(super) fn compiled(&self) -> Arc<CompiledListener> {
        let generation = self.worker.generation.get();
        let mut known = self.compiled.borrow_mut();
        if known.0 != generation {
            known.0 = generation;
            if let Some(current) = self.worker.routing.borrow().listeners.get(&self.listener)
                && current.secure == self.tls
            {
                known.1 = Arc::clone(current);
            }
        }
        Arc::clone(&known.1)
    }

    /// Judges the client's certificate, once for each host and generation.
    pub(super) fn certificate_for(&self, host: &Mutual) -> Result<Vec<(HeaderName, HeaderValue)>, Reply> {
        let (generation, key) = (self.worker.generation.get(), std::ptr::from_ref(host));
        if let Some(judged) = &*self.judged.borrow()
            && judged.generation == generation
            && judged.host == key
        {
            return Ok(judged.fields.clone());
        }
        let fields = host.check(&self.certificates)?;
        self.judged.replace(Some(Judged { generation, host: key, fields: fields.clone() }));
        Ok(fields)
    }

    /// The target of that request (from 0) as it was sent, where it has odd bytes. Those of requests before it are forgotten.
    pub(super) fn odd_target(&self, request: u32) -> Option<Box<Odd>> {
        let mut odd = self.odd.borrow_mut();
        if odd.is_empty() {
            return None;
        }
        let at = odd.iter().position(|(number, _)| *number == request);
        let found = at.map(|at| odd.swap_remove(at).1);
        odd.retain(|(number, _)| number.wrapping_sub(request) < u32::MAX / 2);
        found
    }

    pub(super) fn tell(&self, order: Order) {
        self.order.set(self.order.get().max(order));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The order, and whom to wake when it changes.
    pub(super) fn order(&self, cx: &Context<'_>) -> Order {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            // A task's waker stays the same; the connection is polled by one task all its life.
            *waker = Some(cx.waker().clone());
        }
        self.order.get()
    }

    /// Whether an answer is the last one on an HTTP/1 connection, and has to say so (RFC 9112 §9.6).
    pub(super) fn says_last(&self) -> bool {
        self.order.get() >= Order::Last
    }

    /// Whether the client has kept us waiting for too long.
    pub(super) fn overdue(&self, now: u64, limits: &Limits) -> Option<Order> {
        let w = &self.waiting;
        let known = self.compiled.borrow();
        let own = &known.1.settings.client;
        let over = |since: u64, limit: std::time::Duration| now.saturating_sub(since) >= limit.as_millis() as u64;
        if w.stuck_writing.get().is_some_and(|since| over(since, limits.client_send)) {
            return Some(Order::Abort);
        }
        if w.owed.get() > 0 && over(w.asked.get(), limits.client_send) {
            return Some(Order::Abort);
        }
        match w.phase.get() {
            Phase::Idle if self.under_way.get() > 0 => None,
            Phase::Idle if w.greeted.get() => {
                over(w.since.get(), own.keep_alive.unwrap_or(limits.keep_alive)).then_some(Order::Finish)
            }
            Phase::Idle | Phase::Head => {
                over(w.since.get(), own.header.unwrap_or(limits.header)).then_some(Order::Abort)
            }
            Phase::Body if w.reading.get() => {
                over(w.since.get(), own.body.unwrap_or(limits.client_body)).then_some(Order::Abort)
            }
            Phase::Body => None,
        }
    }

    /// Requests of this connection so far.
    pub(super) fn answered(&self) -> u32 {
        self.count.get()
    }

    pub(super) fn request_begun(&self) {
        self.count.set(self.count.get().saturating_add(1));
        self.under_way.set(self.under_way.get() + 1);
        self.waiting.greeted.set(true);
    }

    /// A response's body was asked for a frame; `owed` says whether it had given one before.
    pub(super) fn body_asked(&self, owed: bool) {
        let waiting = &self.waiting;
        waiting.asked.set(self.worker.deadlines.now());
        if owed {
            waiting.owed.set(waiting.owed.get().saturating_sub(1));
        }
    }

    pub(super) fn body_gave(&self) {
        self.waiting.owed.set(self.waiting.owed.get() + 1);
    }

    pub(super) fn request_done(&self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        if self.under_way.get() == 0 {
            self.waiting.since.set(self.worker.deadlines.now());
        }
    }
}

/// The client's byte stream between the socket (or TLS) and hyper.
pub(super) struct ClientIo<T> {
    pub(super) inner: T,
    client: Rc<Client>,
    /// `None` for HTTP/2, which frames by itself.
    framing: Option<Framing>,
}

impl<T> ClientIo<T> {
    pub(super) fn new(inner: T, client: Rc<Client>, http1: bool) -> Self {
        let limits = client.compiled().settings.head;
        Self { inner, client, framing: http1.then(|| Framing::new(limits)) }
    }

    fn came(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let client = &self.client;
        client.worker.counters.bytes_in.add(bytes.len() as u64);
        let waiting = &client.waiting;
        // In HTTP/2, requests say whether a connection is used; a PING does not.
        let Some(framing) = &mut self.framing else { return Ok(()) };
        match framing.feed(bytes) {
            Judgement::Fine => {}
            Judgement::BadHead(number, violation) => client.bad_head.set(Some((number, violation))),
            Judgement::BadBody(violation) => {
                tracing::debug!(peer = %client.peer, ?violation, "request body refused");
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the request's framing is malformed"));
            }
        }
        if !framing.found_odd.is_empty() {
            client.odd.borrow_mut().append(&mut framing.found_odd);
        }
        let phase = framing.phase();
        // A head's time counts from its first byte, so that a slow one cannot stretch it byte by byte.
        if phase != waiting.phase.get() || phase != Phase::Head {
            waiting.phase.set(phase);
            waiting.since.set(client.worker.deadlines.now());
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> Read for ClientIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // SAFETY: `ReadBuf::uninit` only ever writes initialised bytes into the cursor's memory and never reads what it
        // has not written, which is what `ReadBufCursor::as_mut` asks for.
        let mut buffer = ReadBuf::uninit(unsafe { buf.as_mut() });
        match Pin::new(&mut this.inner).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                this.client.waiting.reading.set(false);
                this.came(buffer.filled_mut())?;
                let count = buffer.filled().len();
                // SAFETY: the first `count` bytes have been initialised by the inner read.
                unsafe { buf.advance(count) };
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let waiting = &this.client.waiting;
                if !waiting.reading.replace(true) && waiting.phase.get() == Phase::Body {
                    waiting.since.set(this.client.worker.deadlines.now());
                }
                Poll::Pending
            }
        }
    }
}

impl<T> ClientIo<T> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let waiting = &self.client.waiting;
        match &result {
            Poll::Ready(Ok(count)) => {
                self.client.worker.counters.bytes_out.add(*count as u64);
                waiting.stuck_writing.set(None);
                // A slow reader that takes its data is not stalled; acknowledging its PING (17 bytes) proves nothing.
                if *count >= DATA_LEAST {
                    waiting.asked.set(self.client.worker.deadlines.now());
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if waiting.stuck_writing.get().is_none() {
                    waiting.stuck_writing.set(Some(self.client.worker.deadlines.now()));
                }
            }
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> Write for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = small_write::poll_write(Pin::new(&mut self.inner), cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.tunnel.borrow().is_some() {
            // The connection goes on as a tunnel; hyper is done with it.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
