//! What a log line will need of a request, taken at its beginning: the request itself is gone when the line is written.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;

use super::access_log::Line;
use super::client::Client;
use super::compile::CompiledListener;
use super::odd::Odd;
use super::policy::user;
use super::request::RequestId;

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
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes();
    let target = odd.map_or(target, |odd| &odd.raw);
    if listener.unlogged.has(target) {
        return None;
    }
    // As it would have been in HTTP/1.1; hyper does not say how long the head was.
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let request_length = (parts.method.as_str().len() + target.len().max(1) + fields + 14) as u64;
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
