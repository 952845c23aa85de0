//! What a log line will need of a request, taken at its beginning: the request itself is gone when the line is written.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;

use super::access_log::Line;
use super::client::Client;
use super::compile::CompiledListener;
use super::meter::fields;
use super::odd::Odd;
use super::policy::user;
use super::request::RequestId;

/// As it would have been in HTTP/1.1; hyper does not say how long the head was.
pub(super) fn head_length(parts: &Parts, target: &[u8]) -> u64 {
    (parts.method.as_str().len() + target.len().max(1) + 14) as u64 + fields(&parts.headers)
}

/// Path and query as they were sent.
pub(super) fn sent_target<'a>(parts: &'a Parts, odd: Option<&'a Odd>) -> &'a [u8] {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes();
    odd.map_or(target, |odd| &odd.raw)
}

/// `None`: there will be none.
pub(super) fn line(
    client: &Client,
    listener: &CompiledListener,
    parts: &Parts,
    odd: Option<&Odd>,
    request_id: &RequestId<'_>,
) -> Option<Box<Line>> {
    let settings = &listener.settings.log;
    if settings.off {
        return None;
    }
    let target = sent_target(parts, odd);
    if listener.unlogged.has(target) {
        return None;
    }
    let request_length = head_length(parts, target);
    let field = |name| HeaderMap::get(&parts.headers, name).cloned();
    let authority = || parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let custom = settings.format.as_ref();
    Some(Box::new(Line {
        peer: client.peer,
        method: parts.method.clone(),
        target: target.to_vec(),
        version: parts.version,
        host: field(header::HOST).or_else(authority),
        referer: field(header::REFERER),
        agent: field(header::USER_AGENT),
        user: user(&parts.headers),
        scheme: client.scheme(),
        port: client.listener.port(),
        fields: custom.map_or_else(Vec::new, |f| f.fields().map(|name| parts.headers.get(name).cloned()).collect()),
        custom: custom.map(|_| std::sync::Arc::clone(&listener.settings)),
        owner: None,
        request_length,
        request_id: request_id.as_bytes().to_vec(),
        pool: None,
        upstream: None,
        upstream_time: std::time::Duration::ZERO,
        upstream_status: 0,
    }))
}
