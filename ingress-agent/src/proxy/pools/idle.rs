//! Connections of one worker that wait for their next request, by the endpoint that they lead to. Services with the same endpoint share its
//! plain HTTP/1.1 connections, as behind ingress-nginx: thousands of Ingresses then use the few connections that are warm in the cache, and an
//! endpoint has no more of them for being in many Services. Those over TLS belong to one pool, whose settings they were made by.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Instant;

use bytes::BytesMut;

use crate::model::policy::UpstreamKeep;
use crate::proxy::upstream::h1::Connection;

/// So many pairs of buffers are kept for the next requests; more have been in use at one time.
const BUFFERS: usize = 64;

/// All of a worker's.
#[derive(Default)]
pub(in crate::proxy) struct IdleConnections {
    /// How they are kept, which settings may change under them.
    pub(in crate::proxy) settings: Cell<UpstreamKeep>,
    shared: RefCell<HashMap<SocketAddr, Weak<Idle>>>,
    of_one_pool: RefCell<Vec<Weak<Idle>>>,
    /// What a connection reads into and writes from while it has a request. At rest it has none: with an endpoint for each of thousands of
    /// Services those would be the most of a worker's memory, and cold whenever one is used.
    buffers: RefCell<Vec<(BytesMut, Vec<u8>)>>,
}

/// Those to one endpoint. They are closed when the last backend leaves.
pub(super) struct Idle {
    all: Rc<IdleConnections>,
    /// Backends that may give and take.
    backends: Cell<u32>,
    #[expect(clippy::vec_box, reason = "a connection moves between here and each exchange: a pointer, not its bytes")]
    connections: RefCell<Vec<Box<Connection>>>,
}

impl IdleConnections {
    /// For a backend that joins.
    pub(super) fn of(self: &Rc<Self>, endpoint: SocketAddr, share: bool) -> Rc<Idle> {
        let mut shared = self.shared.borrow_mut();
        let known = shared.get(&endpoint).filter(|_| share).and_then(Weak::upgrade);
        let idle = known.unwrap_or_else(|| {
            let made =
                Rc::new(Idle { all: Rc::clone(self), backends: Cell::default(), connections: RefCell::default() });
            if share {
                shared.insert(endpoint, Rc::downgrade(&made));
            } else {
                self.of_one_pool.borrow_mut().push(Rc::downgrade(&made));
            }
            made
        });
        idle.backends.set(idle.backends.get() + 1);
        idle
    }

    /// Closes connections that are idle for too long or that the endpoint closed, and gives back the memory of a burst.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        let settings = self.settings.get();
        let lives = |idle: &Weak<Idle>| idle.upgrade().inspect(|idle| idle.sweep(now, settings)).is_some();
        self.shared.borrow_mut().retain(|_, idle| lives(idle));
        self.of_one_pool.borrow_mut().retain(lives);
        self.buffers.borrow_mut().retain(|(read, _)| read.capacity() <= Connection::READ_LEAST);
    }
}

impl Idle {
    /// The connection used last is the one most likely still open.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut connection = self.connections.borrow_mut().pop()?;
        if let Some((read, out)) = self.all.buffers.borrow_mut().pop() {
            (connection.read, connection.out) = (read, out);
        }
        Some(connection)
    }

    /// Its last response has been read to the end.
    pub(super) fn keep(&self, mut connection: Box<Connection>) {
        let (mut idle, settings) = (self.connections.borrow_mut(), self.all.settings.get());
        let room = idle.len() < settings.connections as usize && !settings.idle.is_zero();
        let young = connection.idle_since.saturating_duration_since(connection.since) < settings.life;
        if self.backends.get() > 0 && room && young && connection.requests < settings.requests {
            let buffers = (std::mem::take(&mut connection.read), std::mem::take(&mut connection.out));
            let mut spare = self.all.buffers.borrow_mut();
            if spare.len() < BUFFERS {
                spare.push(buffers);
            }
            idle.push(connection);
        }
    }

    fn sweep(&self, now: Instant, settings: UpstreamKeep) {
        let kept = |c: &mut Box<Connection>| now.duration_since(c.idle_since) < settings.idle && !c.looks_closed();
        self.connections.borrow_mut().retain_mut(kept);
    }

    /// A backend takes no more part.
    pub(super) fn leave(&self) {
        self.backends.set(self.backends.get().saturating_sub(1));
        if self.backends.get() == 0 {
            self.connections.borrow_mut().clear();
        }
    }
}
