//! What the proxy counted, as metrics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Family, counters, gauges};
use crate::model::traffic::L7Traffic;

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn encode(e: &mut DescriptorEncoder, t: &L7Traffic) -> fmt::Result {
    for (name, help, value) in [
        ("sluicegate_http_connections", "Client connections accepted.", t.connections),
        ("sluicegate_tls_handshakes", "TLS handshakes that succeeded.", t.tls_handshakes),
        ("sluicegate_tls_handshake_failures", "TLS handshakes that failed.", t.tls_handshake_failures),
        ("sluicegate_tls_passed_through", "Connections passed to a backend with their TLS.", t.passed_through),
        (
            "sluicegate_proxy_header_failures",
            "Connections refused for lack of a PROXY header.",
            t.proxy_header_failures,
        ),
        ("sluicegate_http_received_bytes", "Bytes from clients.", t.bytes_in),
        ("sluicegate_http_sent_bytes", "Bytes to clients.", t.bytes_out),
        ("sluicegate_http_retries", "Tries on another backend.", t.retries),
        ("sluicegate_http_ejections", "Backends left alone for a while after repeated failures.", t.ejections),
        ("sluicegate_http_retries_over_budget", "Tries that were not made: the budget was used up.", t.over_budget),
        ("sluicegate_access_log_lost_lines", "Access log lines that could not be written in time.", t.log_lines_lost),
    ] {
        counters(e, name, help)?.count(&[], value)?;
    }
    gauges(e, "sluicegate_http_open_connections", "Client connections that are open.")?
        .gauge(&[], t.open_connections as f64)?;
    let mut unrouted = counters(e, "sluicegate_http_unrouted_requests", "Answers to requests that no route took.")?;
    for (class, n) in CLASSES.iter().zip(t.unrouted).skip(1) {
        unrouted.count(&[("class", class)], n)?;
    }
    let mut errors = counters(e, "sluicegate_upstream_errors", "Failures towards backends.")?;
    for (reason, n) in &t.upstream_errors {
        errors.count(&[("reason", reason)], *n)?;
    }
    routes(e, t)?;
    health(e, t)
}

fn named([namespace, service, port, backend, check]: &[String; 5]) -> [(&'static str, &str); 5] {
    [("namespace", namespace), ("service", service), ("port", port), ("backend", backend), ("check", check)]
}

/// Checks that differ only in what has no label are one sample: it is well where each of them says so.
fn health(e: &mut DescriptorEncoder, t: &L7Traffic) -> fmt::Result {
    if t.health.is_empty() {
        return Ok(());
    }
    let mut samples = BTreeMap::<[String; 5], (bool, u64, u64)>::new();
    for h in &t.health {
        let service = &h.pool.service;
        let labels = [
            service.namespace.clone(),
            service.name.clone(),
            h.pool.port.to_string(),
            h.endpoint.to_string(),
            h.check.to_string(),
        ];
        let sample = samples.entry(labels).or_insert((true, 0, 0));
        *sample = (sample.0 && h.well, sample.1 + h.passed, sample.2 + h.failed);
    }
    let help = "1 if an endpoint passes its health check, or was not checked yet.";
    let mut up = gauges(e, "sluicegate_health_check_up", help)?;
    for (labels, (well, ..)) in &samples {
        up.gauge(&named(labels), f64::from(u8::from(*well)))?;
    }
    let mut checks = counters(e, "sluicegate_health_checks", "Health checks by result.")?;
    for (labels, (_, passed, failed)) in &samples {
        let [namespace, service, port, backend, check] = named(labels);
        for (result, n) in [("passed", *passed), ("failed", *failed)] {
            checks.count(&[namespace, service, port, backend, check, ("result", result)], n)?;
        }
    }
    Ok(())
}

fn routes(e: &mut DescriptorEncoder, t: &L7Traffic) -> fmt::Result {
    let mut requests = counters(e, "sluicegate_http_requests", "Requests by route and class of the answer.")?;
    for r in &t.routes {
        for (class, n) in CLASSES.iter().zip(r.by_class).filter(|(_, n)| *n > 0) {
            let labels =
                [("namespace", &*r.owner.namespace), ("ingress", &r.owner.name), ("rule", &r.rule), ("class", class)];
            requests.count(&labels, n)?;
        }
    }
    let mut bytes = counters(e, "sluicegate_http_route_sent_bytes", "Bytes of answers by route.")?;
    for r in &t.routes {
        bytes
            .count(&[("namespace", &r.owner.namespace), ("ingress", &r.owner.name), ("rule", &r.rule)], r.bytes_out)?;
    }
    let help = "From the request's head to the answer's end, by route.";
    let mut latency =
        Family(e.encode_descriptor("sluicegate_http_request_duration_seconds", help, None, MetricType::Histogram)?);
    for r in &t.routes {
        let labels = [("namespace", &*r.owner.namespace), ("ingress", &r.owner.name), ("rule", &r.rule)];
        latency.histogram(&labels, r.latency_sum_seconds, &r.latency)?;
    }
    Ok(())
}
