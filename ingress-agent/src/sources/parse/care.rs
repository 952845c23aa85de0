//! Our annotations of an Ingress about its endpoints: health checks, slow start, how much is tried again. One that cannot be read is
//! rejected alone, and what it would have changed stays as it is without it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Notes, annotation, annotation_field, port_number};
use crate::model::policy::{Care, HealthCheck, Probe, RetryBudget};

pub(super) const HEALTH_CHECK: &str = "sluicegate.io/health-check";
pub(super) const HEALTH_CHECK_PATH: &str = "sluicegate.io/health-check-path";
pub(super) const HEALTH_CHECK_HOST: &str = "sluicegate.io/health-check-host";
pub(super) const HEALTH_CHECK_STATUS: &str = "sluicegate.io/health-check-status";
pub(super) const HEALTH_CHECK_SERVICE: &str = "sluicegate.io/health-check-service";
pub(super) const HEALTH_CHECK_PORT: &str = "sluicegate.io/health-check-port";
pub(super) const HEALTH_CHECK_INTERVAL: &str = "sluicegate.io/health-check-interval";
pub(super) const HEALTH_CHECK_TIMEOUT: &str = "sluicegate.io/health-check-timeout";
pub(super) const HEALTH_CHECK_HEALTHY: &str = "sluicegate.io/health-check-healthy";
pub(super) const HEALTH_CHECK_UNHEALTHY: &str = "sluicegate.io/health-check-unhealthy";
pub(super) const SLOW_START: &str = "sluicegate.io/slow-start";
pub(super) const RETRY_BUDGET: &str = "sluicegate.io/retry-budget";

/// nginx's and a kubelet's defaults lie near: an endpoint is out after 15 s, and back after 10.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
const HEALTHY: u32 = 2;
const UNHEALTHY: u32 = 3;
/// As a kubelet's probe: a redirect is the answer of a server that is well.
const STATUSES: (u16, u16) = (200, 399);

pub(super) const SOONEST: Duration = Duration::from_millis(100);
pub(super) const HOUR: Duration = Duration::from_hours(1);

/// Of checks that only some kinds have, or that need one at all.
const PARTS: [(&str, &[&str]); 9] = [
    (HEALTH_CHECK_PATH, &["http"]),
    (HEALTH_CHECK_HOST, &["http"]),
    (HEALTH_CHECK_STATUS, &["http"]),
    (HEALTH_CHECK_SERVICE, &["grpc"]),
    (HEALTH_CHECK_PORT, &["http", "tcp", "grpc"]),
    (HEALTH_CHECK_INTERVAL, &["http", "tcp", "grpc"]),
    (HEALTH_CHECK_TIMEOUT, &["http", "tcp", "grpc"]),
    (HEALTH_CHECK_HEALTHY, &["http", "tcp", "grpc"]),
    (HEALTH_CHECK_UNHEALTHY, &["http", "tcp", "grpc"]),
];

pub(super) fn care(metadata: &ObjectMeta, notes: &mut Notes) -> Option<Care> {
    let health = health(metadata, notes);
    let slow_start = duration(metadata, notes, SLOW_START, SOONEST, "there is no slow start");
    (health.is_some() || slow_start.is_some()).then_some(Care { health, slow_start })
}

/// `20%`, or `off` for no bound.
pub(super) fn retry_budget(metadata: &ObjectMeta, notes: &mut Notes) -> Option<RetryBudget> {
    let text = annotation(metadata, RETRY_BUDGET)?;
    if text == "off" {
        return Some(RetryBudget::Unlimited);
    }
    let digits = text.strip_suffix('%').unwrap_or_default();
    let percent = digits.parse().ok().filter(|percent: &u8| *percent <= 100 && !digits.starts_with('+'));
    if percent.is_none() {
        let reason = format!("`{text}` is neither `off` nor a percentage from `0%` to `100%`; 20% is used");
        notes.reject(annotation_field(RETRY_BUDGET), reason);
    }
    percent.map(RetryBudget::Percent)
}

fn health(metadata: &ObjectMeta, notes: &mut Notes) -> Option<HealthCheck> {
    let Some(kind) = annotation(metadata, HEALTH_CHECK) else {
        let useless = PARTS.iter().find(|(name, _)| annotation(metadata, name).is_some());
        if let Some((name, _)) = useless {
            notes.warn(annotation_field(name), format!("changes nothing: there is no {HEALTH_CHECK}"));
        }
        return None;
    };
    if !["http", "tcp", "grpc"].contains(&kind) {
        let reason = format!("`{kind}` is none of `http`, `tcp` and `grpc`; health is not checked");
        notes.reject(annotation_field(HEALTH_CHECK), reason);
        return None;
    }
    for (name, kinds) in PARTS {
        if annotation(metadata, name).is_some() && !kinds.contains(&kind) {
            notes.warn(annotation_field(name), format!("changes nothing: the check is {kind}"));
        }
    }
    let probe = match kind {
        "tcp" => Probe::Tcp,
        "grpc" => Probe::Grpc { service: service(metadata, notes) },
        _ => Probe::Http {
            path: path(metadata, notes),
            host: host(metadata, notes),
            statuses: statuses(metadata, notes),
        },
    };
    let mut time = |name, least, default: Duration| {
        duration(metadata, notes, name, least, &format!("{default:?} is used")).unwrap_or(default)
    };
    let interval = time(HEALTH_CHECK_INTERVAL, SOONEST, INTERVAL);
    let timeout = time(HEALTH_CHECK_TIMEOUT, Duration::from_millis(10), TIMEOUT);
    let (healthy, unhealthy) = (
        count(metadata, notes, HEALTH_CHECK_HEALTHY, HEALTHY),
        count(metadata, notes, HEALTH_CHECK_UNHEALTHY, UNHEALTHY),
    );
    Some(HealthCheck { probe, port: port(metadata, notes), interval, timeout, healthy, unhealthy })
}

fn path(metadata: &ObjectMeta, notes: &mut Notes) -> String {
    let text = annotation(metadata, HEALTH_CHECK_PATH).unwrap_or("/");
    let fine = text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !fine {
        let reason =
            format!("`{text}` is not a path such as /healthz (with %XX for what is not ASCII); / is asked for");
        notes.reject(annotation_field(HEALTH_CHECK_PATH), reason);
    }
    if fine { text.to_owned() } else { "/".to_owned() }
}

fn host(metadata: &ObjectMeta, notes: &mut Notes) -> Option<String> {
    let text = annotation(metadata, HEALTH_CHECK_HOST)?;
    let fine = !text.is_empty()
        && text.len() <= 255
        && text.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'));
    if !fine {
        let reason = format!("`{text}` is not a host; the endpoint's address is sent");
        notes.reject(annotation_field(HEALTH_CHECK_HOST), reason);
    }
    fine.then(|| text.to_owned())
}

fn service(metadata: &ObjectMeta, notes: &mut Notes) -> String {
    let text = annotation(metadata, HEALTH_CHECK_SERVICE).unwrap_or_default();
    // It stands in one message whose length has one byte.
    let fine = text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic());
    if !fine {
        let reason = format!("`{text}` is not a service's name, at most 100 bytes; the whole server is asked about");
        notes.reject(annotation_field(HEALTH_CHECK_SERVICE), reason);
    }
    if fine { text.to_owned() } else { String::new() }
}

/// `200`, `200-299,404`.
fn statuses(metadata: &ObjectMeta, notes: &mut Notes) -> Vec<(u16, u16)> {
    let Some(text) = annotation(metadata, HEALTH_CHECK_STATUS) else { return vec![STATUSES] };
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|status| digits && (200..=599).contains(status))
    };
    let range = |part: &str| -> Option<(u16, u16)> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (status(first.trim())?, status(last.trim())?);
        (first <= last).then_some((first, last))
    };
    let parsed: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
    parsed.unwrap_or_else(|| {
        let reason =
            format!("`{text}` is not a list such as 200-299,404 of statuses from 200 to 599; 200-399 is expected");
        notes.reject(annotation_field(HEALTH_CHECK_STATUS), reason);
        vec![STATUSES]
    })
}

fn port(metadata: &ObjectMeta, notes: &mut Notes) -> Option<u16> {
    let text = annotation(metadata, HEALTH_CHECK_PORT)?;
    let port = text.parse().map_err(|_| format!("`{text}` is not a port number")).and_then(port_number);
    port.map_err(|reason| {
        notes.reject(annotation_field(HEALTH_CHECK_PORT), format!("{reason}; the port that requests go to is checked"));
    })
    .ok()
}

fn count(metadata: &ObjectMeta, notes: &mut Notes, name: &str, default: u32) -> u32 {
    let Some(text) = annotation(metadata, name) else { return default };
    let count = text.parse().ok().filter(|count| (1..=100).contains(count));
    count.unwrap_or_else(|| {
        notes.reject(annotation_field(name), format!("`{text}` is not a number from 1 to 100; {default} is used"));
        default
    })
}

/// At most an hour. `instead`: what holds where it cannot be read.
pub(super) fn duration(
    metadata: &ObjectMeta,
    notes: &mut Notes,
    name: &str,
    least: Duration,
    instead: &str,
) -> Option<Duration> {
    let text = annotation(metadata, name)?;
    let duration = time(text).filter(|duration| (least..=HOUR).contains(duration));
    if duration.is_none() {
        let reason = format!("`{text}` is not a time from {least:?} to 60m, such as 500ms, 5s or 2m; {instead}");
        notes.reject(annotation_field(name), reason);
    }
    duration
}

/// `500ms`, `5s`, `2m`; a bare number is seconds.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        None => (text, "s"),
        Some(at) => text.split_at(at),
    };
    let count: u32 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(u64::from(count))),
        "s" => Some(Duration::from_secs(u64::from(count))),
        "m" => Some(Duration::from_secs(u64::from(count) * 60)),
        _ => None,
    }
}
