//! What would happen to a packet or a request, told by the code that forwards: the data plane walks its live maps, the proxy
//! its route table. Here the two are only put into one shape.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Control;
use crate::admin::query::{Explanation, HttpQuestion, Question};
use crate::model::snapshot::{Forwarding, FrontendKind, Protocol};
use crate::model::traffic::L4Explanation;
use crate::proxy::{self, HttpExplanation, Proxy};

/// A client's port where the question names none.
const ANY_PORT: u16 = 40_000;

pub(super) fn explain(control: &Control, proxy: Option<&Proxy>, question: &Question) -> Explanation {
    match question {
        Question::L4 { protocol, client, vip } => match control.dataplane.explain(*protocol, *client, *vip) {
            Ok(told) => l4(control, told),
            Err(e) => failed(&e),
        },
        Question::Http(question) => http(control, proxy, question),
    }
}

fn failed(e: &anyhow::Error) -> Explanation {
    Explanation { answer: format!("cannot be explained: {e:#}"), ..Explanation::default() }
}

fn l4(control: &Control, e: L4Explanation) -> Explanation {
    let mut told = Explanation { steps: e.steps, ..Explanation::default() };
    let frontend = e.frontend.and_then(|key| control.in_dataplane.as_ref()?.frontends.get(&key).map(Arc::clone));
    let kind = frontend.as_ref().map(|f| &f.kind);
    let streams = control.in_dataplane.iter().flat_map(|snapshot| &snapshot.streams);
    let stream = e.frontend.and_then(|key| streams.into_iter().find(|s| (s.vip, s.port) == (key.vip, key.port)));
    let pool = kind.and_then(|kind| match kind {
        FrontendKind::L4 { pool, .. } => Some(pool.to_string()),
        FrontendKind::L7 => stream.map(|stream| stream.pool.to_string()),
    });
    let facts = [
        ("frontend", e.frontend.map(|key| key.to_string())),
        ("owner", frontend.as_ref().map(|f| f.owner.to_string())),
        ("pool", pool),
        ("source", e.source.map(|(address, port)| SocketAddr::new(address, port).to_string())),
        ("backend", e.backend.map(|(address, _)| address.to_string())),
        ("forwarding", e.backend.map(|(_, forwarding)| word(forwarding).to_owned())),
        ("chosen_by", e.backend.map(|_| if e.from_flow { "flow record".to_owned() } else { "table".to_owned() })),
    ];
    told.facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    told.answer = match (e.backend, kind) {
        // Without a free source port nothing leaves, whatever was chosen.
        (Some((backend, _)), _) if e.source.is_none() => format!("dropped: no source port is free towards {backend}"),
        (Some((backend, Forwarding::Local)), _) => format!("forwarded to {backend}, on this node"),
        (Some((backend, Forwarding::Nat)), _) => format!("forwarded to {backend}, by address translation"),
        (None, Some(FrontendKind::L7)) if e.dropped => "dropped: the client exceeded limits too often".into(),
        (None, Some(FrontendKind::L7)) => match stream {
            Some(_) => "passed up to the proxy on this node, which takes it to a backend of the pool".into(),
            None => "passed up to the proxy on this node; ask again with the URL".into(),
        },
        (None, Some(FrontendKind::L4 { .. })) => "not forwarded: no backend takes new flows".into(),
        (None, None) => "not forwarded: not a frontend of ours".into(),
    };
    told
}

fn word(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Local => "local",
        Forwarding::Nat => "nat",
    }
}

/// By the snapshot that the proxy has in force, not the one that was planned last.
fn http(control: &Control, proxy: Option<&Proxy>, question: &HttpQuestion) -> Explanation {
    let Some(snapshot) = &control.in_proxy else {
        return Explanation { answer: "the proxy has no generation in force yet".into(), ..Explanation::default() };
    };
    let e = match proxy::explain(snapshot, &question.url.to_string(), &question.method, &question.headers) {
        Ok(e) => e,
        Err(e) => return failed(&e),
    };
    // The last step is the outcome.
    let answer = e.steps.last().cloned().unwrap_or_default();
    let mut steps = packet_steps(control, question.client, e.listener);
    steps.extend(unwell(&e, proxy));
    steps.extend(e.steps);
    let backends: Vec<_> = e.backends.iter().map(ToString::to_string).collect();
    let facts = [
        ("listener", e.listener.map(|l| l.to_string())),
        ("owner", e.owner.map(|o| o.to_string())),
        ("rule", e.rule),
        ("location", e.location),
        ("backends", (!backends.is_empty()).then(|| backends.join(", "))),
    ];
    let facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    Explanation { answer, steps, facts }
}

/// Which of the backends fail the route's health check. Before the route's own steps: the last of them is the answer.
fn unwell(e: &HttpExplanation, proxy: Option<&Proxy>) -> Vec<String> {
    let (Some(check), Some(proxy)) = (&e.check, proxy) else { return Vec::new() };
    let all: Vec<_> =
        proxy.health().into_iter().filter(|h| h.check == *check && e.backends.contains(&h.endpoint)).collect();
    let ill: Vec<_> = all.iter().filter(|h| !h.well).collect();
    let why = |reason: &Option<String>| reason.clone().unwrap_or_default();
    let mut steps: Vec<String> = ill
        .iter()
        .map(|h| format!("Backend {} fails its health check ({check}): {}.", h.endpoint, why(&h.reason)))
        .collect();
    if !ill.is_empty() && ill.len() == all.len() {
        steps.push("All backends do, so requests go to all of them.".to_owned());
    }
    steps
}

/// How the client's packets get to the listener, where the question names a client.
fn packet_steps(control: &Control, client: Option<IpAddr>, listener: Option<SocketAddr>) -> Vec<String> {
    let (Some(client), Some(listener)) = (client, listener) else { return Vec::new() };
    match control.dataplane.explain(Protocol::Tcp, SocketAddr::new(client, ANY_PORT), listener) {
        Ok(told) => told.steps,
        Err(e) => vec![format!("what happens to the packets cannot be explained: {e:#}")],
    }
}
