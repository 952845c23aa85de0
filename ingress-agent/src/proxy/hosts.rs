//! Which route a request takes: hosts, paths and conditions compiled for look-up. Immutable once built and shared by
//! all workers; it never changes what the model's order of routes says, it only finds the first match faster.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};
use regex::bytes::{Regex, RegexBuilder};

use super::expressions::Expressions;
use super::metrics::RouteStats;
use super::policy::{CompiledCanary, CompiledSnippet, Mutual};
use super::pools::PoolId;
use crate::model::policy::{Care, Upstream};
use crate::model::route::{Action, Filter, HostTable, PathMatch, Route, ValueMatch, VirtualHost};
use crate::model::snapshot::PoolName;

/// Regular expressions come from users: this bounds the memory of one compiled expression.
const REGEX_BYTES: usize = 1 << 20;

/// Virtual hosts of one or several listeners.
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Arc<Host>>,
    wildcard: HashMap<Box<str>, (bool, Arc<Host>)>,
    patterns: Vec<(Regex, Arc<Host>)>,
    any: Option<Arc<Host>>,
    pub(super) source: Arc<HostTable>,
}

/// The routes of one host.
pub(super) struct Host {
    routes: Vec<Arc<CompiledRoute>>,
    /// Indices into `routes`, ascending, by the whole path.
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// The same by prefix, and the longest prefix there is: longer parts of a path need no look-up.
    prefix: HashMap<Box<[u8]>, Vec<u32>>,
    longest_prefix: usize,
    regex: Expressions,
    pub(super) mutual: Option<Mutual>,
    pub(super) source: Arc<VirtualHost>,
}

/// A route with what can be prepared beforehand.
pub(super) struct CompiledRoute {
    pub(super) route: Arc<Route>,
    pub(super) stats: Arc<RouteStats>,
    /// Parallel to the weighted pools of the action.
    pub(super) pools: Vec<(PoolId, u32)>,
    pub(super) total_weight: u64,
    /// Some filter concerns the request's headers or its target: the fast way of writing the head does not apply.
    pub(super) edits_request: bool,
    pub(super) edits_response: bool,
    pub(super) mirrors: Vec<(PoolId, u32)>,
    /// Of the policy.
    pub(super) rewrite: Option<Regex>,
    pub(super) canaries: Vec<CompiledCanary>,
    pub(super) error_pool: Option<PoolId>,
    pub(super) snippet: Option<Box<CompiledSnippet>>,
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
            exact: source.exact.iter().map(|(name, h)| (name.as_str().into(), host(h))).collect(),
            wildcard: source
                .wildcard
                .iter()
                .map(|(name, w)| (name.as_str().into(), (w.one_label, host(&w.host))))
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
        if let Some(host) = self.exact.get(name) {
            return Some(host);
        }
        if !self.wildcard.is_empty() {
            let mut rest = name;
            let mut labels = 0;
            while let Some((label, suffix)) = rest.split_once('.') {
                labels += 1;
                if !label.is_empty()
                    && let Some((one_label, host)) = self.wildcard.get(suffix)
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
        let mut host = Self {
            routes: source.routes.iter().map(&mut compile).collect(),
            exact: HashMap::new(),
            prefix: HashMap::new(),
            longest_prefix: 0,
            regex: Expressions::new(expressions),
            mutual: source.client.as_ref().map(Mutual::new),
            source: Arc::clone(source),
        };
        for (index, route) in source.routes.iter().enumerate() {
            let index = index as u32;
            match &route.matches.path {
                PathMatch::Exact(path) => host.exact.entry(path.as_bytes().into()).or_default().push(index),
                PathMatch::Prefix(path) => {
                    host.longest_prefix = host.longest_prefix.max(path.len());
                    host.prefix.entry(path.as_bytes().into()).or_default().push(index);
                }
                PathMatch::Regex { .. } => {}
            }
        }
        host
    }

    pub(super) fn routes(&self) -> &[Arc<CompiledRoute>] {
        &self.routes
    }

    /// The first route, in the model's order, that matches.
    pub(super) fn route(&self, question: &Question<'_>) -> Option<&Arc<CompiledRoute>> {
        let mut best: Option<u32> = None;
        if let Some(bucket) = self.exact.get(question.path) {
            self.improve(&mut best, bucket, question);
        }
        let holds = |index: u32| self.routes[index as usize].matches(question);
        if let Some(index) = self.regex.first(question.path, holds) {
            best = Some(best.map_or(index, |b| b.min(index)));
        }
        if !self.prefix.is_empty() {
            self.prefixes(&mut best, question);
        }
        best.map(|index| &self.routes[index as usize])
    }

    /// Looks up the path cut at each end of an element. No more look-ups than the longest prefix has elements, whatever
    /// the client sends.
    fn prefixes(&self, best: &mut Option<u32>, question: &Question<'_>) {
        let path = question.path;
        if path.len() <= self.longest_prefix
            && let Some(bucket) = self.prefix.get(path)
        {
            self.improve(best, bucket, question);
        }
        let mut end = path.len().min(self.longest_prefix + 1);
        while let Some(slash) = path[..end].iter().rposition(|&b| b == b'/') {
            if let Some(bucket) = self.prefix.get(&path[..slash]) {
                self.improve(best, bucket, question);
            }
            end = slash;
        }
    }

    fn improve(&self, best: &mut Option<u32>, bucket: &[u32], question: &Question<'_>) {
        for &index in bucket {
            if best.is_some_and(|b| b <= index) {
                return;
            }
            if self.routes[index as usize].matches(question) {
                *best = Some(index);
                return;
            }
        }
    }
}

impl CompiledRoute {
    pub(super) fn new(
        route: &Arc<Route>,
        stats: Arc<RouteStats>,
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
            stats,
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

    /// Whatever the path is.
    fn matches(&self, question: &Question<'_>) -> bool {
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
