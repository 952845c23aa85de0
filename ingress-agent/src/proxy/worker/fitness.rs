//! Which endpoints a worker leaves alone, and how workers hear of that: by messages, so that choosing a backend reads nothing that is shared.

use std::time::Instant;

use tokio::sync::mpsc;

use super::{Command, Worker};
use crate::proxy::health::Finding;
use crate::proxy::pools::{Backend, WorkerPool};

impl Worker {
    pub(super) fn found(&self, findings: &[Finding]) {
        let now = Instant::now();
        let (mut pools, made) = (self.pools.borrow_mut(), self.made.borrow());
        for finding in findings {
            let at = finding.pool.0 as usize;
            let Some(Some(known)) = pools.get_mut(at) else { continue };
            known.condition.found(finding.endpoint, finding.well, now);
            if let Some(Some(made)) = made.get(at) {
                made.found(finding.endpoint, finding.well, now);
            }
        }
    }

    /// A backend of the pool refused connections too often: no worker sends there for a while.
    pub(in crate::proxy) fn ejected(&self, pool: &WorkerPool, backend: &Backend, until: Instant) {
        self.counters.ejections.add(1);
        tracing::info!(pool = %pool.name, backend = %backend.address, "backend ejected: it refuses connections");
        let Some(id) = pool.id else { return };
        for peer in self.peers.iter().filter_map(mpsc::WeakUnboundedSender::upgrade) {
            // One that has ended sends no requests.
            let _ = peer.send(Command::Ejected(id, backend.address, until));
        }
    }
}
