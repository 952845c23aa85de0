//! One backend as one worker sees it: what is under way there, how it fared, and its idle connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::proxy::ewma::Average;
use crate::proxy::policy::digest;
use crate::proxy::upstream::h1::Connection;
use crate::proxy::upstream::h2::Shared;

/// Connections kept to one backend, for so long, for so many requests: ingress-nginx's `upstream-keepalive-*`.
const IDLE_MOST: usize = 320;
const IDLE_FOR: Duration = Duration::from_mins(1);
const REQUESTS_MOST: u32 = 10_000;

pub(in crate::proxy) struct Backend {
    pub(in crate::proxy) address: SocketAddr,
    pub(super) digest: u64,
    pub(super) weight: Cell<u32>,
    pub(super) current: Cell<i64>,
    pub(super) under_way: Cell<u32>,
    /// How fast it answers, where somebody chooses by that.
    pub(in crate::proxy) average: Average,
    pub(super) failures: Cell<u32>,
    pub(super) ejections: Cell<u32>,
    pub(super) ejected_until: Cell<Option<Instant>>,
    /// It fails its health check.
    pub(super) ill: Cell<bool>,
    /// When its slow start began, or will.
    pub(super) since: Cell<Option<Instant>>,
    #[expect(clippy::vec_box, reason = "a connection moves between here and each exchange: a pointer, not its bytes")]
    idle: RefCell<Vec<Box<Connection>>>,
    pub(in crate::proxy) h2: RefCell<Option<Shared>>,
    /// No longer in any snapshot, or draining: finished connections are not kept.
    retired: Cell<bool>,
}

/// One request under way at a backend.
pub(in crate::proxy) struct Lease(pub(in crate::proxy) Rc<Backend>);

impl Lease {
    pub(in crate::proxy) fn new(backend: Rc<Backend>) -> Self {
        backend.under_way.set(backend.under_way.get() + 1);
        Self(backend)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
    }
}

impl Backend {
    pub(super) fn new(address: SocketAddr) -> Self {
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
            ill: Cell::new(false),
            since: Cell::new(None),
            idle: RefCell::default(),
            h2: RefCell::default(),
            retired: Cell::new(false),
        }
    }

    pub(in crate::proxy) fn connected(&self) {
        if self.failures.get() > 0 {
            self.failures.set(0);
            self.ejections.set(0);
            if self.ejected_until.take().is_some() {
                // A slow start that was to begin later begins.
                self.since.set(self.since.get().map(|since| since.min(Instant::now())));
            }
        }
    }

    /// The connection used last is the one most likely still open.
    pub(in crate::proxy) fn take_idle(&self) -> Option<Box<Connection>> {
        self.idle.borrow_mut().pop()
    }

    pub(in crate::proxy) fn keep_idle(&self, connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && idle.len() < IDLE_MOST && connection.requests < REQUESTS_MOST {
            idle.push(connection);
        }
    }

    /// Closes connections that are idle for too long or that the backend closed.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|c| now.duration_since(c.idle_since) < IDLE_FOR && !c.looks_closed());
    }

    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.h2.borrow_mut().take();
    }
}
