//! How backends are asked: timeouts, tries, protocol, TLS, the host that they see, the size of what they get.

use std::time::Duration;

use super::Found;
use super::profile;
use super::read::{Reader, Spoilt, plain, size};
use super::settings::Settings;
use crate::model::policy::{RETRY_STATUSES, RetryOn, Upstream, UpstreamTls};
use crate::model::route::{Balance, Filter, Retry, Timeouts};
use crate::model::snapshot::{AppProtocol, ObjectName};

pub(super) fn timeouts(reader: &mut Reader<'_>, settings: &Settings) -> Timeouts {
    let default = settings.timeouts;
    Timeouts {
        request: None,
        connect: reader.seconds("proxy-connect-timeout").unwrap_or(default.connect),
        read: reader.seconds("proxy-read-timeout").or(default.read),
        send: reader.seconds("proxy-send-timeout").or(default.send),
    }
}

pub(super) fn retry(reader: &mut Reader<'_>, settings: &Settings) -> (Retry, RetryOn) {
    let tries = reader.number("proxy-next-upstream-tries").unwrap_or(settings.tries);
    let mut on = settings.retry_on;
    if let Some(text) = reader.text("proxy-next-upstream") {
        if known(text) {
            on = RetryOn { within: on.within, ..retry_on(text) };
        } else {
            reader.ignore("proxy-next-upstream", "has a word that is not known");
        }
    }
    if let Some(seconds) = reader.number("proxy-next-upstream-timeout") {
        on.within = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
    }
    // 0 is nginx's "no bound"; ours is high.
    (Retry { tries: if tries == 0 { 100 } else { tries } }, on)
}

fn known(text: &str) -> bool {
    let status = |word: &str| {
        word.strip_prefix("http_").and_then(|s| s.parse().ok()).is_some_and(|s| RETRY_STATUSES.contains(&s))
    };
    text.split_whitespace()
        .all(|w| ["error", "timeout", "invalid_header", "non_idempotent", "off"].contains(&w) || status(w))
}

/// nginx's `proxy_next_upstream`. Unknown words say nothing.
pub(super) fn retry_on(text: &str) -> RetryOn {
    let mut on = RetryOn { error: false, timeout: false, ..RetryOn::default() };
    for word in text.split_whitespace() {
        match word {
            "error" => on.error = true,
            "timeout" => on.timeout = true,
            "invalid_header" => on.invalid_header = true,
            "non_idempotent" => on.non_idempotent = true,
            _ => {
                let status = word.strip_prefix("http_").and_then(|s| s.parse().ok());
                if let Some(bit) = status.and_then(|s: u16| RETRY_STATUSES.iter().position(|known| *known == s)) {
                    on.statuses |= 1 << bit;
                }
            }
        }
    }
    on
}

pub(super) fn body(reader: &mut Reader<'_>, settings: &Settings) -> Option<u64> {
    match reader.text("proxy-body-size").map(size) {
        Some(Some(most)) => most,
        Some(None) => {
            reader.ignore("proxy-body-size", "is not a size");
            settings.body
        }
        None => settings.body,
    }
}

pub(super) fn balance(reader: &mut Reader<'_>, settings: &Settings) -> Option<Balance> {
    let Some(text) = reader.text("load-balance") else {
        let default = settings.defaults.get("load-balance").map(String::as_str);
        return (default == Some("ewma")).then_some(Balance::Ewma);
    };
    match text {
        "round_robin" => Some(Balance::RoundRobin),
        "ewma" => Some(Balance::Ewma),
        _ => {
            reader.spoil("load-balance", Spoilt::Ingress, "is neither `round_robin` nor `ewma`");
            None
        }
    }
}

/// Answers are passed on as they come and buffers grow as they must, so these change nothing here. What nginx cannot load is refused with
/// its reason, or a manifest that works here would fail there (golden case 335).
pub(super) fn buffers(reader: &mut Reader<'_>) {
    let words = |reader: &mut Reader<'_>, key: &str| match reader.text(key) {
        None | Some("on" | "off") => {}
        Some(_) => reader.ignore(key, "is neither `on` nor `off`"),
    };
    words(reader, "proxy-request-buffering");
    words(reader, "proxy-buffering");
    let mut bytes = |key: &str, default: u64| {
        let found = reader.text(key).map_or(Some(default), |text| size(text).flatten());
        if found.is_none() {
            reader.ignore(key, "is not a size");
        }
        found.unwrap_or(default)
    };
    let each = bytes("proxy-buffer-size", 4 << 10);
    let busy = bytes("proxy-busy-buffers-size", 8 << 10);
    bytes("proxy-max-temp-file-size", 1 << 30);
    bytes("client-body-buffer-size", 8 << 10);
    let count = u64::from(reader.number("proxy-buffers-number").unwrap_or(4));
    if reader.text("proxy-buffering") == Some("on") && busy > count.saturating_sub(1).saturating_mul(each) {
        let reason = format!(
            "leaves {count} buffers of {each} bytes, less one, below the {busy} bytes that may be busy: nginx does not load it"
        );
        reader.spoil("proxy-buffers-number", Spoilt::Ingress, reason);
    }
}

/// Another version than HTTP/1.1 is spoken to nobody who has not asked for HTTP/2.
pub(super) fn version(reader: &mut Reader<'_>) {
    match reader.text("proxy-http-version") {
        None | Some("1.1") => {}
        Some("1.0") => {
            reader.ignore("proxy-http-version", "is not spoken to backends");
            reader.unsupported("HTTP/1.1, which every server of HTTP/1.0 answers (RFC 9110 §2.5)");
        }
        Some(_) => reader.ignore("proxy-http-version", "is neither `1.0` nor `1.1`"),
    }
}

pub(super) fn host(reader: &mut Reader<'_>) -> Option<Filter> {
    let text = reader.text("upstream-vhost")?;
    if text == "$host" {
        return None;
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)) {
        return Some(Filter::RewriteHost(text.to_owned()));
    }
    reader.spoil("upstream-vhost", Spoilt::Ingress, "is not a host");
    None
}

pub(super) fn protocol(reader: &mut Reader<'_>, found: &mut Found<'_>) -> Option<Upstream> {
    let text = reader.text("backend-protocol")?.to_ascii_uppercase();
    match text.as_str() {
        "HTTP" | "AUTO_HTTP" => None,
        "HTTPS" => Some(Upstream { protocol: AppProtocol::Https, tls: Some(tls(reader, found)) }),
        "GRPC" => Some(Upstream { protocol: AppProtocol::H2c, tls: None }),
        "GRPCS" => Some(Upstream { protocol: AppProtocol::H2c, tls: Some(tls(reader, found)) }),
        _ => {
            reader.ignore("backend-protocol", "is not `HTTP`, `HTTPS`, `GRPC` or `GRPCS`");
            if text == "FCGI" {
                reader.unsupported(
                    "put an HTTP server that speaks FastCGI (nginx, Caddy) into the pod, and name its port",
                );
            }
            None
        }
    }
}

fn tls(reader: &mut Reader<'_>, found: &mut Found<'_>) -> UpstreamTls {
    let on = |reader: &mut Reader<'_>, key: &str| match reader.text(key) {
        None | Some("off") => false,
        Some("on") => true,
        Some(_) => {
            reader.ignore(key, "is neither `on` nor `off`");
            false
        }
    };
    let verify = on(reader, "proxy-ssl-verify");
    let name = reader.text("proxy-ssl-name").filter(|n| plain(n) && !n.contains(' ')).map(str::to_owned);
    let send_name = on(reader, "proxy-ssl-server-name");
    // 0 stands for the default there.
    let depth = reader.number("proxy-ssl-verify-depth").filter(|n| *n > 0).unwrap_or(1);
    let profile = profile::of_backends(reader);
    let mut tls = UpstreamTls { name, send_name, authorities: None, depth, client: None, profile };
    if let Some(text) = reader.text("proxy-ssl-secret") {
        let own = &reader.ingress.origin.name.namespace;
        let (namespace, secret) = text.split_once('/').unwrap_or((own, text));
        let name = ObjectName::new(namespace, secret);
        let (authority, client) = found.pair(&name);
        if authority.is_none() && client.is_none() {
            reader.spoil("proxy-ssl-secret", Spoilt::Denied, "is not the name of a Secret with `ca.crt` or `tls.crt`");
        }
        tls.client = client;
        tls.authorities = authority.filter(|_| verify);
    }
    if verify && tls.authorities.is_none() {
        // Nothing is trusted: a check that was asked for must not pass for want of whom to trust.
        tls.authorities = Some(Vec::new());
    }
    tls
}
