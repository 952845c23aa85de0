//! The internal route model: what a listener does with a request. Wide enough for the whole Gateway API HTTPRoute
//! (matches, filters, weighted backends, timeouts), so that Ingress, Gateway API and annotations all compile to it
//! and nothing of them remains on the request path.
//!
//! Precedence is decided here, by [`Precedence`]'s derived order; the proxy only looks up.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::policy::{ClientCertificates, ListenerSettings, Policy};
use super::snapshot::{ObjectName, PoolName};
use super::stream::Passthrough;

/// One (address, port) on which HTTP is served. The hosts are usually shared by several listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub vip: IpAddr,
    pub port: u16,
    pub tls: Option<Tls>,
    pub hosts: Arc<HostTable>,
    pub settings: Arc<ListenerSettings>,
}

/// TLS of a listener: which certificate for which name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Exact names and `*.suffix` (one label), lower case, to the Secret's name. A name that is absent, and a client without
    /// SNI, gets `default`.
    pub by_name: Arc<BTreeMap<String, ObjectName>>,
    /// `None`: a self-signed certificate made at start.
    pub default: Option<ObjectName>,
}

/// Virtual hosts of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTable {
    /// Lower case, without port. Looked up first.
    pub exact: BTreeMap<String, Arc<VirtualHost>>,
    /// `*.example.com` is stored as `example.com`. The longest suffix wins.
    pub wildcard: BTreeMap<String, Wildcard>,
    /// Regular expressions over the whole name, matched without regard to case, in this order, where neither of those has it.
    pub patterns: Vec<(String, Arc<VirtualHost>)>,
    /// For any other host. Without it, and without a match in the chosen host, the answer is 404.
    pub any: Option<Arc<VirtualHost>>,
    /// By exact host, lower case: TLS for it is passed on as it comes. What the other fields say of it holds for clear text.
    pub passed: BTreeMap<String, Passthrough>,
}

/// A wildcard host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// Ingress: the `*` stands for exactly one label. Gateway API: one or more.
    pub one_label: bool,
    pub host: Arc<VirtualHost>,
}

/// The routes of one host, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualHost {
    /// Sorted by [`Route::precedence`]; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// A certificate was meant for it: its requests in clear text may be sent to https.
    pub secured: bool,
    /// Of the clients that come over TLS.
    pub client: Option<Arc<ClientCertificates>>,
    /// OpenSSL's names of the suites of TLS 1.2 that clients of it may choose from; empty: those of the listener.
    pub suites: Arc<[&'static str]>,
}

impl VirtualHost {
    /// Of routes in any order; equal ones stay in theirs.
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
        Self::ordered(routes)
    }

    /// Of routes that stand in the order in which they are tried.
    pub fn ordered(routes: Vec<Arc<Route>>) -> Self {
        Self { routes, ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The Ingress (or HTTPRoute) that it comes from, for people, metrics and logs.
    pub owner: ObjectName,
    /// As the owner wrote it: `shop.example/cart (Prefix)`.
    pub rule: String,
    pub matches: RouteMatch,
    pub filters: Vec<Filter>,
    pub action: Action,
    pub timeouts: Timeouts,
    pub retry: Retry,
    pub balance: Balance,
    /// Largest request body in bytes; `None` is unlimited.
    pub max_body: Option<u64>,
    /// What more is asked of its requests.
    pub policy: Option<Arc<Policy>>,
}

/// All present conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// An expression, anchored at the start and without regard to case, that the path must not match as well.
    pub unless: Option<String>,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    /// Tie-break: the older object first, as seconds since 1970, then its name.
    pub created: i64,
    pub object: ObjectName,
}

impl RouteMatch {
    /// Nothing but the path is asked for.
    pub fn is_path_only(&self) -> bool {
        self.unless.is_none() && self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path, case-sensitively.
    Exact(String),
    /// Whole elements: `/foo` matches `/foo`, `/foo/` and `/foo/bar`, not `/foobar`. Stored without a trailing slash;
    /// `""` matches everything.
    Prefix(String),
    /// Anchored at the start only. Compiled by the proxy with bounded size; matching is linear in the path.
    Regex { pattern: String, case_insensitive: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    Regex(String),
}

/// Smaller is better. Gateway API v1, HTTPRouteRule "matches": exact path, then the longest prefix, then a method, then
/// the most headers, then the most query parameters, then the older object, then its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence<'a> {
    path: (u8, Reverse<usize>),
    method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: i64,
    object: &'a ObjectName,
}

impl Route {
    pub fn precedence(&self) -> Precedence<'_> {
        let m = &self.matches;
        let path = match &m.path {
            PathMatch::Exact(p) => (0, Reverse(p.len())),
            PathMatch::Regex { pattern, .. } => (1, Reverse(pattern.len())),
            PathMatch::Prefix(p) => (2, Reverse(p.len())),
        };
        Precedence {
            path,
            method: m.method.is_none(),
            headers: Reverse(m.headers.len()),
            query: Reverse(m.query.len()),
            created: m.created,
            object: &m.object,
        }
    }
}

/// Applied in order, before the action (requests) or on the way back (responses).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    RequestHeaders(HeaderEdits),
    ResponseHeaders(HeaderEdits),
    RewritePath(PathRewrite),
    RewriteHost(String),
    /// A copy of the request goes to this pool; its answer is dropped.
    Mirror {
        pool: PoolName,
        parts_per_million: u32,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(String),
    /// Replaces what the route's prefix matched.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To one of the pools by weight. Empty, or all weights 0: 500 (Gateway API); a pool without backends: 503.
    Forward(Vec<WeightedPool>),
    Redirect(Redirect),
    /// Answer without a backend.
    Respond(StatusCode),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedPool {
    pub pool: PoolName,
    pub weight: u32,
    pub filters: Vec<Filter>,
}

/// Absent parts stay as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: RedirectPort,
    pub path: Option<PathRewrite>,
    pub status: StatusCode,
}

/// The port that a redirect names; that which is usual for its scheme is not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// The listener's, unless the scheme changes (Gateway API: `port` is absent).
    #[default]
    Own,
    /// None is written (nginx: `port_in_redirect off`).
    Usual,
    This(u16),
}

/// `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's last header byte to the response's last byte (Gateway API `request`).
    pub request: Option<Duration>,
    /// TCP (and TLS) to the backend.
    pub connect: Duration,
    /// From the request being sent to the response's first byte, and between two reads of the body.
    pub read: Option<Duration>,
    /// Between two writes towards the backend.
    pub send: Option<Duration>,
}

/// ingress-nginx's defaults: 5 s to connect, 60 s between reads and writes, no overall limit.
impl Default for Timeouts {
    fn default() -> Self {
        let minute = Some(Duration::from_mins(1));
        Self { request: None, connect: Duration::from_secs(5), read: minute, send: minute }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included. Only failures before the request reached a backend are tried again, on another one.
    pub tries: u32,
}

/// ingress-nginx's `proxy-next-upstream-tries`.
impl Default for Retry {
    fn default() -> Self {
        Self { tries: 3 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Balance {
    /// Smooth weighted round robin (nginx's).
    #[default]
    RoundRobin,
    /// Fewest requests under way, of two chosen at random where there are many.
    LeastRequest,
    /// Of two chosen at random the one that answered faster, as an average that forgets (ingress-nginx's `ewma`).
    Ewma,
}
