//! What a route's policy does to a request on its way: who may pass, what is answered at once, where it goes instead. Routes without a
//! part pay a comparison for it.

mod view;

mod rewrite;

mod limits;

mod refusals;

mod places;

mod password;

mod basic;

mod external;

mod verdicts;

mod cors;

mod canary;

mod affinity;

mod errors;

mod mutual;

mod answers;

mod snippet;

use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

pub(super) use affinity::{Sticky, digest, hash, spread};
pub(super) use answers::edit as edit_answer;
pub(super) use basic::Passwords;
pub(super) use canary::CompiledCanary;
pub(super) use cors::decorate;
pub(super) use errors::question;
pub(super) use external::{NAMES_HOLD, Passed, addresses};
pub(super) use limits::{Limiter, Open};
pub(super) use mutual::{Mutual, forget, signs_itself};
pub(super) use refusals::Refusals;
pub(super) use rewrite::rewritten;
pub(super) use snippet::{CompiledSnippet, Effects};
pub(super) use verdicts::Verdicts;
pub(super) use view::{Origin, View, user};

use super::worker::Worker;
use crate::model::policy::{Block, FieldPattern, HttpsWhen, ListenerSettings, Policy};

/// An answer without a backend.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    /// Without HSTS, as ingress-nginx sends what it answers before it looks further.
    pub(super) bare: bool,
    pub(super) empty: bool,
    /// The body, instead of a page of ours.
    pub(super) text: Option<String>,
}

impl Reply {
    fn new(status: StatusCode) -> Self {
        Self { status, fields: Vec::new(), bare: false, empty: false, text: None }
    }

    pub(super) fn location(status: StatusCode, location: &str) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => Self { fields: vec![(header::LOCATION, location)], ..Self::new(status) },
            Err(_) => Self::new(StatusCode::BAD_REQUEST),
        }
    }
}

/// What a request that passes takes along.
#[derive(Default)]
pub(super) struct Admitted {
    pub(super) external: Option<Passed>,
    pub(super) open: Option<Open>,
    /// What the backend is told of the client's certificate.
    pub(super) certificate: Vec<(HeaderName, HeaderValue)>,
    /// What a snippet asks for.
    pub(super) effects: Option<Box<Effects>>,
}

/// The order is nginx's: rewriting, limits, access, authentication.
pub(super) async fn gate(
    worker: &std::rc::Rc<Worker>,
    policy: &Policy,
    secured: bool,
    view: &View<'_>,
    now: Instant,
) -> Result<Admitted, Reply> {
    if let Some(reply) = at_once(policy, secured, view) {
        return Err(reply);
    }
    let mut admitted = Admitted::default();
    if let Some(limits) = &policy.limits {
        admitted.open = worker.limiter.admit(limits, view.origin.address, now).map_err(|status| {
            refusals::refused(worker, limits, view, now);
            Reply::new(status)
        })?;
    }
    let by_address = policy.access.as_ref().map(|access| access.admits(view.origin.address));
    if policy.satisfy_any {
        if by_address == Some(true) {
            return Ok(admitted);
        }
    } else if by_address == Some(false) {
        return Err(Reply::new(StatusCode::FORBIDDEN));
    }
    if let Some(users) = &policy.basic {
        match basic::check(worker, users, &view.parts.headers).await {
            Ok(()) if policy.satisfy_any => return Ok(admitted),
            Ok(()) => {}
            Err(reply) if policy.satisfy_any && policy.external.is_some() => drop(reply),
            Err(reply) => return Err(reply),
        }
    }
    if let Some(external) = &policy.external {
        admitted.external = Some(external::ask(worker, external, view).await?);
    } else if policy.satisfy_any && policy.basic.is_none() && by_address == Some(false) {
        return Err(Reply::new(StatusCode::FORBIDDEN));
    }
    Ok(admitted)
}

fn at_once(policy: &Policy, secured: bool, view: &View<'_>) -> Option<Reply> {
    if let Some(redirect) = &policy.redirect {
        let mut location = view.fill(&redirect.location);
        if redirect.trim_slash && location.ends_with('/') {
            location.pop();
        }
        return Some(Reply { bare: redirect.trim_slash, ..Reply::location(redirect.status, &location) });
    }
    if let Some(root) = &policy.app_root
        && view.path == b"/"
    {
        return Some(Reply { bare: true, ..Reply::location(StatusCode::FOUND, &view.fill(root)) });
    }
    if let Some(cors) = &policy.cors
        && view.parts.method == Method::OPTIONS
        && cors::allowed(cors, &view.parts.headers).is_some()
    {
        return Some(Reply { empty: true, ..Reply::new(StatusCode::NO_CONTENT) });
    }
    let wanted = match policy.https.when {
        HttpsWhen::Never => false,
        HttpsWhen::Secured => secured,
        HttpsWhen::Always => true,
    };
    if wanted && view.origin.scheme == "http" {
        let host = view.origin.host.unwrap_or(view.authority);
        let host = String::from_utf8_lossy(host);
        let host = without_port(&host);
        let target = view.target();
        let trimmed = if policy.https.keep_slash { target } else { target.strip_suffix('/').unwrap_or(target) };
        let status = StatusCode::from_u16(policy.https.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        return Some(Reply::location(status, &format!("https://{host}{trimmed}")));
    }
    None
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// Patterns of a listener's settings, compiled.
#[derive(Default)]
pub(super) struct Blocked {
    agents: Patterns,
    referers: Patterns,
}

#[derive(Default)]
pub(super) struct Patterns(Vec<Pattern>);

enum Pattern {
    Exact(Box<str>),
    Regex(regex::bytes::Regex),
}

impl Patterns {
    pub(super) fn new(patterns: &[FieldPattern]) -> Self {
        let compiled = patterns.iter().filter_map(|pattern| match pattern {
            FieldPattern::Exact(text) => Some(Pattern::Exact(text.as_str().into())),
            FieldPattern::Regex { pattern, case_insensitive } => {
                super::hosts::expression(pattern, *case_insensitive).map(Pattern::Regex)
            }
        });
        Self(compiled.collect())
    }

    pub(super) fn has(&self, value: &[u8]) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Exact(text) => text.as_bytes() == value,
            Pattern::Regex(regex) => regex.is_match(value),
        })
    }
}

impl Blocked {
    pub(super) fn new(block: &Block) -> Self {
        Self { agents: Patterns::new(&block.agents), referers: Patterns::new(&block.referers) }
    }

    pub(super) fn blocks(&self, settings: &ListenerSettings, address: std::net::IpAddr, headers: &HeaderMap) -> bool {
        let within = settings.block.addresses.iter().any(|range| range.contains(&address));
        let found = |patterns: &Patterns, name: HeaderName| {
            !patterns.0.is_empty() && patterns.has(headers.get(name).map_or(&b""[..], HeaderValue::as_bytes))
        };
        within || found(&self.agents, header::USER_AGENT) || found(&self.referers, header::REFERER)
    }
}
