//! What would happen to a URL, in sentences: the same compiled look-up that requests go through, asked by a person.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::{HeaderMap, Method, Uri};

use super::compile::Compiler;
use super::hosts::Question;
use super::path::normalise;
use super::target;
use crate::model::policy::HealthCheck;
use crate::model::route::{Action, HostTable, PathMatch, Route};
use crate::model::snapshot::{ObjectName, PoolName, Snapshot};

/// The outcome for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpExplanation {
    /// Each a sentence, in the order in which things are decided.
    pub steps: Vec<String>,
    pub listener: Option<SocketAddr>,
    pub owner: Option<ObjectName>,
    pub rule: Option<String>,
    /// What ingress-nginx's nginx.conf would have for it: `location /cart/ of server shop.example`.
    pub location: Option<String>,
    /// Backends that may get it.
    pub backends: Vec<SocketAddr>,
    /// Which check keeps requests from those of them that fail it.
    pub check: Option<HealthCheck>,
}

pub fn explain(
    snapshot: &Snapshot,
    url: &str,
    method: &Method,
    headers: &HeaderMap,
) -> anyhow::Result<HttpExplanation> {
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    let (port, secure) = match uri.scheme_str() {
        Some("http") => (uri.port_u16().unwrap_or(80), false),
        Some("https") => (uri.port_u16().unwrap_or(443), true),
        _ => bail!("`{url}` does not begin with http:// or https://"),
    };
    let authority = uri.authority().with_context(|| format!("`{url}` names no host"))?;
    let name =
        target::name(authority.as_str().as_bytes()).with_context(|| format!("`{authority}` is not a host: 400"))?;
    let mut told = HttpExplanation {
        steps: Vec::new(),
        listener: None,
        owner: None,
        rule: None,
        location: None,
        backends: Vec::new(),
        check: None,
    };
    let Some(listener) = snapshot.listeners.iter().find(|l| l.port == port && l.tls.is_some() == secure) else {
        let kind = if secure { "HTTPS" } else { "HTTP" };
        told.steps.push(format!("No {kind} listener on port {port}: the connection is refused."));
        return Ok(told);
    };
    told.listener = Some(SocketAddr::new(listener.vip, listener.port));
    let others =
        snapshot.listeners.iter().filter(|l| l.port == port && Arc::ptr_eq(&l.hosts, &listener.hosts)).count() - 1;
    told.steps.push(format!(
        "Listener {}{}.",
        SocketAddr::new(listener.vip, port),
        match others {
            0 => String::new(),
            n => format!(" (and {n} more addresses with the same hosts)"),
        }
    ));
    if let Some(passed) = listener.hosts.passed.get(&*name).filter(|_| secure) {
        told.owner = Some(passed.owner.clone());
        told.steps.push(format!(
            "TLS of host `{name}` is passed through to the Service {} and ends there (ssl-passthrough of Ingress {}): no path or other \
             annotation plays a part.",
            passed.pool.service, passed.owner
        ));
        pool(snapshot, &passed.pool, "", &mut told);
        return Ok(told);
    }
    if let Some(tls) = &listener.tls {
        told.steps.push(certificate(tls, &name));
    }
    // Only this host is compiled: the question costs the same in a large cluster.
    let table = only(&listener.hosts, &name);
    let one = Snapshot {
        listeners: vec![Arc::new(crate::model::route::Listener { hosts: Arc::new(table), ..(**listener).clone() })],
        ..Snapshot::default()
    };
    let (routing, ..) = Compiler::without_tls(0).compile(&one);
    let hosts = routing.listeners.into_values().next().context("the listener did not compile")?.hosts.clone();
    let Some(host) = hosts.host(&name) else {
        told.steps.push(format!("No host matches `{name}` and there is no catch-all: 404."));
        return Ok(told);
    };
    told.steps.push(host_step(&listener.hosts, &name));
    let Ok(path) = normalise(uri.path().as_bytes()) else {
        told.steps.push(format!("The path `{}` cannot be normalised: 400.", uri.path()));
        return Ok(told);
    };
    let question = Question { path: &path, query: uri.query(), method, headers };
    let Some(found) = host.route(&question) else {
        let count = host.routes().len();
        told.steps.push(format!("None of its {count} routes matches `{}`: 404.", String::from_utf8_lossy(&path)));
        return Ok(told);
    };
    let route = &found.route;
    told.owner = Some(route.owner.clone());
    told.rule = Some(route.rule.clone());
    told.steps.push(format!("Route of {}: {} ({}).", route.owner, route.rule, matched(route)));
    let location = location(route, &path);
    told.steps.push(format!("In ingress-nginx: {location}."));
    told.location = Some(location);
    told.check = route.policy.as_ref().and_then(|p| p.care.as_ref()?.health.clone());
    limits(route, &mut told);
    action(snapshot, route, &mut told);
    Ok(told)
}

/// How often one client may ask.
fn limits(route: &Route, told: &mut HttpExplanation) {
    let Some(limits) = route.policy.as_ref().and_then(|policy| policy.limits.as_ref()) else { return };
    let whose = if limits.shared { "all edges together" } else { "each edge" };
    for rate in &limits.rates {
        told.steps.push(format!(
            "A client may ask once in {:?} and {} times more at once, as counted by {whose}; else {}.",
            rate.every,
            rate.burst,
            limits.rate_status.as_u16()
        ));
    }
}

fn certificate(tls: &crate::model::route::Tls, name: &str) -> String {
    let wildcard = name.split_once('.').and_then(|(_, suffix)| tls.by_name.get(&format!("*.{suffix}")));
    match (tls.by_name.get(name).or(wildcard), &tls.default) {
        (Some(secret), _) => format!("Certificate of the Secret {secret}."),
        (None, Some(secret)) => {
            format!("No certificate is meant for `{name}`: the default one of the Secret {secret}.")
        }
        (None, None) => format!("No certificate is meant for `{name}`: the self-signed default."),
    }
}

/// The table cut down to what `name` can meet.
fn only(table: &HostTable, name: &str) -> HostTable {
    let suffixes: Vec<&str> = name.match_indices('.').map(|(at, _)| &name[at + 1..]).collect();
    HostTable {
        exact: table.exact.get_key_value(name).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect(),
        wildcard: suffixes
            .iter()
            .filter_map(|s| table.wildcard.get_key_value(*s))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        patterns: table.patterns.clone(),
        any: table.any.clone(),
        passed: std::collections::BTreeMap::new(),
    }
}

fn host_step(table: &HostTable, name: &str) -> String {
    if table.exact.contains_key(name) {
        return format!("Host `{name}`.");
    }
    let suffix = name
        .match_indices('.')
        .map(|(at, _)| &name[at + 1..])
        .enumerate()
        .find(|(labels, suffix)| table.wildcard.get(*suffix).is_some_and(|w| !w.one_label || *labels == 0));
    match suffix {
        Some((_, suffix)) => format!("Host `*.{suffix}` (no exact one for `{name}`)."),
        None => format!("The catch-all host (none for `{name}`)."),
    }
}

fn matched(route: &Route) -> String {
    let path = match &route.matches.path {
        PathMatch::Exact(path) => format!("path is exactly `{path}`"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "any path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path begins with the elements of `{prefix}`"),
        PathMatch::Regex { pattern, .. } => format!("path matches the expression `{pattern}`"),
    };
    let conditions =
        usize::from(route.matches.method.is_some()) + route.matches.headers.len() + route.matches.query.len();
    if conditions == 0 { path } else { format!("{path}, and {conditions} more conditions hold") }
}

/// As ingress-nginx 1.15's template writes it: a path of type Prefix is an exact location and one with a slash, an expression is anchored
/// at its beginning and has no case, and what nobody has is `/`.
fn location(route: &Route, path: &[u8]) -> String {
    // `shop.example/cart (Prefix)`, as the owner wrote it.
    let written = route.rule.rsplit_once(" (").map_or(route.rule.as_str(), |(written, _)| written);
    let at = written.find('/').unwrap_or(written.len());
    let (host, written) = (&written[..at], if at < written.len() { &written[at..] } else { "/" });
    let place = match &route.matches.path {
        PathMatch::Regex { .. } => format!("~* \"^{written}\""),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "/".to_owned(),
        PathMatch::Prefix(prefix) if !written.ends_with('/') && path == prefix.as_bytes() => format!("= \"{prefix}\""),
        PathMatch::Prefix(prefix) => format!("{prefix}/"),
        // nginx itself redirects from `/cart` to a location `/cart/`.
        PathMatch::Exact(exact) if written.strip_suffix('/') == Some(exact) && !exact.is_empty() => written.to_owned(),
        PathMatch::Exact(exact) => format!("= \"{exact}\""),
    };
    let server = if host == "any host" { "_" } else { host };
    format!("location {place} of server {server}")
}

fn action(snapshot: &Snapshot, route: &Route, told: &mut HttpExplanation) {
    let pools = match &route.action {
        Action::Respond(status) => return told.steps.push(format!("Answered here with {status}.")),
        Action::Redirect(redirect) => return told.steps.push(format!("Redirected with {}.", redirect.status)),
        Action::Forward(pools) => pools,
    };
    let total: u64 = pools.iter().map(|p| u64::from(p.weight)).sum();
    if total == 0 {
        return told.steps.push("It names no backend with a weight: 500.".to_owned());
    }
    for weighted in pools.iter().filter(|p| p.weight > 0) {
        let share = match pools.len() {
            1 => String::new(),
            _ => format!(" ({} of {total} requests)", weighted.weight),
        };
        pool(snapshot, &weighted.pool, &share, told);
    }
}

fn pool(snapshot: &Snapshot, name: &PoolName, share: &str, told: &mut HttpExplanation) {
    let ready: Vec<SocketAddr> = snapshot.pools.get(name).map_or(Vec::new(), |pool| {
        let ready = pool.backends.iter().filter(|b| b.takes_new());
        ready.map(|b| b.address).collect()
    });
    told.steps.push(match ready.as_slice() {
        [] if told.rule.is_none() => format!("Pool {name} has no ready backend: the connection is closed."),
        [] => format!("Pool {name}{share} has no ready backend: 503."),
        [one] => format!("Pool {name}{share}, backend {one}."),
        [first, ..] => format!("Pool {name}{share}: one of {} ready backends, {first} among them.", ready.len()),
    });
    told.backends.extend(ready);
}
