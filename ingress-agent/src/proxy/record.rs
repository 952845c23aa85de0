//! What is remembered of a request until its response is through: counters always, a log line if one is wanted. Written
//! when dropped, so that an abandoned response is recorded as well.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::access_log::Line;
use super::client::Client;
use super::hosts::CompiledRoute;

pub(super) struct Record {
    client: Rc<Client>,
    pub(super) route: Option<Arc<CompiledRoute>>,
    pub(super) started: Instant,
    /// 0 until there is one: the client went away before.
    pub(super) status: u16,
    /// Bytes of the response's body.
    pub(super) sent: u64,
    pub(super) line: Option<Box<Line>>,
}

impl Record {
    pub(super) fn new(client: Rc<Client>, started: Instant) -> Self {
        client.request_begun();
        Self { client, route: None, started, status: 0, sent: 0, line: None }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.client.request_done();
        let worker = &self.client.worker;
        let took = self.started.elapsed();
        match &self.route {
            Some(route) => route.stats.record(worker.index, self.status, took, self.sent),
            None => worker.counters.unrouted[super::metrics::class(self.status)].add(1),
        }
        if let Some(line) = &self.line {
            worker.log(line, self.status, self.sent, took);
        }
    }
}
