//! What holds for every request of a listener, whatever its route: whom to believe, whom to block, which fields come and go.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{Compression, LogSettings, Template};

/// What holds for every request of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// From these, the forwarded fields are taken as they come. Empty: from nobody.
    pub trusted: Vec<IpNet>,
    pub forwarded_for: HeaderName,
    /// `X-Forwarded-For` grows by the peer instead of being replaced.
    pub append_forwarded_for: bool,
    pub request_id: bool,
    /// Fields of backends' answers that clients do not get.
    pub hide: Vec<HeaderName>,
    /// A backend's `Server` passes.
    pub pass_server: bool,
    /// Fields that each answer gets.
    pub add: Vec<(HeaderName, Template)>,
    /// Fields that each request gets.
    pub set: Vec<(HeaderName, Template)>,
    pub block: Block,
    pub http2: bool,
    pub names: Names,
    /// Sent with answers over TLS.
    pub hsts: Option<HeaderValue>,
    pub head: HeadLimits,
    pub client: ClientLimits,
    pub keep: UpstreamKeep,
    pub compression: Option<Compression>,
    pub log: LogSettings,
    pub tls: TlsSettings,
    /// Requests of an HTTP/2 connection at one time.
    pub streams: u32,
    pub proxy_protocol: Option<ProxyHeader>,
}

/// Each connection begins with a header of the PROXY protocol, or is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Whose word is taken for who the client is; empty: everybody's.
    pub from: Vec<IpNet>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    pub profile: TlsProfile,
    /// Clients that ask for a name without a certificate get none, instead of the default one.
    pub reject_unknown: bool,
}

/// What of TLS is spoken. Always some version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsProfile {
    pub v12: bool,
    pub v13: bool,
    /// OpenSSL's names of suites of TLS 1.2; empty: all that we have.
    pub suites: Arc<[&'static str]>,
}

impl Default for TlsProfile {
    fn default() -> Self {
        Self { v12: true, v13: true, suites: Arc::default() }
    }
}

/// Which of a client's fields are passed on, by their names: CGI could not tell `a_b` and `a.b` from `a-b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Letters, digits and `-`.
    #[default]
    Plain,
    /// And `_`.
    Underscores,
    /// All that HTTP allows.
    All,
}

/// How large the head of an HTTP/1 request may be: nginx's `large_client_header_buffers`. A line fits into one of them; lines fill one after
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    pub buffers: u32,
    /// Bytes of each.
    pub size: u32,
    /// Bytes of the one before them.
    pub first: u32,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { buffers: 4, size: 8192, first: 1024 }
    }
}

impl HeadLimits {
    /// Bytes of the largest head.
    pub const fn most(self) -> usize {
        self.first as usize + self.buffers as usize * self.size as usize
    }
}

/// How long a client may keep us waiting, where it is not as the proxy's options say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    pub header: Option<Duration>,
    pub body: Option<Duration>,
    pub keep_alive: Option<Duration>,
    /// Requests of one connection, which is closed then.
    pub requests: Option<u32>,
}

/// Connections to backends that are kept for the next request (HTTP/1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamKeep {
    /// Idle ones to each backend, in each worker. 0: none.
    pub connections: u32,
    /// How long one may be idle.
    pub idle: Duration,
    /// How long one is used.
    pub life: Duration,
    /// How often. Never 0.
    pub requests: u32,
}

/// ingress-nginx's `upstream-keepalive-*`.
impl Default for UpstreamKeep {
    fn default() -> Self {
        Self { connections: 320, idle: Duration::from_mins(1), life: Duration::from_hours(1), requests: 10_000 }
    }
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            forwarded_for: HeaderName::from_static("x-forwarded-for"),
            append_forwarded_for: false,
            request_id: true,
            hide: Vec::new(),
            pass_server: false,
            add: Vec::new(),
            set: Vec::new(),
            block: Block::default(),
            http2: true,
            names: Names::Plain,
            hsts: None,
            head: HeadLimits::default(),
            client: ClientLimits::default(),
            keep: UpstreamKeep::default(),
            compression: None,
            log: LogSettings::default(),
            tls: TlsSettings::default(),
            streams: 128,
            proxy_protocol: None,
        }
    }
}

/// Who gets 403 on every host. Patterns are found anywhere in the field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub addresses: Vec<IpNet>,
    pub agents: Vec<FieldPattern>,
    pub referers: Vec<FieldPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldPattern {
    Exact(String),
    Regex { pattern: String, case_insensitive: bool },
}
