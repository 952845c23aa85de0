//! Answers of the control thread to what `admin` asks: plain values, taken from the rooms at one moment.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::debug;

use super::{Control, explain};
use crate::admin::query::{NginxReading, Query, Readiness, Readings, Room};
use crate::model::holding::Holding;
use crate::model::traffic::{L4Traffic, L7Traffic, RouteTraffic};
use crate::proxy::metrics::{HttpTraffic, LATENCY_BOUNDS, UpstreamError};
use crate::proxy::{self, Proxy};

/// `proxy` is `None` while it drains. Whoever asked may have gone; that is no concern of ours.
pub(super) fn answer(query: Query, control: &mut Control, proxy: Option<&Proxy>) {
    match query {
        Query::Alive(place) => drop(place.send(())),
        Query::Readiness(place) => {
            drop(place.send(Readiness { reasons: control.not_ready(), notes: control.notes() }));
        }
        Query::Readings(place) => drop(place.send(Box::new(readings(control, proxy)))),
        Query::Explain(question, place) => drop(place.send(explain::explain(control, proxy, &question))),
        Query::Order(order, place) => drop(place.send(control.obey(order))),
        Query::Release(client, place) => drop(place.send(control.release(client))),
    }
}

fn readings(control: &Control, proxy: Option<&Proxy>) -> Readings {
    let room = |p: &super::Progress| Room { name: p.name.into(), applied: p.applied, problems: p.problems.clone() };
    let mut rooms = vec![room(&control.l4), room(&control.l7)];
    let began = Instant::now();
    let l4 = control.dataplane.read().unwrap_or_else(|e| {
        rooms[0].problems.push(format!("its counters cannot be read: {e:#}"));
        L4Traffic::default()
    });
    debug!(took = ?began.elapsed(), "read the data plane's counters");
    Readings {
        node: control.config.plan.node.clone(),
        started: control.started,
        snapshot: control.plan.as_ref().map(|p| Arc::clone(&p.snapshot)).unwrap_or_default(),
        rooms,
        not_ready: control.not_ready(),
        notes: control.notes(),
        source: control.source.borrow().clone(),
        attachments: control.dataplane.attachments().to_vec(),
        holding: control.vips.as_ref().map_or_else(|| Arc::new(Holding::default()), crate::vip::Vips::holding),
        elections: control.vips.as_ref().map(crate::vip::Vips::elections).unwrap_or_default(),
        l4,
        sync: control.dataplane.sync(),
        l7: proxy.map(|p| l7(p.metrics())).unwrap_or_default(),
        limit_drops: control.limit_drops(),
        nginx: control.config.nginx_metrics.clone().map(|names| {
            let changed = control.l7.since.and_then(|since| SystemTime::now().checked_sub(since.elapsed()));
            NginxReading { names, changed }
        }),
    }
}

fn l7(t: HttpTraffic) -> L7Traffic {
    let bound = |i: usize| LATENCY_BOUNDS.get(i).map_or(f64::MAX, |micros| *micros as f64 / 1e6);
    let route = |r: proxy::metrics::RouteTraffic| RouteTraffic {
        owner: r.owner,
        rule: r.rule,
        by_class: r.by_class,
        latency: r.latency.iter().enumerate().map(|(i, n)| (bound(i), *n)).collect(),
        latency_sum_seconds: r.latency_sum.as_secs_f64(),
        bytes_out: r.bytes_out,
        series: r.series,
    };
    L7Traffic {
        connections: t.connections,
        open_connections: t.open_connections,
        tls_handshakes: t.tls_handshakes,
        tls_handshake_failures: t.tls_handshake_failures,
        passed_through: t.passed_through,
        proxy_header_failures: t.proxy_header_failures,
        bytes_in: t.bytes_in,
        bytes_out: t.bytes_out,
        unrouted: t.unrouted,
        upstream_errors: UpstreamError::ALL.iter().map(|e| e.label()).zip(t.upstream_errors).collect(),
        retries: t.retries,
        ejections: t.ejections,
        over_budget: t.over_budget,
        log_lines_lost: t.log_lines_lost,
        metering: t.metering,
        metered: t.metered,
        routes: t.routes.into_iter().map(route).collect(),
        health: t.health,
    }
}
