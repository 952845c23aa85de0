//! A snapshot as text, for golden files: everything that a consumer acts on, one fact a line, in a fixed order.

use std::fmt::Write;

use ingress_agent::model::pool_state::PoolCount;
use ingress_agent::model::route::{Action, HostTable, PathMatch, PathRewrite, Route, VirtualHost};
use ingress_agent::model::snapshot::{BackendState, Forwarding, FrontendKind, Snapshot};

/// The readable form of a snapshot. The generation is left out: it says nothing about the content.
pub fn dump(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for (vip, v) in &snapshot.vips {
        let held = if v.held_here { "held here" } else { "held elsewhere" };
        line(&mut out, 0, &format!("vip {vip} {held}, for {}", v.owners.join(", ")));
    }
    for frontend in snapshot.frontends.values() {
        let what = match &frontend.kind {
            FrontendKind::L7 => format!("to the proxy, for {}", frontend.owner),
            FrontendKind::L4 { pool, client_ip_affinity, snat, sources } => {
                let affinity = client_ip_affinity.map_or(String::new(), |s| format!(", client affinity of {s} s"));
                let clients = sources.as_ref().map_or(String::new(), |sources| {
                    let ranges: Vec<String> = sources.iter().map(ToString::to_string).collect();
                    format!(", clients in [{}] only", ranges.join(" "))
                });
                format!("to pool {pool}, source {snat}{affinity}{clients}, for {}", frontend.owner)
            }
        };
        line(&mut out, 0, &format!("frontend {} {what}", frontend.key));
    }
    for pool in snapshot.pools.values() {
        line(&mut out, 0, &format!("pool {} {:?}, table of {}", pool.name, pool.app_protocol, pool.table_size));
        for b in &pool.backends {
            let state = match b.state {
                BackendState::Ready => "ready",
                BackendState::Draining => "draining",
            };
            let way = match b.forwarding {
                Forwarding::Local => "local",
                Forwarding::Nat => "nat",
            };
            let node = b.node.as_ref().map(|n| format!(", on {n}")).unwrap_or_default();
            line(&mut out, 1, &format!("{} {state} {way}, weight {}{node}", b.address, b.weight));
        }
    }
    for listener in &snapshot.listeners {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        line(&mut out, 0, &format!("listener {scheme} {}", std::net::SocketAddr::new(listener.vip, listener.port)));
        if let Some(tls) = &listener.tls {
            for (name, secret) in &*tls.by_name {
                line(&mut out, 1, &format!("certificate for {name}: {secret}"));
            }
            let default = tls.default.as_ref().map_or("self-signed".to_owned(), ToString::to_string);
            line(&mut out, 1, &format!("certificate by default: {default}"));
        }
        hosts(&mut out, &listener.hosts);
    }
    for stream in &snapshot.streams {
        let spoken = match (stream.proxy_protocol.received, stream.proxy_protocol.sent) {
            (true, true) => "PROXY protocol in and out",
            (true, false) => "PROXY protocol in",
            (false, true) => "PROXY protocol out",
            (false, false) => "no PROXY protocol",
        };
        let key = std::net::SocketAddr::new(stream.vip, stream.port);
        line(&mut out, 0, &format!("stream {key} -> {} by {:?}, {spoken}", stream.pool, stream.balance));
    }
    for certificate in snapshot.certificates.values() {
        line(&mut out, 0, &format!("certificate {} for {}", certificate.name, certificate.names.join(", ")));
    }
    for pool in &*snapshot.served.pools {
        let count = |family: &str, count: &Option<PoolCount>| {
            count.map_or(String::new(), |c| format!(", {family} {} given and {} left", c.assigned, c.available))
        };
        let counts = count("IPv4", &pool.v4) + &count("IPv6", &pool.v6);
        line(&mut out, 0, &format!("VirtualIPPool {} {:?}{counts}: {}", pool.name, pool.verdict, pool.message));
    }
    for rejection in &snapshot.rejections {
        line(&mut out, 0, &format!("{:?}: {rejection}", rejection.severity));
    }
    out
}

fn hosts(out: &mut String, table: &HostTable) {
    for (name, host) in &table.exact {
        line(out, 1, &format!("host {name}"));
        routes(out, host);
    }
    for (suffix, wildcard) in &table.wildcard {
        let labels = if wildcard.one_label { "one label" } else { "any labels" };
        line(out, 1, &format!("host *.{suffix} ({labels})"));
        routes(out, &wildcard.host);
    }
    if let Some(host) = &table.any {
        line(out, 1, "any other host");
        routes(out, host);
    }
}

fn routes(out: &mut String, host: &VirtualHost) {
    for route in &host.routes {
        line(out, 2, &format!("{} -> {}; {} of {}", path(route), action(route), route.rule, route.owner));
    }
}

fn path(route: &Route) -> String {
    match &route.matches.path {
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Prefix(path) => format!("prefix {path}/"),
        PathMatch::Regex { pattern, .. } => format!("regex {pattern}"),
    }
}

fn action(route: &Route) -> String {
    match &route.action {
        Action::Forward(pools) => {
            let pools: Vec<String> = pools.iter().map(|p| p.pool.to_string()).collect();
            format!("{} by {:?}", pools.join(" and "), route.balance)
        }
        Action::Redirect(redirect) => match &redirect.path {
            Some(PathRewrite::Full(path)) => format!("{} to {path}", redirect.status.as_u16()),
            other => format!("{} to {other:?}", redirect.status.as_u16()),
        },
        Action::Respond(status) => format!("{}", status.as_u16()),
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:1$}{text}", "", depth * 2);
}
