//! Which route a request takes: hosts, paths and conditions compiled for look-up. Immutable once built and shared by
//! all workers; it never changes what the model's order of routes says, it only finds the first match faster.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use http::{HeaderMap, Method};
use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use super::expressions::Expressions;
use super::metrics::{RouteCounters, RouteStats};
use super::paths::Paths;
use super::policy::{CompiledCanary, CompiledSnippet, Mutual};
use super::pools::PoolId;
use super::terms::Terms;
use crate::model::policy::{Care, Upstream};
use crate::model::route::{Action, Filter, HostTable, PathMatch, Route, ValueMatch, VirtualHost, WeightedPool};
use crate::model::snapshot::PoolName;

/// Regular expressions come from users: this bounds the memory of one compiled expression.
const REGEX_BYTES: usize = 1 << 20;

/// Most names stand in the table itself: one place less in memory for each request.
type Name = SmallVec<[u8; 24]>;

/// Virtual hosts of one or several listeners.
pub(super) struct Hosts {
    exact: HashMap<Name, Arc<Host>, RandomState>,
    wildcard: HashMap<Name, (bool, Arc<Host>), RandomState>,
    patterns: Vec<(Regex, Arc<Host>)>,
    any: Option<Arc<Host>>,
    pub(super) source: Arc<HostTable>,
}

/// The routes of one host. In this order: what every request needs stands together.
#[repr(C)]
pub(super) struct Host {
    pub(super) secured: bool,
    has_expressions: bool,
    pub(super) mutual: Option<Box<Mutual>>,
    paths: Paths,
    routes: Vec<Arc<CompiledRoute>>,
    regex: Expressions,
    pub(super) source: Arc<VirtualHost>,
}

/// A route with what can be prepared beforehand. In this order: what every request needs stands together.
#[repr(C)]
pub(super) struct CompiledRoute {
    pub(super) terms: Arc<Terms>,
    /// Parallel to the weighted pools of the action.
    pub(super) pools: SmallVec<[(PoolId, u32); 2]>,
    pub(super) total_weight: u64,
    /// Some filter concerns the request's headers or its target: the fast way of writing the head does not apply.
    pub(super) edits_request: bool,
    pub(super) edits_response: bool,
    /// More is asked than a path.
    conditional: bool,
    mirrored: bool,
    has_snippet: bool,
    /// By worker; those of few workers stand in place.
    counters: SmallVec<[OnceLock<Arc<RouteCounters>>; 4]>,
    pub(super) stats: Arc<RouteStats>,
    mirrors: Vec<(PoolId, u32)>,
    /// Of the policy.
    pub(super) rewrite: Option<Regex>,
    pub(super) canaries: Vec<CompiledCanary>,
    pub(super) error_pool: Option<PoolId>,
    snippet: Option<Box<CompiledSnippet>>,
    pub(super) route: Arc<Route>,
    unless: Option<Regex>,
    headers: Vec<Compare>,
    query: Vec<Compare>,
}

enum Compare {
    Exact(Box<str>),
    Regex(Regex),
    /// The expression was refused: nothing matches.
    Never,
}

/// What a host match is asked about.
pub(super) struct Question<'a> {
    /// Normalised.
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a str>,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
}

impl Hosts {
    pub(super) fn new(source: &Arc<HostTable>, mut host: impl FnMut(&Arc<VirtualHost>) -> Arc<Host>) -> Self {
        Self {
            exact: source.exact.iter().map(|(name, h)| (name.as_bytes().into(), host(h))).collect(),
            wildcard: source
                .wildcard
                .iter()
                .map(|(name, w)| (name.as_bytes().into(), (w.one_label, host(&w.host))))
                .collect(),
            patterns: source
                .patterns
                .iter()
                .filter_map(|(pattern, h)| Some((byte_expression(pattern)?, host(h))))
                .collect(),
            any: source.any.as_ref().map(&mut host),
            source: Arc::clone(source),
        }
    }

    /// `name` is lower case and without port. An exact host wins over wildcards, the longest wildcard over shorter ones.
    pub(super) fn host(&self, name: &str) -> Option<&Arc<Host>> {
        if let Some(host) = self.exact.get(name.as_bytes()) {
            return Some(host);
        }
        if !self.wildcard.is_empty() {
            let mut rest = name;
            let mut labels = 0;
            while let Some((label, suffix)) = rest.split_once('.') {
                labels += 1;
                if !label.is_empty()
                    && let Some((one_label, host)) = self.wildcard.get(suffix.as_bytes())
                    && (!one_label || labels == 1)
                {
                    return Some(host);
                }
                rest = suffix;
            }
        }
        for (pattern, host) in &self.patterns {
            if pattern.is_match(name.as_bytes()) {
                return Some(host);
            }
        }
        self.any.as_ref()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Host>> {
        let wildcard = self.wildcard.values().map(|(_, h)| h);
        self.exact.values().chain(wildcard).chain(self.patterns.iter().map(|(_, h)| h)).chain(&self.any)
    }
}

impl Host {
    pub(super) fn new(source: &Arc<VirtualHost>, mut compile: impl FnMut(&Arc<Route>) -> Arc<CompiledRoute>) -> Self {
        let numbered = source.routes.iter().enumerate().map(|(number, route)| (number as u32, &**route));
        let expressions = numbered.filter(|(_, route)| matches!(route.matches.path, PathMatch::Regex { .. }));
        let routes: Vec<_> = source.routes.iter().map(&mut compile).collect();
        Self {
            secured: source.secured,
            has_expressions: expressions.clone().next().is_some(),
            paths: Paths::new(&routes),
            routes,
            regex: Expressions::new(expressions),
            mutual: source.client.as_ref().map(|client| Box::new(Mutual::new(client))),
            source: Arc::clone(source),
        }
    }

    pub(super) fn routes(&self) -> &[Arc<CompiledRoute>] {
        &self.routes
    }

    /// The first route, in the model's order, that matches.
    pub(super) fn route(&self, question: &Question<'_>) -> Option<&Arc<CompiledRoute>> {
        let by_path = self.paths.first(question.path, |route| route.matches(question));
        let holds = |number| self.routes[number as usize].matches(question);
        let by_expression = if self.has_expressions { self.regex.first(question.path, holds) } else { None };
        match (by_path, by_expression) {
            (Some(path), Some(number)) if number < path.number => self.routes.get(number as usize),
            (Some(path), _) => Some(&path.route),
            (None, number) => self.routes.get(number? as usize),
        }
    }
}

impl CompiledRoute {
    pub(super) fn new(
        route: &Arc<Route>,
        stats: Arc<RouteStats>,
        terms: Arc<Terms>,
        mut pool: impl FnMut(&PoolName, Option<&Arc<Upstream>>, Option<&Arc<Care>>) -> PoolId,
    ) -> Self {
        let matches = &route.matches;
        let weighted = match &route.action {
            Action::Forward(pools) => pools.as_slice(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        };
        let policy = route.policy.as_deref();
        let upstream = policy.and_then(|p| p.upstream.as_ref());
        let care = policy.and_then(|p| p.care.as_ref());
        let canaries = policy.and_then(|p| p.canary.as_deref()).into_iter().flatten();
        let filters = || route.filters.iter().chain(weighted.iter().flat_map(|w| &w.filters));
        let mirror = |f: &Filter| match f {
            Filter::Mirror { pool: name, parts_per_million } => Some((name.clone(), *parts_per_million)),
            _ => None,
        };
        Self {
            terms,
            counters: (0..stats.workers()).map(|_| OnceLock::new()).collect(),
            stats,
            conditional: !matches.is_path_only(),
            mirrored: filters().any(|f| matches!(f, Filter::Mirror { .. })),
            has_snippet: policy.is_some_and(|p| p.snippet.is_some()),
            pools: weighted.iter().map(|w| (pool(&w.pool, upstream, care), w.weight)).collect(),
            total_weight: weighted.iter().map(|w| u64::from(w.weight)).sum(),
            edits_request: filters()
                .any(|f| matches!(f, Filter::RequestHeaders(_) | Filter::RewritePath(_) | Filter::RewriteHost(_))),
            edits_response: filters().any(|f| matches!(f, Filter::ResponseHeaders(_))),
            mirrors: filters().filter_map(mirror).map(|(name, parts)| (pool(&name, None, None), parts)).collect(),
            rewrite: policy.and_then(|p| p.rewrite.as_ref()).and_then(|r| byte_expression(&r.pattern)),
            canaries: canaries.map(|c| CompiledCanary::new(c, pool(&c.pool, upstream, care))).collect(),
            error_pool: policy.and_then(|p| p.errors.as_ref()?.pool.as_ref()).map(|name| pool(name, None, None)),
            snippet: policy.and_then(|p| p.snippet.as_ref()).map(|s| Box::new(CompiledSnippet::new(s))),
            unless: matches.unless.as_ref().and_then(|pattern| byte_expression(&format!("^(?:{pattern})"))),
            headers: matches.headers.iter().map(|h| Compare::new(&h.value)).collect(),
            query: matches.query.iter().map(|q| Compare::new(&q.value)).collect(),
            route: Arc::clone(route),
        }
    }

    pub(super) fn mirrors(&self) -> &[(PoolId, u32)] {
        if self.mirrored { &self.mirrors } else { &[] }
    }

    pub(super) fn snippet(&self) -> Option<&CompiledSnippet> {
        if self.has_snippet { self.snippet.as_deref() } else { None }
    }

    pub(super) fn counters(&self, worker: usize) -> Option<&RouteCounters> {
        self.counters.get(worker).map(|counters| &**counters.get_or_init(|| self.stats.counters(worker)))
    }

    /// Of those that the action forwards to.
    pub(super) fn weighted(&self, choice: usize) -> Option<&WeightedPool> {
        match &self.route.action {
            Action::Forward(pools) => pools.get(choice),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    pub(super) fn filters_of(&self, choice: usize) -> &[Filter] {
        self.weighted(choice).map_or(&[], |chosen| &chosen.filters)
    }

    /// Whatever the path is.
    fn matches(&self, question: &Question<'_>) -> bool {
        !self.conditional || self.holds(question)
    }

    fn holds(&self, question: &Question<'_>) -> bool {
        let matches = &self.route.matches;
        if matches.method.as_ref().is_some_and(|m| m != question.method) {
            return false;
        }
        if matches.unless.is_some() && self.unless.as_ref().is_none_or(|regex| regex.is_match(question.path)) {
            return false;
        }
        let header = |(wanted, compare): (&crate::model::route::HeaderMatch, &Compare)| {
            let mut values = question.headers.get_all(&wanted.name).iter();
            let Some(first) = values.next() else { return false };
            let Some(second) = values.next() else { return compare.matches(first.as_bytes()) };
            // RFC 9110 §5.3: several lines of one name are one list.
            let mut joined = [first.as_bytes(), b", ", second.as_bytes()].concat();
            for value in values {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(value.as_bytes());
            }
            compare.matches(&joined)
        };
        if !matches.headers.iter().zip(&self.headers).all(header) {
            return false;
        }
        matches.query.iter().zip(&self.query).all(|(wanted, compare)| {
            parameter(question.query.unwrap_or(""), &wanted.name).is_some_and(|value| compare.matches(&value))
        })
    }
}

impl Compare {
    fn new(value: &ValueMatch) -> Self {
        match value {
            ValueMatch::Exact(text) => Self::Exact(text.as_str().into()),
            ValueMatch::Regex(pattern) => {
                expression(&format!("^(?:{pattern})$"), false).map_or(Self::Never, Self::Regex)
            }
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
            Self::Never => false,
        }
    }
}

/// A refused expression matches nothing and is logged: the plan has told its owner already.
pub(super) fn expression(pattern: &str, case_insensitive: bool) -> Option<Regex> {
    built(pattern, RegexBuilder::new(pattern).case_insensitive(case_insensitive))
}

/// Over bytes and without regard to case, as nginx's locations are.
pub(super) fn byte_expression(pattern: &str) -> Option<Regex> {
    built(pattern, RegexBuilder::new(pattern).case_insensitive(true).unicode(false))
}

fn built(pattern: &str, builder: &mut RegexBuilder) -> Option<Regex> {
    let built = builder.size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build();
    built.map_err(|error| tracing::warn!(pattern, %error, "regular expression refused: this rule matches nothing")).ok()
}

/// The first parameter of that name, decoded (Gateway API: only the first is considered).
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*form_decoded(key) == *name.as_bytes()).then(|| form_decoded(value))
    })
}

/// `+` is a space and `%XX` a byte; a broken escape stays as it is, for a query is the application's own.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|&b| (b as char).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
