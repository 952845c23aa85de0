//! From a host to its answer: the route, what its policy lets pass, and what is shown instead of errors. The route's action itself stands in
//! `action`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::action::answered;
use super::body::{Body, Kind, RequestBody};
use super::client::Client;
use super::compile::CompiledListener;
use super::hosts::{CompiledRoute, Question};
use super::policy::{self, Admitted, Effects, Reply, View};
use super::pools::WorkerPool;
use super::record::Record;
use super::reply::{After, page, response};
use super::request::{Outgoing, RequestId};
use super::upstream::{self, Answer, Trace};
use crate::model::policy::{ErrorPages, Policy};

/// Finds the route, and has its policy say whether the request may go on. True beside the answer: without HSTS.
pub(super) async fn routed(
    client: &Rc<Client>,
    listener: &CompiledListener,
    view: &View<'_>,
    request_id: &RequestId<'_>,
    body: Incoming,
    mut record: Record,
) -> (Response<Body>, bool) {
    let parts = view.parts;
    let query = view.query();
    let question = Question { path: view.path, query, method: &parts.method, headers: &parts.headers };
    let host = listener.hosts.host(view.name);
    let Some((host, found)) = host.and_then(|host| Some((host, host.route(&question)?))) else {
        return (page(StatusCode::NOT_FOUND, After::KeepAlive, record), false);
    };
    let (secured, found) = (host.secured, Arc::clone(found));
    record.route = Some(Arc::clone(&found));
    client.worker.foresee(&found);
    let mut certificate = Vec::new();
    if let Some(mutual) = &host.mutual {
        match if client.tls { client.certificate_for(mutual) } else { mutual.in_clear(&found, host.secured) } {
            Ok(fields) => certificate = fields,
            Err(reply) => return (replied(reply, record), true),
        }
    }
    if found.terms.policy.is_some() {
        // On the heap, or the future of every request would have room for all that a policy may wait for.
        return Box::pin(under_policy(client, listener, view, request_id, &found, secured, certificate, body, record))
            .await;
    }
    let admitted = Admitted { certificate, ..Admitted::default() };
    let (answer, _) = answered(client, listener, view, request_id, &found, admitted, body, record).await;
    (answer, false)
}

/// The same for a route that has a policy.
#[expect(clippy::too_many_arguments, reason = "one request's parts, which live in its caller")]
async fn under_policy(
    client: &Rc<Client>,
    listener: &CompiledListener,
    view: &View<'_>,
    request_id: &RequestId<'_>,
    found: &Arc<CompiledRoute>,
    secured: bool,
    certificate: Vec<(HeaderName, HeaderValue)>,
    body: Incoming,
    record: Record,
) -> (Response<Body>, bool) {
    let Some(policy) = found.terms.policy.as_deref() else {
        return (page(StatusCode::INTERNAL_SERVER_ERROR, After::KeepAlive, record), false);
    };
    let mut record = record;
    if policy.unlogged {
        record.line = None;
    }
    let mut effects = found.snippet().map(|snippet| Box::new(snippet.run(view)));
    if let Some(reply) = effects.as_mut().and_then(|effects| effects.reply.take()) {
        let answer = policed(policy, view, replied(reply, record));
        return (affected(effects.as_deref(), answer), false);
    }
    let mut admitted = match policy::gate(&client.worker, policy, secured, view, record.started).await {
        Ok(admitted) => admitted,
        Err(reply) => {
            let bare = reply.bare;
            let answer = replied(reply, record);
            let answer = instead(client, listener, view, found, policy, answer, true).await;
            return (affected(effects.as_deref(), policed(policy, view, answer)), bare);
        }
    };
    admitted.certificate = certificate;
    admitted.effects = effects.as_ref().filter(|e| !e.request.is_empty()).cloned();
    let passed = admitted.external.as_ref().map(|p| (p.cookies.clone(), p.always));
    let (answer, own) = answered(client, listener, view, request_id, found, admitted, body, record).await;
    let mut answer = instead(client, listener, view, found, policy, answer, own).await;
    if let Some((cookies, always)) = passed
        && (always || [200, 201, 204, 206, 301, 302, 303, 304, 307, 308].contains(&answer.status().as_u16()))
    {
        for cookie in cookies {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    (affected(effects.as_deref(), policed(policy, view, answer)), false)
}

fn affected(effects: Option<&Effects>, mut answer: Response<Body>) -> Response<Body> {
    if let Some(effects) = effects {
        effects.on_answer(answer.status(), answer.headers_mut());
    }
    answer
}

pub(super) fn replied(reply: Reply, record: Record) -> Response<Body> {
    let mut answer = if let Some(text) = reply.text {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response(reply.status, headers, Kind::Full(text.into()), record)
    } else if reply.empty {
        response(reply.status, HeaderMap::new(), Kind::Empty, record)
    } else {
        page(reply.status, After::KeepAlive, record)
    };
    for (name, value) in reply.fields {
        answer.headers_mut().append(name, value);
    }
    answer
}

fn policed(policy: &Policy, view: &View<'_>, mut answer: Response<Body>) -> Response<Body> {
    if let Some(cors) = &policy.cors {
        policy::decorate(cors, &view.parts.headers, answer.headers_mut());
    }
    answer
}

/// The answer of another pool, where the policy wants it instead of an error. `own`: it is an answer of ours.
async fn instead(
    client: &Rc<Client>,
    listener: &CompiledListener,
    view: &View<'_>,
    found: &Arc<CompiledRoute>,
    policy: &Policy,
    answer: Response<Body>,
    own: bool,
) -> Response<Body> {
    let Some(pages) = policy.errors.as_deref() else { return answer };
    let status = answer.status();
    let wanted = (own || pages.intercept) && pages.codes.binary_search(&status.as_u16()).is_ok();
    if !wanted {
        return answer;
    }
    let Some(pool) = found.error_pool else {
        // Refusals stay what they are: a browser acts on 401.
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return answer;
        }
        return page(pages.otherwise, After::KeepAlive, answer.into_body().record);
    };
    let Some(pool) = client.worker.pool(pool) else { return answer };
    let target = view.parts.uri.query().map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
    asked_instead(client, listener, view, found, pages, &pool, target, answer).await
}

/// Whoever is asked decides what is shown, but lets nobody pass: what was refused stays refused.
#[expect(clippy::too_many_arguments, reason = "one request's parts, which live in its caller")]
pub(super) async fn asked_instead(
    client: &Rc<Client>,
    listener: &CompiledListener,
    view: &View<'_>,
    found: &CompiledRoute,
    pages: &ErrorPages,
    pool: &WorkerPool,
    target: String,
    answer: Response<Body>,
) -> Response<Body> {
    let none = HeaderValue::from_static("");
    let format = view.parts.headers.get(header::ACCEPT).unwrap_or(&none);
    let status = answer.status();
    let mut fields = policy::question(pages, status.as_u16(), format, view);
    if found.terms.policy.as_ref().is_some_and(|policy| policy.basic.is_some()) {
        // The password was for us.
        fields.remove(header::AUTHORIZATION);
    }
    let edited = Some(fields);
    let (host, target) = (Cow::Borrowed(view.authority), Cow::Owned(target));
    let request_id = RequestId::Made([b'0'; 32]);
    let (parts, origin, prefer) = (view.parts, None, None);
    let (raw, names) = (None, listener.settings.names);
    let outgoing =
        Outgoing { parts, client, target, raw, names, host, request_id, upgrade: None, edited, origin, prefer };
    let worker = &client.worker;
    let body = answer.body().record.kept.as_ref().and_then(RequestBody::again).unwrap_or_else(RequestBody::empty);
    match upstream::ask(worker, pool, &found.terms, &outgoing, body, &mut Trace::default()).await {
        Ok(Answer { status: theirs, mut headers, kind, .. }) => {
            hide(listener, &mut headers);
            let refused =
                matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !theirs.is_client_error();
            response(if refused { status } else { theirs }, headers, kind, answer.into_body().record)
        }
        Err(_) => answer,
    }
}

pub(super) fn hide(listener: &CompiledListener, headers: &mut HeaderMap) {
    if !listener.settings.pass_server {
        headers.remove(header::SERVER);
    }
    for name in &listener.settings.hide {
        headers.remove(name);
    }
}
