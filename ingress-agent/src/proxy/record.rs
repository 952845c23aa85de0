//! What is remembered of a request until its response is through: counters always, a log line if one is wanted. Written
//! when dropped, so that an abandoned response is recorded as well.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::access_log::Line;
use super::client::Client;
use super::hosts::CompiledRoute;
use super::kept::Kept;
use super::meter::Meter;
use super::policy::Open;

pub(super) struct Record {
    client: Rc<Client>,
    pub(super) route: Option<Arc<CompiledRoute>>,
    pub(super) started: Instant,
    /// 0 until there is one: the client went away before.
    pub(super) status: u16,
    /// Bytes of the response's body.
    pub(super) sent: u64,
    pub(super) line: Option<Box<Line>>,
    pub(super) meter: Option<Box<Meter>>,
    /// It counts among its client's requests at one time.
    pub(super) open: Option<Open>,
    /// The request's body, for whoever is asked for an error page.
    pub(super) kept: Option<Rc<Kept>>,
    /// The body gave a frame and was not asked since.
    owed: bool,
}

impl Record {
    pub(super) fn new(client: Rc<Client>, started: Instant) -> Self {
        client.request_begun();
        let (route, line, meter, open, kept) = (None, None, None, None, None);
        Self { client, route, started, status: 0, sent: 0, line, meter, open, kept, owed: false }
    }

    /// From here on the request is measured.
    pub(super) fn measure(&mut self, meter: Meter) {
        self.client.worker.counters.metering.add(1);
        self.meter = Some(Box::new(meter));
    }

    /// The client's side wants a frame.
    pub(super) fn asked(&mut self) {
        self.client.body_asked(std::mem::take(&mut self.owed));
    }

    pub(super) fn gave(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.owed = true;
        self.client.body_gave();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.owed {
            self.asked();
        }
        self.client.request_done();
        let worker = &self.client.worker;
        // One end for all that is measured.
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        match &self.route {
            Some(route) => {
                if let Some(counters) = route.counters(worker.index) {
                    let meter = self.meter.as_deref().zip(worker.meters.as_deref());
                    counters.record(self.status, (took, now), self.sent, meter);
                }
            }
            None => worker.counters.unrouted[super::metrics::class(self.status)].add(1),
        }
        if self.meter.is_some() {
            worker.counters.metering.sub(1);
            worker.counters.metered.add(1);
        }
        if let Some(line) = &mut self.line {
            line.owner = self.route.as_ref().map(|found| found.route.owner.clone());
            worker.log(line, self.status, self.sent, took);
        }
    }
}
