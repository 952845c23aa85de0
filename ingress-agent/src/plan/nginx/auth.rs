//! `auth-type` and its Secret, `auth-url` and its kin. What cannot be used denies: an Ingress that was to ask for a password must not be
//! served without.

use http::{HeaderName, Method, Uri};

use super::Found;
use super::read::{Reader, Spoilt, period};
use super::settings::Settings;
use super::template::template;
use crate::model::policy::{AuthCache, BasicAuth, ExternalAuth, Template};
use crate::model::snapshot::ObjectName;

pub(super) fn basic(reader: &mut Reader<'_>, settings: &Settings, found: &mut Found<'_>) -> Option<BasicAuth> {
    match reader.text("auth-type")? {
        "basic" => {}
        "digest" => {
            reader.spoil("auth-type", Spoilt::Denied, "is not supported: use `basic`");
            reader.unsupported("`auth-type: basic` over TLS, with a Secret of hashed passwords");
            return None;
        }
        _ => {
            reader.spoil("auth-type", Spoilt::Ingress, "is not `basic`");
            return None;
        }
    }
    let Some(text) = reader.text("auth-secret") else {
        reader.spoil("auth-secret", Spoilt::Denied, "is missing");
        return None;
    };
    let own = &reader.ingress.origin.name.namespace;
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    if namespace != own && !settings.cross_namespace {
        reader.spoil("auth-secret", Spoilt::Denied, "is in another namespace (`allow-cross-namespace-resources`)");
        return None;
    }
    let Some(secret) = found.secret(&ObjectName::new(namespace, name)) else {
        reader.spoil("auth-secret", Spoilt::Denied, "is not the name of a Secret that can be read");
        return None;
    };
    let mut users = Vec::new();
    match reader.text("auth-secret-type").unwrap_or("auth-file") {
        "auth-map" => {
            for (user, hash) in &secret.data {
                users.push((user.clone(), String::from_utf8_lossy(hash).trim().to_owned()));
            }
        }
        "auth-file" => {
            let Some(file) = secret.data.get("auth") else {
                reader.spoil("auth-secret", Spoilt::Denied, "has no key `auth`");
                return None;
            };
            for line in
                String::from_utf8_lossy(file).lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                if let Some((user, rest)) = line.split_once(':') {
                    let hash = rest.split(':').next().unwrap_or_default();
                    users.push((user.to_owned(), hash.to_owned()));
                }
            }
        }
        _ => {
            reader.spoil("auth-secret-type", Spoilt::Denied, "is neither `auth-file` nor `auth-map`");
            return None;
        }
    }
    for (user, hash) in &users {
        if !known(hash) {
            reader.warn(
                "auth-secret",
                format!(
                    "the password of `{user}` is hashed in a way that is not known: bcrypt, apr1, SHA and SHA-crypt are"
                ),
            );
            reader.unsupported("hash it anew, with bcrypt for example");
        }
    }
    // nginx takes the first of two lines for one user.
    users.sort_by(|a, b| a.0.cmp(&b.0));
    users.dedup_by(|a, b| a.0 == b.0);
    let realm = reader.text("auth-realm").unwrap_or_default().replace(['"', '\\'], "");
    Some(BasicAuth { realm, users })
}

fn known(hash: &str) -> bool {
    ["$apr1$", "$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "{SHA}", "{SSHA}", "{PLAIN}"]
        .iter()
        .any(|p| hash.starts_with(p))
}

/// Connections to whoever is asked are kept as those to backends are, so these change nothing. What ingress-nginx cannot read is told.
pub(super) fn keepalive(reader: &mut Reader<'_>) {
    for key in ["auth-keepalive", "auth-keepalive-requests", "auth-keepalive-timeout"] {
        reader.number(key);
    }
    reader.flag("auth-keepalive-share-vars", false);
}

/// `path` is the Ingress's own, which may be exempt from what the ConfigMap asks of all.
pub(super) fn external(reader: &mut Reader<'_>, settings: &Settings, found: &mut Found<'_>) -> Option<ExternalAuth> {
    let global = reader.text("auth-url").is_none();
    if global && (settings.global_auth.is_empty() || !reader.flag("enable-global-auth", true)) {
        return None;
    }
    let value = |reader: &Reader<'_>, key: &str| {
        if global {
            settings.global_auth.get(key).cloned()
        } else {
            reader.text(&format!("auth-{key}")).map(str::to_owned)
        }
    };
    let url = value(reader, "url")?;
    let Some((secure, host, port, target)) = address(&url) else {
        reader.spoil(
            "auth-url",
            Spoilt::Denied,
            "is not an address (`http://host/path`) with known variables in its path only",
        );
        if url.contains('$') {
            reader.unsupported(super::OTHER_VARIABLE);
        }
        return None;
    };
    let method = value(reader, "method").and_then(|m| Method::from_bytes(m.as_bytes()).ok()).filter(|m| {
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"].contains(&m.as_str())
    });
    let signin = value(reader, "signin").and_then(|text| {
        let made = template(&text).ok().filter(|_| text.starts_with("http://") || text.starts_with("https://"));
        if made.is_none() {
            reader.ignore("auth-signin", "is not an address with known variables");
            if text.contains('$') {
                reader.unsupported(super::OTHER_VARIABLE);
            }
        }
        made
    });
    let mut response_headers = Vec::new();
    for name in
        value(reader, "response-headers").unwrap_or_default().split(',').map(str::trim).filter(|n| !n.is_empty())
    {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => response_headers.push(name),
            Err(_) => reader.ignore("auth-response-headers", "is not a list of field names"),
        }
    }
    let request_redirect = value(reader, "request-redirect").and_then(|text| template(&text).ok());
    let mut set_headers = set_headers(reader, found);
    if let Some(text) = value(reader, "snippet") {
        // The operator's own needs nobody's leave.
        set_headers.extend(super::snippet::of_auth(reader, &text, global || settings.snippets));
    }
    let always = value(reader, "always-set-cookie").is_some_and(|v| v == "true");
    Some(ExternalAuth {
        secure,
        host,
        port,
        target,
        method,
        signin,
        signin_parameter: value(reader, "signin-redirect-param").unwrap_or_else(|| "rd".to_owned()),
        response_headers,
        request_redirect,
        always_set_cookie: always,
        set_headers,
        cache: value(reader, "cache-key")
            .and_then(|key| cache(reader, &key, value(reader, "cache-duration").as_deref())),
    })
}

/// ingress-nginx's `auth-cache-duration`, unless it is given.
const CACHE_DURATION: &str = "200 202 401 5m";

fn cache(reader: &mut Reader<'_>, key: &str, duration: Option<&str>) -> Option<AuthCache> {
    let key = match template(key) {
        Ok(key) => key,
        Err(variable) => {
            reader.ignore("auth-cache-key", format!("has {variable}, which is not known here: nothing is cached"));
            reader.unsupported(super::OTHER_VARIABLE);
            return None;
        }
    };
    let mut holds = Vec::new();
    for part in duration.unwrap_or(CACHE_DURATION).split(',') {
        let words: Vec<&str> = part.split_whitespace().collect();
        let Some((time, statuses)) = words.split_last().and_then(|(time, rest)| Some((period(time)?, rest))) else {
            reader.ignore("auth-cache-duration", "is not a list of statuses and a time: nothing is cached");
            return None;
        };
        // nginx: a time alone is for 200, 301 and 302.
        let usual: &[&str] = if statuses.is_empty() { &["200", "301", "302"] } else { statuses };
        holds.extend(usual.iter().filter_map(|s| Some((if *s == "any" { 0 } else { s.parse().ok()? }, time))));
    }
    Some(AuthCache { key, holds })
}

fn set_headers(reader: &mut Reader<'_>, found: &mut Found<'_>) -> Vec<(HeaderName, Template)> {
    let Some(text) = reader.text("auth-proxy-set-headers") else { return Vec::new() };
    let own = &reader.ingress.origin.name.namespace;
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let Some(map) = (namespace == own).then(|| found.config_map(&ObjectName::new(namespace, name))).flatten() else {
        reader.spoil("auth-proxy-set-headers", Spoilt::Denied, "is not the name of a ConfigMap of its namespace");
        return Vec::new();
    };
    let pair = |(name, value): (&String, &String)| {
        Some((
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            template(value.trim()).ok().filter(|_| super::read::plain(value.trim()))?,
        ))
    };
    map.data.iter().filter_map(pair).collect()
}

/// Scheme, host and port stand in the text itself: whoever may send requests must not choose whom we ask.
pub(super) fn address(url: &str) -> Option<(bool, String, u16, Template)> {
    let (secure, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let uri: Uri = format!("http://{authority}/").parse().ok()?;
    let host = uri.host().filter(|h| !h.is_empty() && !authority.contains(['@', '$']))?.to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    if path.bytes().any(|b| !b.is_ascii_graphic() || b"\"\\;{}`<>".contains(&b)) {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some((secure, host, port, template(&path).ok()?))
}
