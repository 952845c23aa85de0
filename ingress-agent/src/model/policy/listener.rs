//! What holds for every request of a listener, whatever its route: whom to believe, whom to block, which fields come and go.

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::Template;

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
    pub underscores: bool,
    /// Sent with answers over TLS.
    pub hsts: Option<HeaderValue>,
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
            underscores: false,
            hsts: None,
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
