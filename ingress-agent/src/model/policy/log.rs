//! Access log lines: whether there is one, and its text, read once.

use http::HeaderName;

use super::FieldPattern;

/// What a listener's log says, where settings change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    pub off: bool,
    /// Requests for these targets are left out.
    pub skip: Vec<FieldPattern>,
    /// `None`: as the option says.
    pub format: Option<LogFormat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFormat {
    pub parts: Vec<LogPart>,
    pub escape: Escape,
}

/// How values are kept from ending their place in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\` and what is not printable ASCII as `\xXX`; nothing is `-`.
    #[default]
    Default,
    /// As in a JSON string; nothing is the empty string.
    Json,
    /// As they are, but for line breaks, which nobody may forge.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    Text(String),
    Value(LogValue),
}

/// nginx's and ingress-nginx's variables that a line may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogValue {
    RemoteAddr,
    RemoteUser,
    TimeLocal,
    TimeIso8601,
    /// Seconds since 1970 with milliseconds.
    Msec,
    /// The request line.
    Request,
    Method,
    RequestUri,
    /// The path, and the query.
    Uri,
    Args,
    Protocol,
    Scheme,
    Host,
    ServerPort,
    Status,
    /// Bytes of the body.
    Sent,
    RequestLength,
    RequestTime,
    RequestId,
    Namespace,
    Ingress,
    Service,
    ServicePort,
    /// `namespace-service-port`.
    UpstreamName,
    UpstreamAddr,
    UpstreamLength,
    UpstreamTime,
    UpstreamStatus,
    /// A field of the request: a place among [`LogFormat::fields`].
    Field(HeaderName),
    /// Known to nginx, and always empty here.
    Nothing,
}

impl LogFormat {
    /// The fields of requests that its lines have.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            LogPart::Value(LogValue::Field(name)) => Some(name),
            _ => None,
        })
    }
}
