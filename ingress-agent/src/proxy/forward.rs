//! One request, from its head to the head of its response: strict checks, the route, its filters, and its action. Holds
//! no state of its own; what outlives it travels in the response's body.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::access_log::Line;
use super::body::{Body, Kind, RequestBody};
use super::client::Client;
use super::filters::{self, Rewritten};
use super::framing::Violation;
use super::hosts::{CompiledRoute, Question};
use super::metrics::UpstreamError;
use super::mirror;
use super::path::normalise;
use super::record::Record;
use super::reply::{After, page, response};
use super::request::{self, Outgoing, RequestId, X_REQUEST_ID};
use super::target::{Target, path, target};
use super::upstream::{self, Answer, Failure, Trace};
use super::worker::Worker;
use crate::model::route::{Action, Filter, WeightedPool};

pub(super) async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    client.worker.deadlines.set_now(started);
    let record = Record::new(Rc::clone(&client), started);
    let (parts, body) = request.into_parts();
    Ok(respond(&client, &parts, body, record).await)
}

/// The answer if the request may not go further.
fn refused(client: &Client, parts: &Parts) -> Option<(StatusCode, After)> {
    if parts.version != Version::HTTP_2 {
        let number = client.requests.get();
        client.requests.set(number.wrapping_add(1));
        if let Some((bad, violation)) = client.bad_head.get()
            && bad == number
        {
            tracing::debug!(peer = %client.peer, ?violation, "request refused");
            let status = match violation {
                Violation::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return Some((status, After::Close));
        }
    }
    // A reverse proxy opens no tunnels and echoes no requests (RFC 9110 §9.3.6, §9.3.8).
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, After::Close));
    }
    None
}

async fn respond(client: &Rc<Client>, parts: &Parts, body: Incoming, mut record: Record) -> Response<Body> {
    let worker = &client.worker;
    let made;
    let request_id = match parts.headers.get(X_REQUEST_ID) {
        Some(given) if !given.is_empty() => RequestId::Given(given),
        _ => {
            made = digits(worker);
            RequestId::Made(made)
        }
    };
    if worker.logs() {
        record.line = Some(Box::new(line(client, parts, &request_id)));
    }
    if let Some((status, after)) = refused(client, parts) {
        return page(status, after, record);
    }
    let Some(Target { authority, name }) = target(parts) else {
        return page(StatusCode::BAD_REQUEST, After::Close, record);
    };
    let Some(Ok(normalised)) = path(&parts.uri).map(normalise) else {
        return page(StatusCode::BAD_REQUEST, After::Close, record);
    };
    let listener = client.compiled();
    if parts.version == Version::HTTP_2
        && let (Some(server_name), Some(tls)) = (&client.server_name, &listener.tls)
        && tls.misdirected(server_name, &name)
    {
        // RFC 9110 §15.5.20: the client reused a connection whose certificate was not meant for this host.
        return page(StatusCode::MISDIRECTED_REQUEST, After::KeepAlive, record);
    }
    let query = parts.uri.query();
    let question = Question { path: &normalised, query, method: &parts.method, headers: &parts.headers };
    let Some(found) = listener.hosts.host(&name).and_then(|host| host.route(&question)) else {
        return page(StatusCode::NOT_FOUND, After::KeepAlive, record);
    };
    let found = Arc::clone(found);
    record.route = Some(Arc::clone(&found));
    let route = &found.route;
    let weighted = match &route.action {
        Action::Forward(pools) => pools,
        Action::Respond(status) => return edited(page(*status, After::KeepAlive, record), &found, None),
        Action::Redirect(redirect) => {
            let raw = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let port = client.listener.port();
            let location = filters::location(redirect, route, client.scheme(), &name, port, raw, &normalised);
            let mut response = page(redirect.status, After::KeepAlive, record);
            match HeaderValue::try_from(location) {
                Ok(location) => response.headers_mut().insert(header::LOCATION, location),
                Err(_) => return page_again(response, StatusCode::BAD_REQUEST),
            };
            return edited(response, &found, None);
        }
    };
    let Some(choice) = choose(worker, &found) else {
        return page(StatusCode::INTERNAL_SERVER_ERROR, After::KeepAlive, record);
    };
    if route.max_body.is_some_and(|most| hyper::body::Body::size_hint(&body).lower() > most) {
        return page(StatusCode::PAYLOAD_TOO_LARGE, After::Close, record);
    }
    let chosen = &weighted[choice];
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut rewritten = Rewritten { target: Cow::Borrowed(target), host: Cow::Borrowed(authority) };
    if found.edits_request {
        filters::rewrite(&mut rewritten, &route.filters, route, &normalised, query);
        filters::rewrite(&mut rewritten, &chosen.filters, route, &normalised, query);
    }
    let upgrade = request::upgrade(parts);
    let Rewritten { target, host } = rewritten;
    let mut outgoing = Outgoing { parts, client, target, host, request_id, upgrade, edited: None };
    if found.edits_request && edits_fields(route.filters.iter().chain(&chosen.filters)) {
        let mut headers = outgoing.headers();
        filters::edit_request(&mut headers, &route.filters);
        filters::edit_request(&mut headers, &chosen.filters);
        outgoing.edited = Some(headers);
    }
    let mut body = RequestBody::client(body, route.max_body);
    for &(pool, parts_per_million) in &found.mirrors {
        if worker.random() % 1_000_000 < u64::from(parts_per_million) {
            mirror::send(client, pool, &found, &outgoing, &mut body);
        }
    }
    let mut trace = Trace::default();
    let asked = Instant::now();
    let result = if let Some(pool) = worker.pool(found.pools[choice].0) {
        upstream::ask(worker, &pool, route, &outgoing, body, &mut trace).await
    } else {
        worker.counters.errors[UpstreamError::NoBackend as usize].add(1);
        Err(Failure::NoBackend)
    };
    if let Some(line) = &mut record.line {
        line.pool = Some(chosen.pool.clone());
        line.upstream = trace.backend;
        line.upstream_time = asked.elapsed();
        line.request_length += trace.received;
        line.upstream_status = result.as_ref().map_or(0, |answer| answer.status.as_u16());
    }
    match result {
        Ok(answer) => deliver(client, answer, upgrade.is_some(), &found, chosen, record),
        Err(failure) => {
            let after = match failure {
                Failure::TooLarge | Failure::Client => After::Close,
                _ => After::KeepAlive,
            };
            edited(page(failure.status(), after, record), &found, Some(chosen))
        }
    }
}

fn deliver(
    client: &Client,
    answer: Answer,
    wanted_upgrade: bool,
    found: &CompiledRoute,
    chosen: &WeightedPool,
    record: Record,
) -> Response<Body> {
    let Answer { status, mut headers, kind, tunnel } = answer;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(tunnel) = tunnel.filter(|_| wanted_upgrade) else {
            return page(StatusCode::BAD_GATEWAY, After::KeepAlive, record);
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        client.tunnel_idle.set(found.route.timeouts.read);
        client.tunnel.replace(Some(tunnel));
        return edited(response(status, headers, Kind::Empty, record), found, Some(chosen));
    }
    edited(response(status, headers, kind, record), found, Some(chosen))
}

fn edited(mut response: Response<Body>, found: &CompiledRoute, chosen: Option<&WeightedPool>) -> Response<Body> {
    if found.edits_response {
        filters::edit_response(response.headers_mut(), &found.route.filters);
        if let Some(chosen) = chosen {
            filters::edit_response(response.headers_mut(), &chosen.filters);
        }
    }
    response
}

/// The same record with another status.
fn page_again(response: Response<Body>, status: StatusCode) -> Response<Body> {
    page(status, After::KeepAlive, response.into_body().record)
}

fn edits_fields<'a>(mut filters: impl Iterator<Item = &'a Filter>) -> bool {
    filters.any(|f| matches!(f, Filter::RequestHeaders(_)))
}

/// Which of the weighted pools; `None` where no weight is left.
fn choose(worker: &Worker, found: &CompiledRoute) -> Option<usize> {
    if found.total_weight == 0 {
        return None;
    }
    if found.pools.len() == 1 {
        return Some(0);
    }
    let mut draw = worker.random() % found.total_weight;
    found.pools.iter().position(|&(_, weight)| {
        let hit = draw < u64::from(weight);
        draw = draw.saturating_sub(u64::from(weight));
        hit
    })
}

fn digits(worker: &Worker) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (mut high, mut low) = (worker.random(), worker.random());
    let mut out = [0; 32];
    for i in 0..16 {
        out[i] = HEX[(high & 15) as usize];
        out[i + 16] = HEX[(low & 15) as usize];
        high >>= 4;
        low >>= 4;
    }
    out
}

fn line(client: &Client, parts: &Parts, request_id: &RequestId<'_>) -> Line {
    // As it would have been in HTTP/1.1; hyper does not say how long the head was.
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = parts.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let request_length = (parts.method.as_str().len() + target + fields + 14) as u64;
    let field = |name| HeaderMap::get(&parts.headers, name).cloned();
    let authority = || parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    Line {
        peer: client.peer,
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        version: parts.version,
        host: field(header::HOST).or_else(authority),
        referer: field(header::REFERER),
        agent: field(header::USER_AGENT),
        request_length,
        request_id: request_id.as_bytes().to_vec(),
        pool: None,
        upstream: None,
        upstream_time: std::time::Duration::ZERO,
        upstream_status: 0,
    }
}
