//! `log-format-upstream`: lines of an operator's own form, written from parts. What clients sent never ends its place in a line, in any mode.

use std::io::Write as _;
use std::time::Duration;

use http::HeaderValue;

use super::access_log::{Line, escape_json, escape_nginx, iso_time, nginx_time, target, version};
use crate::model::policy::{Escape, LogFormat, LogPart, LogValue};

/// What became of the request.
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) sent: u64,
    pub(super) took: Duration,
    /// Since 1970.
    pub(super) now: Duration,
}

pub(super) fn write(out: &mut Vec<u8>, format: &LogFormat, line: &Line, outcome: &Outcome) {
    let mut fields = line.fields.iter();
    for part in &format.parts {
        match part {
            LogPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            LogPart::Value(LogValue::Field(_)) => {
                let value = fields.next().and_then(Option::as_ref).map_or(&b""[..], HeaderValue::as_bytes);
                escaped(out, format.escape, value);
            }
            LogPart::Value(value) => {
                let text = text(value, line, outcome);
                escaped(out, format.escape, &text);
            }
        }
    }
    out.push(b'\n');
}

fn escaped(out: &mut Vec<u8>, escape: Escape, text: &[u8]) {
    match escape {
        Escape::Default if text.is_empty() => out.push(b'-'),
        Escape::Default => escape_nginx(out, text),
        Escape::Json => escape_json(out, text),
        Escape::None => out.extend(text.iter().filter(|b| !matches!(b, b'\n' | b'\r'))),
    }
}

fn text(value: &LogValue, line: &Line, outcome: &Outcome) -> Vec<u8> {
    let seconds = |d: Duration| format!("{:.3}", d.as_secs_f64());
    let asked = line.upstream.is_some();
    let service = line.pool.as_ref().map(|pool| (&pool.service, pool.port));
    match value {
        LogValue::RemoteAddr => line.peer.to_string(),
        LogValue::RemoteUser => line.user.clone().unwrap_or_default(),
        LogValue::TimeLocal => nginx_time(outcome.now.as_secs()),
        LogValue::TimeIso8601 => iso_time(outcome.now.as_secs()).replace('Z', "+00:00"),
        LogValue::Msec => seconds(outcome.now),
        LogValue::Request => {
            let mut request = Vec::new();
            // Writing to a Vec cannot fail.
            let _ = write!(request, "{} ", line.method);
            request.extend_from_slice(target(line));
            let _ = write!(request, " {}", version(line.version));
            return request;
        }
        LogValue::Method => line.method.to_string(),
        LogValue::RequestUri => return target(line).to_vec(),
        LogValue::Uri => return target(line).split(|b| *b == b'?').next().unwrap_or_default().to_vec(),
        LogValue::Args => return target(line).splitn(2, |b| *b == b'?').nth(1).unwrap_or_default().to_vec(),
        LogValue::Protocol => version(line.version).to_owned(),
        LogValue::Scheme => line.scheme.to_owned(),
        LogValue::Host => {
            let host = line.host.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
            let name = super::target::name(host);
            name.map_or_else(String::new, std::borrow::Cow::into_owned)
        }
        LogValue::ServerPort => line.port.to_string(),
        LogValue::Status => outcome.status.to_string(),
        LogValue::Sent => outcome.sent.to_string(),
        LogValue::RequestLength => line.request_length.to_string(),
        LogValue::RequestTime => seconds(outcome.took),
        LogValue::RequestId => return line.request_id.clone(),
        LogValue::Namespace => line.owner.as_ref().map_or_else(String::new, |o| o.namespace.clone()),
        LogValue::Ingress => line.owner.as_ref().map_or_else(String::new, |o| o.name.clone()),
        LogValue::Service => service.map_or_else(String::new, |(s, _)| s.name.clone()),
        LogValue::ServicePort => service.map_or_else(String::new, |(_, port)| port.to_string()),
        LogValue::UpstreamName => service.map_or_else(String::new, |(s, p)| format!("{}-{}-{p}", s.namespace, s.name)),
        LogValue::UpstreamAddr => line.upstream.map_or_else(String::new, |a| a.to_string()),
        LogValue::UpstreamLength if asked => outcome.sent.to_string(),
        LogValue::UpstreamTime if asked => seconds(line.upstream_time),
        LogValue::UpstreamStatus if asked => {
            let status = if line.upstream_status == 0 { outcome.status } else { line.upstream_status };
            status.to_string()
        }
        LogValue::UpstreamLength
        | LogValue::UpstreamTime
        | LogValue::UpstreamStatus
        | LogValue::Nothing
        | LogValue::Field(_) => String::new(),
    }
    .into_bytes()
}
