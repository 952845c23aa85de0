//! What a route asks of a request beyond matching and forwarding it: redirects, access, authentication, limits, what is done about errors. Typed
//! and complete, so that nothing of annotations remains on the request path. A part that is absent costs a comparison.

mod answer;
mod auth;
mod care;
mod limit_drop;
mod listener;
mod log;
mod snippet;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use super::snapshot::{AppProtocol, ObjectName, PoolName};

pub use answer::{Algorithm, AnswerEdits, Coding, Compression, SendRate};
pub use auth::{AuthCache, BasicAuth, ClientCertificates, Demand, ExternalAuth};
pub use care::{Care, HealthCheck, Probe, RetryBudget};
pub use limit_drop::LimitDrop;
pub use listener::{
    Block, ClientLimits, FieldPattern, HeadLimits, ListenerSettings, Names, ProxyHeader, TlsProfile, TlsSettings,
    UpstreamKeep,
};
pub use log::{Escape, LogFormat, LogPart, LogSettings, LogValue};
pub use snippet::{Against, Return, Snippet, Statement, Test};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub https: Https,
    /// Answered at once, whatever the path.
    pub redirect: Option<FixedRedirect>,
    /// `/` is sent there, with 302.
    pub app_root: Option<Template>,
    pub rewrite: Option<Rewrite>,
    pub access: Option<Access>,
    pub basic: Option<Arc<BasicAuth>>,
    pub external: Option<Arc<ExternalAuth>>,
    /// Either the addresses or the credentials are enough.
    pub satisfy_any: bool,
    pub cors: Option<Arc<Cors>>,
    pub limits: Option<Arc<Limits>>,
    pub errors: Option<Arc<ErrorPages>>,
    /// Asked in order; the first that says so takes the request.
    pub canary: Option<Arc<Vec<Canary>>>,
    pub affinity: Option<Arc<Affinity>>,
    pub hash_by: Option<Arc<HashBy>>,
    pub upstream: Option<Arc<Upstream>>,
    /// Of the pools that requests go to, canaries included.
    pub care: Option<Arc<Care>>,
    pub retry_on: RetryOn,
    pub retry_budget: RetryBudget,
    pub answers: Option<Arc<AnswerEdits>>,
    pub send_rate: Option<SendRate>,
    pub mirror: Option<Arc<MirrorTo>>,
    /// Its requests are not in the access log.
    pub unlogged: bool,
    pub snippet: Option<Arc<Snippet>>,
}

/// A copy of each request goes to another server, whose answer is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorTo {
    pub secure: bool,
    /// Whose addresses are asked.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: Template,
    /// The `Host` of the copies.
    pub name: Template,
    /// With the request's body.
    pub body: bool,
}

impl Policy {
    /// Whether it answers or refuses requests by itself, whatever the route's action is.
    pub fn answers(&self, secured: bool) -> bool {
        self.redirect.is_some()
            || self.app_root.is_some()
            || self.access.is_some()
            || self.basic.is_some()
            || self.external.is_some()
            || self.cors.is_some()
            || self.limits.is_some()
            || self.errors.is_some()
            || self.snippet.is_some()
            || self.https.when == HttpsWhen::Always
            || (self.https.when == HttpsWhen::Secured && secured)
    }
}

/// When a request in clear text is sent to https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Https {
    pub when: HttpsWhen,
    /// 301, 302, 307 or 308; 0 is 308.
    pub status: u16,
    /// One slash at the target's end is left out otherwise, as ingress-nginx does.
    pub keep_slash: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpsWhen {
    #[default]
    Never,
    /// Where the host has a certificate ([`super::route::VirtualHost::secured`]).
    Secured,
    Always,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedRedirect {
    pub status: StatusCode,
    pub location: Template,
    /// One slash at the location's end is left out.
    pub trim_slash: bool,
}

/// The whole path is replaced by `target`, in which `$1` to `$9` are what `pattern` captured anywhere in the path. Matching is linear in the
/// path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub pattern: String,
    pub target: String,
    /// Said in `X-Forwarded-Prefix`.
    pub prefix: Option<HeaderValue>,
}

/// Addresses that may ask. Others get 403.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub deny: Vec<IpNet>,
    /// Empty: all that are not denied.
    pub allow: Vec<IpNet>,
}

impl Access {
    pub fn admits(&self, client: IpAddr) -> bool {
        let within = |list: &[IpNet]| list.iter().any(|range| range.contains(&client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Text with nginx's variables in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Variable(Variable),
}

/// The variables that may stand in annotations' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    Scheme,
    /// As sent, with port.
    HttpHost,
    /// Lower case, without port.
    Host,
    RequestUri,
    /// Percent-encoded.
    EscapedRequestUri,
    /// The path as it is matched.
    Uri,
    Args,
    /// `?` where there is a query.
    IsArgs,
    Argument(String),
    Method,
    RemoteAddr,
    /// As the client calls himself in `Authorization: Basic`.
    RemoteUser,
    Cookie(String),
    Field(HeaderName),
    ServerPort,
    RequestId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    pub methods: HeaderValue,
    pub headers: HeaderValue,
    pub expose: Option<HeaderValue>,
    pub credentials: bool,
    /// Seconds.
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    /// Compared without regard to case; `*` stands for one label at the front of the host.
    These(Vec<String>),
}

/// Requests of one client address to the routes of one Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub owner: ObjectName,
    /// The rates are those of all edges together.
    pub shared: bool,
    pub rates: Vec<Rate>,
    /// At one time.
    pub connections: Option<u32>,
    pub exempt: Vec<IpNet>,
    pub rate_status: StatusCode,
    pub connection_status: StatusCode,
    /// What becomes of clients that go on exceeding them. `None`: they are refused, and that is all.
    pub drop: Option<LimitDrop>,
}

/// One request each `every`, and `burst` more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub every: Duration,
    pub burst: u32,
}

/// Answers of these statuses are replaced by that of another pool, which is told what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPages {
    /// Sorted.
    pub codes: Vec<u16>,
    pub pool: Option<PoolName>,
    /// Where there is no pool, a page of our own with this status (golden cases 286 and 287).
    pub otherwise: StatusCode,
    /// The pool also answers where the route's own has no backend.
    pub stands_in: bool,
    pub ingress: ObjectName,
    pub service: String,
    pub service_port: String,
    /// Also answers of backends, not only our own.
    pub intercept: bool,
}

/// Other pools for some requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub pool: PoolName,
    pub header: Option<(HeaderName, CanaryValue)>,
    pub cookie: Option<String>,
    pub weight: u32,
    /// Never 0.
    pub total: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryValue {
    /// `always` and `never`; any other value decides nothing.
    Words,
    Exact(String),
    /// Found anywhere in the value.
    Pattern(String),
}

/// A cookie keeps a client at its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    pub cookie: String,
    /// Stays although the set of backends changes the balance.
    pub persistent: bool,
    pub change_on_failure: bool,
    /// Also towards canaries: who had a backend of one stays there, and who had another is not taken.
    pub canary_sticks: bool,
    pub path: Option<String>,
    pub domain: Option<String>,
    pub expires: Option<u64>,
    pub max_age: Option<String>,
    pub same_site: Option<String>,
    /// No SameSite=None for browsers that misread it.
    pub conditional_none: bool,
    /// `None`: where the request came over TLS.
    pub secure: Option<bool>,
}

/// Requests of one value go to one backend, or to one set of them (rendezvous hashing: a backend that goes moves only its own).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashBy {
    pub by: Template,
    /// To one of so many backends, chosen anew for each request. Never 0.
    pub subset: Option<u32>,
}

/// How the backends of a pool are spoken to, where not as their Service says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    pub protocol: AppProtocol,
    pub tls: Option<UpstreamTls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Sent as SNI, and what the certificate must be for.
    pub name: Option<String>,
    pub send_name: bool,
    /// DER: the authorities whose certificates are taken. `None`: any certificate.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// Certificates between the backend's own and an authority, at most.
    pub depth: u32,
    /// DER, leaf first, and the key in PKCS #8, PKCS #1 or SEC1.
    pub client: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    pub profile: TlsProfile,
}

/// `proxy_next_upstream`: after which failures another backend is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    pub error: bool,
    pub timeout: bool,
    pub invalid_header: bool,
    /// Bits of 500, 502, 503, 504, 403, 404, 429.
    pub statuses: u8,
    pub non_idempotent: bool,
    /// For all tries together.
    pub within: Option<Duration>,
}

pub const RETRY_STATUSES: [u16; 7] = [500, 502, 503, 504, 403, 404, 429];

impl Default for RetryOn {
    fn default() -> Self {
        Self { error: true, timeout: true, invalid_header: false, statuses: 0, non_idempotent: false, within: None }
    }
}

impl RetryOn {
    pub fn status(&self, status: StatusCode) -> bool {
        self.statuses != 0
            && RETRY_STATUSES
                .iter()
                .position(|s| *s == status.as_u16())
                .is_some_and(|bit| self.statuses >> bit & 1 == 1)
    }
}
