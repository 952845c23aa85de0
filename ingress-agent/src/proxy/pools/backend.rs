//! One backend as one worker sees it: what is under way there, how it fared, and its idle connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::model::policy::UpstreamKeep;
use crate::proxy::ewma::Average;
use crate::proxy::policy::digest;
use crate::proxy::upstream::h1::Connection;
use crate::proxy::upstream::h2::Shared;

/// How connections are kept, which settings may change under them.
pub(in crate::proxy) type Keep = Rc<Cell<UpstreamKeep>>;

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
    /// The worker's.
    keep: Keep,
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
    pub(super) fn new(address: SocketAddr, keep: &Keep) -> Self {
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
            keep: Rc::clone(keep),
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
        let (mut idle, keep) = (self.idle.borrow_mut(), self.keep.get());
        let room = idle.len() < keep.connections as usize && !keep.idle.is_zero();
        let young = connection.idle_since.saturating_duration_since(connection.since) < keep.life;
        if !self.retired.get() && room && young && connection.requests < keep.requests {
            idle.push(connection);
        }
    }

    /// Closes connections that are idle for too long or that the backend closed.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        let keep = self.keep.get();
        self.idle.borrow_mut().retain_mut(|c| now.duration_since(c.idle_since) < keep.idle && !c.looks_closed());
    }

    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        self.h2.borrow_mut().take();
    }
}
