//! The names and labels of ingress-nginx 1.15 (`internal/ingress/metric/collectors` there), so that dashboards made for it live on. What counts
//! is of no type here: `OpenMetrics` would have `_total` behind the names of counters, and ingress-nginx has not.

mod places;

mod state;

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Family;
use crate::admin::query::{NginxNames, NginxReading, Readings};
use crate::model::measure::{Bounds, Distribution, Measure, Series};
use places::{Place, places};

/// In the order of [`Measure::ALL`].
const NAMES: [(&str, &str); Measure::ALL.len()] = [
    ("nginx_ingress_controller_request_duration_seconds", "From the request's head to the answer's end."),
    ("nginx_ingress_controller_response_duration_seconds", "From asking a backend to the end of its answer."),
    ("nginx_ingress_controller_header_duration_seconds", "From asking a backend to the head of its answer."),
    ("nginx_ingress_controller_connect_duration_seconds", "Until there was a connection to a backend."),
    ("nginx_ingress_controller_request_size", "Bytes of a request."),
    ("nginx_ingress_controller_response_size", "Bytes of an answer."),
    ("nginx_ingress_controller_bytes_sent", "Bytes of an answer, in wider buckets."),
];

/// What every one of these series is labelled with.
struct Own<'a> {
    class: &'a str,
    namespace: &'a str,
    /// The node's name: on each there is one agent.
    pod: &'a str,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl<'a> Own<'a> {
    fn and(&self, more: &[(&'static str, &'a str)]) -> Labels<'a> {
        let own =
            [("controller_class", self.class), ("controller_namespace", self.namespace), ("controller_pod", self.pod)];
        own.into_iter().chain(more.iter().copied()).collect()
    }
}

pub(super) fn encode(e: &mut DescriptorEncoder, r: &Readings, nginx: &NginxReading) -> fmt::Result {
    let own = Own { class: &nginx.names.class, namespace: &nginx.names.namespace, pod: &r.node };
    let known = places(&r.snapshot);
    let nowhere = Place::default();
    let mut all = BTreeMap::<Key<'_>, Series>::new();
    for route in &r.l7.routes {
        let place = known.get(&(&route.owner, &*route.rule)).unwrap_or(&nowhere);
        for series in &route.series {
            let host = if nginx.names.per_host { &*place.host } else { "" };
            let status =
                if nginx.names.status_classes { Status::class(series.status) } else { Status::Code(series.status) };
            let (method, canary) = (series.method, &*series.canary);
            let (namespace, ingress) = (&*route.owner.namespace, &*route.owner.name);
            let (path, service) = (&*place.path, &*place.service);
            let key = Key { namespace, ingress, host, path, service, method, status, canary };
            all.entry(key).and_modify(|sum| sum.merge(series)).or_insert_with(|| series.clone());
        }
    }
    requests(e, &own, &nginx.names, &all)?;
    state::encode(e, &own, r, nginx)
}

/// 0 stands for those of a route that has too many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Code(u16),
    /// Its first digit.
    Class(u16),
}

impl Status {
    fn class(code: u16) -> Self {
        Self::Class(code / 100)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(0) | Self::Class(0) => f.write_str("other"),
            Self::Code(code) => write!(f, "{code}"),
            Self::Class(first) => write!(f, "{first}xx"),
        }
    }
}

/// In what requests are told apart.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    namespace: &'a str,
    ingress: &'a str,
    host: &'a str,
    path: &'a str,
    service: &'a str,
    method: &'a str,
    status: Status,
    canary: &'a str,
}

fn requests(
    e: &mut DescriptorEncoder,
    own: &Own<'_>,
    names: &NginxNames,
    all: &BTreeMap<Key<'_>, Series>,
) -> fmt::Result {
    let statuses: Vec<String> = all.keys().map(|key| key.status.to_string()).collect();
    let labels: Vec<Labels<'_>> = all
        .keys()
        .zip(&statuses)
        .map(|(key, status)| {
            let mut labels = own.and(&[
                ("canary", key.canary),
                ("ingress", key.ingress),
                ("method", key.method),
                ("namespace", key.namespace),
                ("path", key.path),
                ("service", key.service),
                ("status", status),
            ]);
            if names.per_host {
                labels.push(("host", key.host));
            }
            labels
        })
        .collect();
    let mut family = untyped(e, "nginx_ingress_controller_requests", "Requests by route, method and status.")?;
    for (labels, series) in labels.iter().zip(all.values()) {
        family.gauge(labels, series.requests as f64)?;
    }
    for ((name, help), measure) in NAMES.into_iter().zip(Measure::ALL) {
        let mut family = Family(e.encode_descriptor(name, help, None, MetricType::Histogram)?);
        for (labels, series) in labels.iter().zip(all.values()) {
            let measured = &series.measured[measure as usize];
            if measured.buckets.iter().any(|n| *n > 0) {
                family.histogram(
                    labels,
                    measured.sum as f64 / measure.unit(),
                    &buckets(measure, &names.bounds, measured),
                )?;
            }
        }
    }
    Ok(())
}

fn buckets(measure: Measure, bounds: &Bounds, measured: &Distribution) -> Vec<(f64, u64)> {
    let bounds = bounds.of(measure).iter().map(|bound| *bound as f64 / measure.unit());
    bounds.chain([f64::MAX]).zip(measured.buckets.iter().copied()).collect()
}

fn untyped<'a>(e: &'a mut DescriptorEncoder, name: &'a str, help: &str) -> Result<Family<'a>, fmt::Error> {
    Ok(Family(e.encode_descriptor(name, help, None, MetricType::Unknown)?))
}
