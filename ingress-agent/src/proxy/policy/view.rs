//! A request as policies look at it, and templates filled from it. What a client sent never becomes a line break: templates are made of fields
//! that were parsed, and their results are parsed again before they are sent.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;

use crate::model::policy::{ListenerSettings, Part, Template, Variable};
use crate::proxy::client::Client;
use crate::proxy::odd::Odd;

/// Who asks, and how, after forwarded fields of trusted proxies.
pub(in crate::proxy) struct Origin<'a> {
    /// The fields below were said by a trusted proxy.
    pub(in crate::proxy) told: bool,
    pub(in crate::proxy) scheme: Cow<'a, str>,
    pub(in crate::proxy) port: Cow<'a, str>,
    pub(in crate::proxy) address: IpAddr,
    /// As the backend is to see it.
    pub(in crate::proxy) host: Option<&'a [u8]>,
    /// What `X-Forwarded-For` becomes.
    pub(in crate::proxy) forwarded_for: Option<String>,
    /// `X-Original-Forwarded-For`, where another field than `X-Forwarded-For` says who it was.
    pub(in crate::proxy) original: Option<&'a HeaderValue>,
}

impl<'a> Origin<'a> {
    pub(in crate::proxy) fn of(client: &'a Client, parts: &'a Parts, settings: &ListenerSettings) -> Self {
        let trusted = |address: IpAddr| settings.trusted.iter().any(|range| range.contains(&address));
        let mut origin = Self {
            told: false,
            scheme: Cow::Borrowed(client.scheme()),
            port: Cow::Borrowed(&client.port_text),
            address: client.peer,
            host: None,
            forwarded_for: None,
            original: None,
        };
        if settings.trusted.is_empty() || !trusted(client.peer) {
            return origin;
        }
        origin.told = true;
        let field = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
        if let Some(scheme) = field("x-forwarded-proto") {
            origin.scheme = Cow::Borrowed(scheme);
        }
        if let Some(port) = field("x-forwarded-port") {
            origin.port = Cow::Borrowed(port);
        }
        origin.host = field("x-forwarded-host").map(str::as_bytes);
        let list = list(&parts.headers, &settings.forwarded_for);
        if settings.forwarded_for != "x-forwarded-for" {
            origin.original = parts.headers.get(&settings.forwarded_for);
        }
        // From the last one on: each was said by the one behind it, as long as that one is trusted.
        for address in list.iter().rev() {
            let Ok(address) = address.parse::<IpAddr>() else { break };
            origin.address = address.to_canonical();
            if !trusted(origin.address) {
                break;
            }
        }
        origin.forwarded_for = Some(if settings.append_forwarded_for && !list.is_empty() {
            format!("{}, {}", list.join(", "), client.peer)
        } else {
            origin.address.to_string()
        });
        origin
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
}

pub(in crate::proxy) struct View<'a> {
    pub(in crate::proxy) client: &'a Client,
    pub(in crate::proxy) parts: &'a Parts,
    pub(in crate::proxy) origin: &'a Origin<'a>,
    /// Lower case, without port.
    pub(in crate::proxy) name: &'a str,
    /// As sent.
    pub(in crate::proxy) authority: &'a [u8],
    /// Normalised.
    pub(in crate::proxy) path: &'a [u8],
    pub(in crate::proxy) request_id: &'a [u8],
    /// The target as sent, where hyper was shown another one.
    pub(in crate::proxy) odd: Option<&'a Odd>,
}

impl View<'_> {
    pub(in crate::proxy) fn target(&self) -> &str {
        if let Some(odd) = self.odd {
            return &odd.escaped;
        }
        self.parts.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    pub(in crate::proxy) fn query(&self) -> Option<&str> {
        self.odd.map_or_else(|| self.parts.uri.query(), Odd::query)
    }

    pub(in crate::proxy) fn fill(&self, template: &Template) -> String {
        let mut out = String::new();
        for part in &template.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => out.push_str(&self.variable(variable)),
            }
        }
        out
    }

    fn variable(&self, variable: &Variable) -> Cow<'_, str> {
        let query = || self.query().unwrap_or("");
        match variable {
            Variable::Scheme => Cow::Borrowed(&*self.origin.scheme),
            Variable::HttpHost => String::from_utf8_lossy(self.origin.host.unwrap_or(self.authority)),
            Variable::Host => Cow::Borrowed(self.name),
            Variable::RequestUri => Cow::Borrowed(self.target()),
            Variable::EscapedRequestUri => Cow::Owned(escape_component(self.target().as_bytes())),
            Variable::Uri => Cow::Owned(super::rewrite::escape_path(self.path)),
            Variable::Args => Cow::Borrowed(query()),
            Variable::IsArgs => Cow::Borrowed(if query().is_empty() { "" } else { "?" }),
            Variable::Argument(name) => {
                let pairs = query().split('&').filter_map(|pair| pair.split_once('='));
                let mut values = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
                values.next().map_or(Cow::Borrowed(""), |(_, value)| Cow::Owned(value.to_owned()))
            }
            Variable::Method => Cow::Borrowed(self.parts.method.as_str()),
            Variable::RemoteAddr => Cow::Owned(self.origin.address.to_string()),
            Variable::RemoteUser => Cow::Owned(user(&self.parts.headers).unwrap_or_default()),
            Variable::Cookie(name) => {
                cookie(&self.parts.headers, name, false).map_or(Cow::Borrowed(""), String::from_utf8_lossy)
            }
            Variable::Field(name) => {
                self.parts.headers.get(name).map_or(Cow::Borrowed(""), |v| String::from_utf8_lossy(v.as_bytes()))
            }
            Variable::ServerPort => Cow::Borrowed(&*self.origin.port),
            Variable::RequestId => String::from_utf8_lossy(self.request_id),
        }
    }
}

/// As the client calls himself, whether or not somebody checked it (nginx's `$remote_user`).
pub(in crate::proxy) fn user(headers: &HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let name = pair.split(|b| *b == b':').next()?;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// The value of a cookie.
pub(in crate::proxy) fn cookie<'a>(headers: &'a HeaderMap, name: &str, any_case: bool) -> Option<&'a [u8]> {
    for value in headers.get_all(header::COOKIE) {
        for pair in value.as_bytes().split(|&b| b == b';').map(<[u8]>::trim_ascii) {
            let Some(equals) = pair.iter().position(|&b| b == b'=') else { continue };
            let key = &pair[..equals];
            if key == name.as_bytes() || (any_case && key.eq_ignore_ascii_case(name.as_bytes())) {
                return Some(&pair[equals + 1..]);
            }
        }
    }
    None
}

/// As nginx's `escape_uri` of a component: all but unreserved characters.
pub(in crate::proxy) fn escape_component(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
