//! One backend as one worker sees it: what is under way there, how it fared, and its idle connections.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::proxy::ewma::Average;
use crate::proxy::policy::digest;
use crate::proxy::upstream::h1::Connection;
use crate::proxy::upstream::h2::Shared;

use super::idle::Idle;

/// In this order: what every request needs stands together.
#[repr(C)]
pub(in crate::proxy) struct Backend {
    idle: Rc<Idle>,
    pub(super) under_way: Cell<u32>,
    pub(super) failures: Cell<u32>,
    pub(in crate::proxy) address: SocketAddr,
    /// No longer in any snapshot, or draining: finished connections are not kept.
    retired: Cell<bool>,
    pub(super) digest: u64,
    pub(super) weight: Cell<u32>,
    pub(super) current: Cell<i64>,
    /// How fast it answers, where somebody chooses by that.
    pub(in crate::proxy) average: Average,
    pub(super) ejections: Cell<u32>,
    pub(super) ejected_until: Cell<Option<Instant>>,
    /// It fails its health check.
    pub(super) ill: Cell<bool>,
    /// When its slow start began, or will.
    pub(super) since: Cell<Option<Instant>>,
    pub(in crate::proxy) h2: RefCell<Option<Shared>>,
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
    pub(super) fn new(address: SocketAddr, idle: Rc<Idle>) -> Self {
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
            idle,
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

    pub(in crate::proxy) fn take_idle(&self) -> Option<Box<Connection>> {
        self.idle.take()
    }

    pub(in crate::proxy) fn keep_idle(&self, connection: Box<Connection>) {
        if !self.retired.get() {
            self.idle.keep(connection);
        }
    }

    pub(super) fn retire(&self) {
        if !self.retired.replace(true) {
            self.idle.leave();
        }
        self.h2.borrow_mut().take();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.retire();
    }
}
