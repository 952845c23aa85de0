//! `auth-url`: another server is asked whether a request may pass. Only 2xx lets it; whatever goes wrong refuses.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};

use super::Reply;
use super::view::{View, escape_component};
use crate::model::policy::{ExternalAuth, Names};
use crate::proxy::body::RequestBody;
use crate::proxy::request::{Outgoing, RequestId};
use crate::proxy::terms::Terms;
use crate::proxy::upstream::{self, Trace};
use crate::proxy::worker::Worker;

/// How long names are believed to lead to the same addresses.
pub(in crate::proxy) const NAMES_HOLD: Duration = Duration::from_secs(30);

/// What the answer gives to a request that passes.
#[derive(Clone)]
pub(in crate::proxy) struct Passed {
    /// For the backend.
    pub(in crate::proxy) fields: Vec<(HeaderName, HeaderValue)>,
    /// Of the client's, taken away: what the answer did not confirm must not be made up.
    pub(in crate::proxy) dropped: Vec<HeaderName>,
    /// For the client.
    pub(in crate::proxy) cookies: Vec<HeaderValue>,
    pub(in crate::proxy) always: bool,
}

pub(super) async fn ask(worker: &Rc<Worker>, auth: &Arc<ExternalAuth>, view: &View<'_>) -> Result<Passed, Reply> {
    let Some(cache) = &auth.cache else { return asked(worker, auth, view, &mut None).await };
    let key = view.fill(&cache.key);
    let now = Instant::now();
    if let Some(said) = worker.verdicts.find(auth, &key, now) {
        return said;
    }
    let mut status = None;
    let said = asked(worker, auth, view, &mut status).await;
    // A cookie, and the way back from a sign-in, are for one request.
    let general = match &said {
        Ok(passed) => passed.cookies.is_empty(),
        Err(_) => auth.signin.is_none() || status != Some(StatusCode::UNAUTHORIZED),
    };
    if let Some(time) = status.filter(|_| general).and_then(|status| cache.holds(status))
        && let Some(until) = now.checked_add(time)
    {
        worker.verdicts.remember(auth, key, until, said.clone());
    }
    said
}

/// `status` becomes what the server answered.
async fn asked(
    worker: &Rc<Worker>,
    auth: &ExternalAuth,
    view: &View<'_>,
    status: &mut Option<StatusCode>,
) -> Result<Passed, Reply> {
    let failed = || Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let pool = addresses(worker, &auth.host, auth.port, auth.secure).await.ok_or_else(failed)?;
    let pool = worker.question_pool(&auth.host, auth.port, auth.secure, pool);
    let mut request = Request::new(());
    *request.method_mut() = auth.method.clone().unwrap_or_default();
    let (parts, ()) = request.into_parts();
    let target = view.fill(&auth.target);
    if target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(failed());
    }
    let outgoing = Outgoing {
        parts: &parts,
        client: view.client,
        target: Cow::Owned(target),
        raw: None,
        names: Names::Plain,
        host: Cow::Borrowed(auth.host.as_bytes()),
        request_id: RequestId::Made([b'0'; 32]),
        upgrade: None,
        edited: Some(fields(auth, view)),
        origin: None,
        prefer: None,
    };
    let (terms, mut trace) = (Terms::default(), Trace::default());
    let answer = upstream::ask(worker, &pool, &terms, &outgoing, RequestBody::empty(), &mut trace).await;
    let answer = answer.map_err(|_| failed())?;
    *status = Some(answer.status);
    let cookies: Vec<HeaderValue> = answer.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if answer.status.is_success() {
        let mut fields = Vec::new();
        for name in &auth.response_headers {
            fields.extend(answer.headers.get(name).map(|value| (name.clone(), value.clone())));
        }
        let (dropped, always) = (auth.response_headers.clone(), auth.always_set_cookie);
        return Ok(Passed { fields, dropped, cookies, always });
    }
    match answer.status {
        StatusCode::UNAUTHORIZED => {
            if let Some(signin) = &auth.signin {
                let mut reply = Reply::location(StatusCode::FOUND, &signin_address(auth, view, &view.fill(signin)));
                reply.bare = true;
                reply.fields.extend(cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
                return Err(reply);
            }
            let challenge = answer.headers.get(header::WWW_AUTHENTICATE).cloned();
            let fields = challenge.map(|value| (header::WWW_AUTHENTICATE, value)).into_iter().collect();
            Err(Reply { fields, ..Reply::new(StatusCode::UNAUTHORIZED) })
        }
        StatusCode::FORBIDDEN => Err(Reply::new(StatusCode::FORBIDDEN)),
        _ => Err(failed()),
    }
}

/// With the request's own address in its parameter, unless it has that already.
fn signin_address(auth: &ExternalAuth, view: &View<'_>, signin: &str) -> String {
    let parameter = &auth.signin_parameter;
    if signin.split_once('?').is_some_and(|(_, q)| q.split('&').any(|p| p.split('=').next() == Some(parameter))) {
        return signin.to_owned();
    }
    let mark = if signin.contains('?') { '&' } else { '?' };
    let host = String::from_utf8_lossy(view.origin.host.unwrap_or(view.authority));
    let target = escape_component(view.target().as_bytes());
    format!("{signin}{mark}{parameter}={}://{host}{target}", view.origin.scheme)
}

/// What the server is told, and what of the client's own.
fn fields(auth: &ExternalAuth, view: &View<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &view.parts.headers {
        let dropped = matches!(
            name.as_str(),
            "host"
                | "connection"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "transfer-encoding"
                | "upgrade"
                | "content-length"
                | "expect"
                | "http2-settings"
                | "proxy"
                | "x-request-id"
                | "x-original-url"
                | "x-original-method"
                | "x-sent-from"
                | "x-real-ip"
                | "x-forwarded-for"
                | "x-forwarded-proto"
                | "x-auth-request-redirect"
        ) || name.as_str().contains(['_', '.']);
        if !dropped {
            map.append(name.clone(), value.clone());
        }
    }
    let host = String::from_utf8_lossy(view.authority);
    let original = format!("{}://{host}{}", view.origin.scheme, view.target());
    let address = view.origin.address.to_string();
    let redirect = auth.request_redirect.as_ref().map_or_else(|| view.target().to_owned(), |t| view.fill(t));
    let mut set = |name: HeaderName, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.insert(name, value);
        }
    };
    let named = HeaderName::from_static;
    set(named("x-request-id"), view.request_id);
    set(named("x-original-url"), original.as_bytes());
    set(named("x-original-method"), view.parts.method.as_str().as_bytes());
    set(named("x-sent-from"), b"nginx-ingress-controller");
    set(named("x-real-ip"), address.as_bytes());
    set(named("x-forwarded-for"), address.as_bytes());
    set(named("x-auth-request-redirect"), redirect.as_bytes());
    if auth.method.is_some() {
        set(named("x-original-uri"), view.target().as_bytes());
        set(named("x-scheme"), view.origin.scheme.as_bytes());
    }
    for (name, template) in &auth.set_headers {
        let value = view.fill(template);
        // Without a value a field is not sent (nginx, `proxy_set_header`).
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(_) if value.is_empty() => drop(map.remove(name)),
            Ok(value) => drop(map.insert(name.clone(), value)),
            Err(_) => {}
        }
    }
    map
}

/// The server's addresses; a name is looked up beside the worker's thread.
pub(in crate::proxy) async fn addresses(
    worker: &Rc<Worker>,
    host: &str,
    port: u16,
    secure: bool,
) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    if let Some(known) = worker.known_addresses(host, port, secure) {
        return Some(known);
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.ok()?.collect();
    if found.is_empty() {
        return None;
    }
    Some(found)
}
