//! What a client got for a request, in the form in which the recordings say it.

use serde_json::{Value, json};

/// An answer, and what became of the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `None`: no answer came.
    pub status: Option<u16>,
    /// In order, as on the wire.
    pub fields: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub trailers: Vec<(String, String)>,
    /// Statuses of interim answers.
    pub interim: Vec<u16>,
    /// `truncated`, `eof`, `not-http`.
    pub end: Option<&'static str>,
    /// `HTTP/1.1`.
    pub version: String,
    /// Messages after a 101; `<closed>`, `<timeout>`.
    pub messages: Vec<String>,
    /// The code of `RST_STREAM` or GOAWAY.
    pub reset: Option<u32>,
    pub tls_error: Option<String>,
    pub refused: bool,
    pub timed_out: bool,
    /// Of `raw` requests: all answers.
    pub all: Vec<Answer>,
    /// Of `raw` requests: the proxy closed.
    pub closed: Option<bool>,
    pub certificate: Option<Value>,
    pub alpn: Option<String>,
    pub seconds: f64,
    /// The header fields were not decoded.
    pub opaque: bool,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// `<echo>`, text, or size and hash, as the recorder said it.
    pub fn body_value(&self) -> Value {
        let Some(body) = &self.body else { return Value::Null };
        // A gRPC message has five bytes before it.
        if body.len() > 5 && body[0] == 0 && body[5..].starts_with(b"{\"backend\":") {
            return "<grpc-echo>".into();
        }
        let Ok(text) = std::str::from_utf8(body) else {
            return json!({"len": body.len(), "sha256": sha256(body)});
        };
        if text.starts_with("{\"backend\":") {
            return "<echo>".into();
        }
        if text.chars().count() > 1500 {
            return json!({"len": body.len(), "sha256": sha256(body)});
        }
        text.into()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    super::echo::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}
