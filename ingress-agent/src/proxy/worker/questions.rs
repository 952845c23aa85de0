//! Servers that are asked about requests, by name: their addresses while they are fresh, and a pool of connections to each.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::Worker;
use crate::model::snapshot::{
    AppProtocol, Backend, BackendState, Forwarding, ObjectName, Pool, PoolName, PoolScope, Protocol,
};
use crate::proxy::condition::Condition;
use crate::proxy::policy::NAMES_HOLD;
use crate::proxy::pools::WorkerPool;

/// A server that is asked about requests.
pub(super) struct Asked {
    addresses: Vec<SocketAddr>,
    pool: Rc<WorkerPool>,
    since: Instant,
}

impl Worker {
    /// The addresses of a server that is asked about requests, while they are fresh.
    pub(in crate::proxy) fn known_addresses(&self, host: &str, port: u16, secure: bool) -> Option<Vec<SocketAddr>> {
        let questions = self.questions.borrow();
        let known = questions.get(&(host.to_owned(), port, secure))?;
        (known.since.elapsed() < NAMES_HOLD).then(|| known.addresses.clone())
    }

    /// The pool of such a server, with its connections.
    pub(in crate::proxy) fn question_pool(
        &self,
        host: &str,
        port: u16,
        secure: bool,
        addresses: Vec<SocketAddr>,
    ) -> Rc<WorkerPool> {
        let mut questions = self.questions.borrow_mut();
        let key = (host.to_owned(), port, secure);
        let old = questions.get(&key);
        if let Some(known) = old.filter(|known| known.addresses == addresses) {
            return Rc::clone(&known.pool);
        }
        let mut backends: Vec<Backend> = addresses
            .iter()
            .map(|&address| Backend {
                address,
                weight: 1,
                state: BackendState::Ready,
                forwarding: Forwarding::Nat,
                node: None,
            })
            .collect();
        backends.sort_by_key(|b| b.address);
        backends.dedup_by_key(|b| b.address);
        let name =
            PoolName { service: ObjectName::new("", host), port, protocol: Protocol::Tcp, scope: PoolScope::All };
        let app_protocol = if secure { AppProtocol::Https } else { AppProtocol::Http1 };
        let pool = Pool { name, backends, table_size: 251, app_protocol };
        let last = old.map(|known| &*known.pool);
        let pool = Rc::new(WorkerPool::new(None, &pool, None, &Condition::default(), last, 0, &self.idle));
        questions.insert(key, Asked { addresses, pool: Rc::clone(&pool), since: Instant::now() });
        pool
    }
}
