//! What a route does with a request that may pass: forward it, redirect it, or answer it. Holds no state of its own; what outlives it travels in the
//! response's body.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::body::{Body, Kind, RequestBody};
use super::client::Client;
use super::compile::CompiledListener;
use super::filters::{self, Rewritten};
use super::hosts::CompiledRoute;
use super::kept;
use super::metrics::UpstreamError;
use super::mirror;
use super::pace;
use super::policy::{self, Admitted, Reply, Sticky, View};
use super::pools::{Prefer, WorkerPool};
use super::record::Record;
use super::reply::{After, page, response};
use super::request::{self, Outgoing, RequestId};
use super::routed::{asked_instead, hide, replied};
use super::upstream::response::decimal;
use super::upstream::{self, Answer, Failure, Trace};
use super::worker::Worker;
use crate::model::policy::Canary;
use crate::model::route::{Action, Filter};

/// The route's action. True beside the answer: it is ours, not a backend's.
#[expect(clippy::too_many_arguments, reason = "one request's parts, which live in its caller")]
pub(super) async fn answered(
    client: &Rc<Client>,
    listener: &CompiledListener,
    view: &View<'_>,
    request_id: &RequestId<'_>,
    found: &Arc<CompiledRoute>,
    admitted: Admitted,
    body: Incoming,
    mut record: Record,
) -> (Response<Body>, bool) {
    let worker = &client.worker;
    let (parts, normalised, query) = (view.parts, view.path, view.query());
    let (route, terms) = (&found.route, &found.terms);
    record.open = admitted.open;
    // Where there is something to forward the model's route is not read, which takes time where nobody was lately.
    if found.total_weight == 0 {
        match &route.action {
            Action::Forward(_) => return (page(StatusCode::INTERNAL_SERVER_ERROR, After::KeepAlive, record), true),
            Action::Respond(status) if status.is_success() => {
                let mut headers = HeaderMap::with_capacity(2);
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
                return (edited(response(*status, headers, Kind::Empty, record), found, None), true);
            }
            Action::Respond(status) => return (edited(page(*status, After::KeepAlive, record), found, None), true),
            Action::Redirect(redirect) => {
                let port = client.listener.port();
                let location =
                    filters::location(redirect, route, client.scheme(), view.name, port, view.target(), normalised);
                let mut response = page(redirect.status, After::KeepAlive, record);
                match HeaderValue::try_from(location) {
                    Ok(location) => response.headers_mut().insert(header::LOCATION, location),
                    Err(_) => return (page_again(response, StatusCode::BAD_REQUEST), true),
                };
                return (edited(response, found, None), true);
            }
        }
    }
    let choice = choose(worker, found);
    if terms.max_body.is_some_and(|most| hyper::body::Body::size_hint(&body).lower() > most) {
        return (page(StatusCode::PAYLOAD_TOO_LARGE, After::Close, record), true);
    }
    let policy = terms.policy.as_deref();
    let host = view.origin.host.unwrap_or(view.authority);
    let mut rewritten = Rewritten { target: Cow::Borrowed(view.target()), host: Cow::Borrowed(host) };
    if found.edits_request {
        filters::rewrite(&mut rewritten, &route.filters, route, normalised, query);
        filters::rewrite(&mut rewritten, found.filters_of(choice), route, normalised, query);
    }
    let rewrite = policy.and_then(|p| p.rewrite.as_ref());
    if let (Some(rewrite), Some(pattern)) = (rewrite, &found.rewrite)
        && let Some(target) = policy::rewritten(rewrite, pattern, normalised, query)
    {
        if !target.starts_with('/') {
            let reply = Reply::location(StatusCode::FOUND, &target);
            return (edited(replied(reply, record), found, Some(choice)), true);
        }
        rewritten.target = Cow::Owned(target);
    }
    let upgrade = request::upgrade(parts);
    let switches = upgrade.is_some() && request::nominates_upgrade(parts);
    let Rewritten { target, host } = rewritten;
    let origin = view.origin.told.then_some(view.origin);
    let sticky = policy.and_then(|p| p.affinity.as_deref()).map(|affinity| (affinity, Sticky::read(affinity, view)));
    let prefer = match (&sticky, policy.and_then(|p| p.hash_by.as_ref())) {
        (Some((_, sticky)), _) => sticky.had.map(Prefer::Backend),
        (None, Some(wanted)) => {
            let hash = policy::hash(view.fill(&wanted.by).as_bytes());
            Some(wanted.subset.map_or(Prefer::Hash(hash), |size| Prefer::Subset { hash, size }))
        }
        (None, None) => None,
    };
    let id = request_id.again();
    // A target that was not rewritten goes on as it came.
    let raw = view.odd.filter(|_| matches!(target, Cow::Borrowed(_))).map(|odd| &*odd.raw);
    let names = listener.settings.names;
    let mut outgoing =
        Outgoing { parts, client, target, raw, names, host, request_id: id, upgrade, edited: None, origin, prefer };
    let sets = &listener.settings.set;
    let prefix = rewrite.and_then(|r| r.prefix.as_ref());
    let basic = policy.is_some_and(|p| p.basic.is_some());
    let told = !admitted.certificate.is_empty();
    let fields = found.edits_request && edits_fields(route.filters.iter().chain(found.filters_of(choice)));
    if fields
        || origin.is_some()
        || prefix.is_some()
        || basic
        || admitted.external.is_some()
        || told
        || admitted.effects.is_some()
        || !sets.is_empty()
    {
        let mut headers = outgoing.headers();
        if found.edits_request {
            filters::edit_request(&mut headers, &route.filters);
            filters::edit_request(&mut headers, found.filters_of(choice));
        }
        if let Some(prefix) = prefix {
            headers.insert("x-forwarded-prefix", prefix.clone());
        }
        if basic {
            // The password was for us.
            headers.remove(header::AUTHORIZATION);
        }
        if let Some(passed) = &admitted.external {
            for name in &passed.dropped {
                headers.remove(name);
            }
            for (name, value) in &passed.fields {
                headers.insert(name.clone(), value.clone());
            }
        }
        if !admitted.certificate.is_empty() {
            policy::forget(&mut headers);
            headers.extend(admitted.certificate.iter().cloned());
        }
        for (name, template) in sets {
            if let Ok(value) = HeaderValue::try_from(view.fill(template)) {
                if request::ours(name) {
                    headers.append(name.clone(), value);
                } else {
                    headers.insert(name.clone(), value);
                }
            }
        }
        if let Some(effects) = &admitted.effects {
            effects.on_request(&mut headers);
        }
        outgoing.edited = Some(headers);
    }
    let mut body = RequestBody::client(body, terms.max_body);
    if let Some(policy) = policy {
        if !body.is_empty() && kept::wanted(policy, &parts.method) {
            body.keep();
            record.kept = body.kept().cloned();
        }
        if let Some(to) = &policy.mirror {
            mirror::elsewhere(client, to, view, &mut body);
        }
    }
    for &(pool, parts_per_million) in found.mirrors() {
        if worker.random() % 1_000_000 < u64::from(parts_per_million) {
            mirror::send(client, pool, found, &outgoing, &mut body);
        }
    }
    let mut trace = Trace { timed: record.meter.is_some(), ..Trace::default() };
    let asked = (record.line.is_some() || trace.timed).then(Instant::now);
    let pool = worker.pool(found.pools[choice].0).map(|main| match policy.and_then(|p| p.canary.as_deref()) {
        Some(canaries) if !main.backends().is_empty() => {
            let kept =
                sticky.as_ref().filter(|(affinity, _)| affinity.canary_sticks).and_then(|(_, sticky)| sticky.had);
            let stays = kept.and_then(|had| stays(worker, found, &main, had));
            stays.or_else(|| canary(worker, found, canaries, view)).unwrap_or(main)
        }
        _ => main,
    });
    let result = if let Some(pool) = &pool {
        upstream::ask(worker, pool, terms, &outgoing, body, &mut trace).await
    } else {
        worker.counters.errors[UpstreamError::NoBackend as usize].add(1);
        Err(Failure::NoBackend)
    };
    if let Some(line) = &mut record.line {
        line.pool = found.weighted(choice).map(|chosen| chosen.pool.clone());
        line.upstream = trace.backend;
        line.upstream_time = asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        line.request_length += trace.received;
        line.upstream_status = result.as_ref().map_or(0, |answer| answer.status.as_u16());
    }
    if let (Some(meter), Some(asked)) = (&mut record.meter, asked) {
        meter.received += trace.received;
        if result.is_ok() {
            let canary = pool
                .as_ref()
                .map(|pool| &pool.name)
                .filter(|name| found.weighted(choice).is_some_and(|chosen| **name != chosen.pool));
            meter.answered(asked, &trace, canary);
        }
    }
    match result {
        Ok(mut answer) => {
            hide(listener, &mut answer.headers);
            if let Some(edits) = policy.and_then(|p| p.answers.as_deref()) {
                policy::edit_answer(edits, &mut answer.headers, view);
            }
            if let (Some((affinity, sticky)), Some(backend)) = (&sticky, trace.backend)
                && let Some(cookie) = sticky.cookie(affinity, backend, view)
            {
                answer.headers.append(header::SET_COOKIE, cookie);
            }
            let mut answer = deliver(client, answer, switches, found, choice, record);
            if let Some(rate) = policy.and_then(|p| p.send_rate) {
                pace::pace(rate, answer.body_mut());
            }
            (answer, false)
        }
        Err(failure) => {
            let after = match failure {
                Failure::TooLarge | Failure::Client => After::Close,
                _ => After::KeepAlive,
            };
            let answer = edited(page(failure.status(), after, record), found, Some(choice));
            let pages = policy.and_then(|p| p.errors.as_deref()).filter(|p| p.stands_in);
            if let (Failure::NoBackend, Some(pages)) = (failure, pages)
                && let Some(pool) = found.error_pool.and_then(|id| worker.pool(id))
            {
                let target = view.target().to_owned();
                // On the heap, for the same reason as policies: it is rare.
                let answer = asked_instead(client, listener, view, found, pages, &pool, target, answer);
                return (Box::pin(answer).await, false);
            }
            (answer, true)
        }
    }
}

/// Where the backend of a client's cookie is.
fn stays(worker: &Rc<Worker>, found: &CompiledRoute, main: &Rc<WorkerPool>, had: u64) -> Option<Rc<WorkerPool>> {
    if main.has(had) {
        return Some(Rc::clone(main));
    }
    found.canaries.iter().filter_map(|taker| worker.pool(taker.pool)).find(|pool| pool.has(had))
}

/// The first canary that wants the request and has somebody to serve it.
fn canary(worker: &Rc<Worker>, found: &CompiledRoute, canaries: &[Canary], view: &View<'_>) -> Option<Rc<WorkerPool>> {
    let mut both = canaries.iter().zip(&found.canaries);
    let (_, taker) = both.find(|(c, compiled)| compiled.takes(c, &view.parts.headers, || worker.random()))?;
    worker.pool(taker.pool).filter(|pool| !pool.backends().is_empty())
}

fn deliver(
    client: &Client,
    answer: Answer,
    wanted_upgrade: bool,
    found: &CompiledRoute,
    choice: usize,
    record: Record,
) -> Response<Body> {
    let Answer { status, mut headers, mut kind, tunnel } = answer;
    if status == StatusCode::NOT_MODIFIED
        && let Some(length) = headers.get(header::CONTENT_LENGTH).and_then(|v| decimal(v.as_bytes()))
    {
        // RFC 9110 §8.6: that of the answer that it stands for. hyper sends it only where a body says so, too.
        kind = Kind::Said(length);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(tunnel) = tunnel.filter(|_| wanted_upgrade) else {
            return page(StatusCode::BAD_GATEWAY, After::KeepAlive, record);
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        client.tunnel_idle.set(found.terms.timeouts.read);
        client.tunnel.replace(Some(tunnel));
        return edited(response(status, headers, Kind::Empty, record), found, Some(choice));
    }
    edited(response(status, headers, kind, record), found, Some(choice))
}

fn edited(mut response: Response<Body>, found: &CompiledRoute, choice: Option<usize>) -> Response<Body> {
    if found.edits_response {
        filters::edit_response(response.headers_mut(), &found.route.filters);
        if let Some(choice) = choice {
            filters::edit_response(response.headers_mut(), found.filters_of(choice));
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

/// Which of the weighted pools of a route whose weights are not all zero.
fn choose(worker: &Worker, found: &CompiledRoute) -> usize {
    if found.pools.len() == 1 {
        return 0;
    }
    let mut draw = worker.random() % found.total_weight.max(1);
    let hit = found.pools.iter().position(|&(_, weight)| {
        let hit = draw < u64::from(weight);
        draw = draw.saturating_sub(u64::from(weight));
        hit
    });
    hit.unwrap_or(0)
}
