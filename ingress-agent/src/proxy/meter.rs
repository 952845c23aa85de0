//! What a request is measured by under ingress-nginx's names (`--nginx-metrics`), and where that is counted. Off, nothing of it is made.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};

use super::metrics::Counter;
use super::upstream::Trace;
use crate::model::measure::{Bounds, Distribution, Measure, Series};
use crate::model::snapshot::PoolName;

/// Series of one route in one worker; what comes after goes into one for all the rest. A backend may answer with any status.
const MOST: usize = 200;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
const OTHER: &str = "other";

/// Of one request.
pub(super) struct Meter {
    method: &'static str,
    /// Bytes of the request, as far as they are known.
    pub(super) received: u64,
    /// Bytes of the answer's head.
    head: u64,
    canary: Option<Arc<str>>,
    /// When a backend was asked, how long a connection took, and how long the head of its answer.
    asked: Option<(Instant, Duration, Duration)>,
}

impl Meter {
    /// `head`: bytes of the request's head.
    pub(super) fn new(method: &Method, head: u64) -> Self {
        let known = METHODS.iter().find(|known| **known == method.as_str());
        let method = known.copied().unwrap_or(OTHER);
        Self { method, received: head, head: 0, canary: None, asked: None }
    }

    /// A backend has answered; its name is told where it is not the route's own.
    pub(super) fn answered(&mut self, asked: Instant, trace: &Trace, canary: Option<&PoolName>) {
        self.asked = Some((asked, trace.connecting, asked.elapsed()));
        self.canary = canary.map(|p| format!("{}-{}-{}", p.service.namespace, p.service.name, p.port).into());
    }

    /// Bytes as they would have been in HTTP/1.1; hyper does not say how many it writes.
    pub(super) fn answer_head(&mut self, headers: &HeaderMap) {
        self.head = 19 + fields(headers);
    }
}

/// Bytes of header fields in HTTP/1.1.
pub(super) fn fields(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64
}

/// Counters of the requests that are alike. They hang together in a list that only grows: the worker adds at its end, readers walk it.
#[derive(Debug)]
pub(super) struct Counted {
    method: &'static str,
    status: u16,
    canary: Option<Arc<str>>,
    requests: Counter,
    measured: [Histogram; Measure::ALL.len()],
    next: OnceLock<Box<Self>>,
}

#[derive(Debug)]
struct Histogram {
    /// One more than there are bounds.
    buckets: Box<[Counter]>,
    sum: Counter,
}

impl Counted {
    fn new(method: &'static str, status: u16, canary: Option<Arc<str>>, bounds: &Bounds) -> Box<Self> {
        let histogram = |measure| Histogram {
            buckets: std::iter::repeat_with(Counter::default).take(bounds.of(measure).len() + 1).collect(),
            sum: Counter::default(),
        };
        let (requests, measured, next) = (Counter::default(), Measure::ALL.map(histogram), OnceLock::new());
        Box::new(Self { method, status, canary, requests, measured, next })
    }

    fn observe(&self, measure: Measure, bounds: &Bounds, value: u64) {
        let bounds = bounds.of(measure);
        let bucket = bounds.iter().position(|&bound| value <= bound).unwrap_or(bounds.len());
        let histogram = &self.measured[measure as usize];
        histogram.buckets[bucket].add(1);
        histogram.sum.add(value);
    }

    fn read(&self) -> Series {
        let measured = self.measured.each_ref().map(|histogram| Distribution {
            buckets: histogram.buckets.iter().map(Counter::value).collect(),
            sum: histogram.sum.value(),
        });
        let canary = self.canary.as_deref().unwrap_or_default().to_owned();
        Series { method: self.method, status: self.status, canary, requests: self.requests.value(), measured }
    }
}

/// The list of one route in one worker.
#[derive(Debug, Default)]
pub(super) struct List(OnceLock<Box<Counted>>);

impl List {
    /// Called by one worker only, with the same bounds each time.
    pub(super) fn record(
        &self,
        meter: &Meter,
        bounds: &Bounds,
        status: u16,
        (took, now): (Duration, Instant),
        sent: u64,
    ) {
        // nginx's code for a client that went away before an answer.
        let status = if status == 0 { 499 } else { status };
        let counted = self.of(meter, status, bounds);
        counted.requests.add(1);
        let observe = |measure, value| counted.observe(measure, bounds, value);
        observe(Measure::Request, micros(took));
        if let Some((asked, connect, head)) = meter.asked {
            observe(Measure::Connect, micros(connect));
            observe(Measure::Header, micros(head));
            observe(Measure::Response, micros(now.saturating_duration_since(asked)));
        }
        observe(Measure::RequestSize, meter.received);
        observe(Measure::ResponseSize, meter.head + sent);
        observe(Measure::Sent, meter.head + sent);
    }

    fn of(&self, meter: &Meter, status: u16, bounds: &Bounds) -> &Counted {
        let mut place = &self.0;
        for _ in 0..MOST {
            let counted = place.get_or_init(|| Counted::new(meter.method, status, meter.canary.clone(), bounds));
            if counted.status == status && counted.method == meter.method && counted.canary == meter.canary {
                return counted;
            }
            place = &counted.next;
        }
        place.get_or_init(|| Counted::new(OTHER, 0, None, bounds))
    }

    /// Adds what it has to what other workers have.
    pub(super) fn read_into(&self, sums: &mut Vec<Series>) {
        let mut place = &self.0;
        while let Some(counted) = place.get() {
            let read = counted.read();
            match sums.iter_mut().find(|sum| sum.is_like(&read)) {
                Some(sum) => sum.merge(&read),
                None => sums.push(read),
            }
            place = &counted.next;
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &List) -> Vec<Series> {
        let mut sums = Vec::new();
        list.read_into(&mut sums);
        sums
    }

    #[test]
    fn what_is_alike_is_counted_together() {
        let list = List::default();
        for (method, status, sent) in
            [("GET", 200, 5), ("GET", 200, 500), ("POST", 200, 0), ("BREW", 418, 0), ("GET", 0, 0)]
        {
            let method = method.parse().expect("a method");
            list.record(
                &Meter::new(&method, 90),
                &Bounds::default(),
                status,
                (Duration::from_millis(7), Instant::now()),
                sent,
            );
        }
        let sums = read(&list);
        let told: Vec<_> = sums.iter().map(|s| (s.method, s.status, s.requests)).collect();
        assert_eq!(told, [("GET", 200, 2), ("POST", 200, 1), ("other", 418, 1), ("GET", 499, 1)]);
        let [request, response, ..] = &sums[0].measured;
        assert_eq!((request.buckets[1], request.sum), (2, 14_000));
        assert!(response.buckets.iter().all(|n| *n == 0), "no backend was asked");
        let sent = &sums[0].measured[Measure::Sent as usize];
        assert_eq!((sent.buckets[0], sent.buckets[2], sent.sum), (1, 1, 505));
    }

    #[test]
    fn no_backend_makes_more_series_than_there_are_places() {
        let list = List::default();
        for status in 100..1000 {
            list.record(&Meter::new(&Method::GET, 0), &Bounds::default(), status, (Duration::ZERO, Instant::now()), 0);
        }
        let sums = read(&list);
        assert_eq!(sums.len(), MOST + 1);
        let rest = sums.last().expect("the rest");
        assert_eq!((rest.method, rest.status, rest.requests), ("other", 0, 900 - MOST as u64));
        assert_eq!(sums.iter().map(|s| s.requests).sum::<u64>(), 900);
    }
}
