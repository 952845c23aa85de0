//! `log-format-upstream` and its kin: nginx's text → parts, once. Whether a variable is known is seen here, so that no line is ever
//! looked up by name.

use http::HeaderName;

use super::Values;
use crate::model::difference::Contrast;
use crate::model::policy::{Escape, LogFormat, LogPart, LogSettings, LogValue};

pub(super) fn read(v: &mut Values<'_>) -> LogSettings {
    let off = v.flag("disable-access-log", false) | v.flag("disable-http-access-log", false);
    let skip = v.patterns("skip-access-log-urls");
    let escape = if v.flag("log-format-escape-json", false) {
        Escape::Json
    } else if v.flag("log-format-escape-none", false) {
        Escape::None
    } else {
        Escape::Default
    };
    let text = v.text("log-format-upstream").map(str::to_owned);
    let format = text.and_then(|text| match format(&text, escape) {
        Ok(format) => Some(format),
        Err(variable) => {
            v.ignore("log-format-upstream", &format!("has {variable}, which is not known here"));
            v.contrast(Contrast::Unsupported { instead: crate::plan::nginx::OTHER_VARIABLE });
            None
        }
    });
    LogSettings { off, skip, format }
}

/// `Err` is the variable that is not known.
fn format(text: &str, escape: Escape) -> Result<LogFormat, String> {
    let mut parts = Vec::new();
    // Lines end where we end them.
    let text = text.replace(['\n', '\r'], "");
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(LogPart::Text(before.to_owned()));
        }
        let (name, next) = if let Some(braced) = after.strip_prefix('{') {
            braced.split_once('}').ok_or_else(|| "${".to_owned())?
        } else {
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            after.split_at(end)
        };
        parts.push(LogPart::Value(value(name).ok_or_else(|| format!("${name}"))?));
        rest = next;
    }
    if !rest.is_empty() {
        parts.push(LogPart::Text(rest.to_owned()));
    }
    Ok(LogFormat { parts, escape })
}

fn value(name: &str) -> Option<LogValue> {
    Some(match name {
        "remote_addr" | "the_real_ip" | "realip_remote_addr" | "proxy_protocol_addr" => LogValue::RemoteAddr,
        "remote_user" => LogValue::RemoteUser,
        "time_local" => LogValue::TimeLocal,
        "time_iso8601" => LogValue::TimeIso8601,
        "msec" => LogValue::Msec,
        "request" => LogValue::Request,
        "request_method" => LogValue::Method,
        "request_uri" => LogValue::RequestUri,
        "uri" | "document_uri" => LogValue::Uri,
        "args" | "query_string" => LogValue::Args,
        "server_protocol" => LogValue::Protocol,
        "scheme" | "pass_access_scheme" => LogValue::Scheme,
        "host" | "server_name" => LogValue::Host,
        "http_host" | "best_http_host" => LogValue::Field(http::header::HOST),
        "server_port" | "pass_server_port" | "pass_port" => LogValue::ServerPort,
        "status" => LogValue::Status,
        "body_bytes_sent" | "bytes_sent" => LogValue::Sent,
        "request_length" => LogValue::RequestLength,
        "request_time" => LogValue::RequestTime,
        "req_id" | "request_id" => LogValue::RequestId,
        "namespace" => LogValue::Namespace,
        "ingress_name" => LogValue::Ingress,
        "service_name" => LogValue::Service,
        "service_port" => LogValue::ServicePort,
        "proxy_upstream_name" => LogValue::UpstreamName,
        "upstream_addr" => LogValue::UpstreamAddr,
        "upstream_response_length" | "upstream_bytes_received" => LogValue::UpstreamLength,
        "upstream_response_time" | "upstream_header_time" => LogValue::UpstreamTime,
        "upstream_status" => LogValue::UpstreamStatus,
        "proxy_alternative_upstream_name" | "pipe" | "geoip2_city_country_code" | "location_path" => LogValue::Nothing,
        _ => {
            let field = name.strip_prefix("http_")?.replace('_', "-");
            LogValue::Field(HeaderName::from_bytes(field.as_bytes()).ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_become_parts_and_what_is_not_known_is_named() {
        let read = format("{\"a\":\"$http_user_agent\",\"s\":$status}", Escape::Json).expect("known");
        assert_eq!(read.parts.len(), 5);
        assert_eq!(read.fields().collect::<Vec<_>>(), [&http::header::USER_AGENT]);
        assert_eq!(format("$nope", Escape::Default), Err("$nope".to_owned()));
        assert_eq!(format("a\nb", Escape::Default).expect("text").parts, [LogPart::Text("ab".to_owned())]);
    }
}
