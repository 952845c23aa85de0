//! The request as a backend gets it: target, Host, what ingress-nginx adds, and nothing that belongs to the client's
//! connection only. Never changes the client's own request.

use std::borrow::Cow;
use std::io::Write as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use super::body::RequestBody;
use super::client::Client;
use super::policy::Origin;
use super::pools::Prefer;
use super::upstream::response::tokens;
use crate::model::policy::Names;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const X_ORIGINAL_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-original-forwarded-host");
const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");

pub(super) struct Outgoing<'a> {
    pub(super) parts: &'a Parts,
    pub(super) client: &'a Client,
    /// Path and query, raw unless a filter rewrote them.
    pub(super) target: Cow<'a, str>,
    /// The target as sent, where it is passed on and no URI can hold it.
    pub(super) raw: Option<&'a [u8]>,
    pub(super) names: Names,
    /// As the client sent it, unless a filter rewrote it.
    pub(super) host: Cow<'a, [u8]>,
    pub(super) request_id: RequestId<'a>,
    /// `Connection: upgrade` and this `Upgrade` are passed on.
    pub(super) upgrade: Option<&'a HeaderValue>,
    /// All headers, where filters changed them.
    pub(super) edited: Option<HeaderMap>,
    /// What a trusted proxy said of the client.
    pub(super) origin: Option<&'a Origin<'a>>,
    pub(super) prefer: Option<Prefer>,
}

/// The client's, or 32 random hexadecimal digits.
pub(super) enum RequestId<'a> {
    Given(&'a HeaderValue),
    Made([u8; 32]),
    /// None was sent, and none is made.
    None,
}

impl<'a> RequestId<'a> {
    pub(super) fn again(&self) -> RequestId<'a> {
        match self {
            Self::Given(value) => RequestId::Given(value),
            Self::Made(digits) => RequestId::Made(*digits),
            Self::None => RequestId::None,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(value) => value.as_bytes(),
            Self::Made(digits) => digits,
            Self::None => b"",
        }
    }
}

/// What becomes of a field of the client's request.
#[derive(PartialEq, Eq)]
enum Fate {
    Pass,
    /// Belongs to the connection, or is written anew.
    Drop,
    /// Passed on as `X-Original-Forwarded-For`.
    Original,
    /// Passed on as `X-Original-Forwarded-Host`.
    OriginalHost,
}

fn fate(name: &HeaderName, names: Names) -> Fate {
    let name = name.as_str();
    match name {
        // RFC 9110 §7.6.1, and what is written anew. Other fields that `Connection` names pass, as with nginx: whoever could have them
        // removed would hide from a backend what was judged here.
        "host" | "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade"
        | "content-length" | "expect" | "http2-settings"
        // httpoxy: CGI would turn it into HTTP_PROXY.
        | "proxy"
        | "x-request-id" | "x-real-ip" | "x-forwarded-port" | "x-forwarded-proto"
        | "x-forwarded-scheme" | "x-scheme" | "x-original-forwarded-for" | "x-original-forwarded-host" => Fate::Drop,
        "x-forwarded-for" => Fate::Original,
        "x-forwarded-host" => Fate::OriginalHost,
        // As nginx does: CGI could not tell `a_b` and `a.b` from `a-b`.
        _ if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Fate::Pass,
        _ => match names {
            Names::Plain => Fate::Drop,
            Names::Underscores if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => Fate::Drop,
            Names::Underscores | Names::All => Fate::Pass,
        },
    }
}

impl Outgoing<'_> {
    pub(super) fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The head for HTTP/1.1, without filters straight from the client's fields.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, body: &RequestBody) {
        out.extend_from_slice(self.parts.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.raw.unwrap_or(self.target.as_bytes()));
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(&self.host);
        out.extend_from_slice(b"\r\n");
        if let Some(edited) = &self.edited {
            for (name, value) in edited {
                line(out, name, value.as_bytes());
            }
        } else {
            if !matches!(self.request_id, RequestId::None) {
                line(out, &X_REQUEST_ID, self.request_id.as_bytes());
            }
            out.extend_from_slice(b"x-forwarded-host: ");
            out.extend_from_slice(&self.host);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&self.client.forwarded_block);
            for (name, value) in &self.parts.headers {
                match fate(name, self.names) {
                    Fate::Drop => {}
                    Fate::Pass => line(out, name, value.as_bytes()),
                    Fate::Original => line(out, &X_ORIGINAL_FORWARDED_FOR, value.as_bytes()),
                    Fate::OriginalHost => line(out, &X_ORIGINAL_FORWARDED_HOST, value.as_bytes()),
                }
            }
        }
        if let Some(upgrade) = self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
            out.extend_from_slice(upgrade.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match body.length() {
            // A body of no bytes is announced where the client announced it (RFC 9110 §8.6: POST and the like).
            Some(0) if !self.parts.headers.contains_key(header::CONTENT_LENGTH) => {}
            Some(length) => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "content-length: {length}\r\n");
            }
            None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The same fields as a map, for filters and for HTTP/2.
    pub(super) fn headers(&self) -> HeaderMap {
        let incoming = &self.parts.headers;
        let mut map = HeaderMap::with_capacity(incoming.len() + 8);
        for (name, value) in incoming {
            match fate(name, self.names) {
                Fate::Drop => {}
                Fate::Pass => {
                    map.append(name.clone(), value.clone());
                }
                Fate::Original => {
                    map.append(X_ORIGINAL_FORWARDED_FOR, value.clone());
                }
                Fate::OriginalHost => {
                    map.append(X_ORIGINAL_FORWARDED_HOST, value.clone());
                }
            }
        }
        let id = match &self.request_id {
            RequestId::Given(value) => Some((*value).clone()),
            RequestId::Made(digits) => HeaderValue::from_bytes(digits).ok(),
            RequestId::None => None,
        };
        if let Some(id) = id {
            map.insert(X_REQUEST_ID, id);
        }
        if let Ok(host) = HeaderValue::from_bytes(&self.host) {
            map.insert(X_FORWARDED_HOST, host);
        }
        let client = self.client;
        let scheme = HeaderValue::from_static(client.scheme());
        map.insert(X_REAL_IP, client.peer_value.clone());
        map.insert(X_FORWARDED_FOR, client.peer_value.clone());
        map.insert(X_FORWARDED_PORT, client.port_value.clone());
        map.insert(X_FORWARDED_PROTO, scheme.clone());
        map.insert(X_FORWARDED_SCHEME, scheme.clone());
        map.insert(X_SCHEME, scheme);
        if let Some(origin) = self.origin {
            Self::told(origin, &mut map);
        }
        map
    }

    /// A trusted proxy knows better.
    fn told(origin: &Origin<'_>, map: &mut HeaderMap) {
        let address = origin.address.to_string();
        if let Some(original) = origin.original {
            map.insert(X_ORIGINAL_FORWARDED_FOR, original.clone());
        }
        for (name, value) in [
            (X_REAL_IP, &*address),
            (X_FORWARDED_FOR, origin.forwarded_for.as_deref().unwrap_or(&address)),
            (X_FORWARDED_PORT, &*origin.port),
            (X_FORWARDED_PROTO, &*origin.scheme),
            (X_FORWARDED_SCHEME, &*origin.scheme),
            (X_SCHEME, &*origin.scheme),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                map.insert(name, value);
            }
        }
    }

    /// `None` where the target or host cannot stand in `:path` or `:authority`.
    pub(super) fn http2<B>(&self, body: B) -> Option<Request<B>> {
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let authority = std::str::from_utf8(&self.host).ok()?;
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(self.target.as_ref());
        *request.uri_mut() = uri.build().ok()?;
        let headers = request.headers_mut();
        *headers = self.edited.clone().unwrap_or_else(|| self.headers());
        if accepts_trailers(&self.parts.headers) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Some(request)
    }
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The constant part of the forwarded fields of a connection.
pub(super) fn forwarded_block(peer: &str, port: &str, scheme: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    for (name, value) in [
        (X_REAL_IP, peer),
        (X_FORWARDED_FOR, peer),
        (X_FORWARDED_PORT, port),
        (X_FORWARDED_PROTO, scheme),
        (X_FORWARDED_SCHEME, scheme),
        (X_SCHEME, scheme),
    ] {
        line(&mut out, &name, value.as_bytes());
    }
    out
}

/// RFC 9110 §10.1.4: only `trailers` of TE is the sender's promise for the whole chain.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let Some(te) = headers.get(header::TE) else { return false };
    tokens(te.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

/// The protocol that the client offers to switch to (RFC 9110 §7.8). As nginx does, the backend is told also where `Connection` does not nominate
/// it.
pub(super) fn upgrade(parts: &Parts) -> Option<&HeaderValue> {
    let wanted = parts.headers.get(header::UPGRADE)?;
    // h2c by upgrade is obsolete and must not reach a backend that would speak it (RFC 9113 §3.1).
    let tunnel = tokens(wanted.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"h2c"));
    (!tunnel && parts.version == Version::HTTP_11).then_some(wanted)
}

/// Only such a client can switch.
pub(super) fn nominates_upgrade(parts: &Parts) -> bool {
    let mut connection = parts.headers.get_all(header::CONNECTION).iter();
    connection.any(|v| tokens(v.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"upgrade")))
}

/// Fields that are written by us, and of which a setting's own stands beside ours (golden case 121).
pub(super) fn ours(name: &HeaderName) -> bool {
    [X_REAL_IP, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_FORWARDED_SCHEME, X_SCHEME]
        .contains(name)
}
