//! `enable-cors` and `cors-*`.

use http::HeaderValue;

use super::read::Reader;
use crate::model::policy::{Cors, Origins};

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Cors> {
    if !reader.flag("enable-cors", false) {
        return None;
    }
    let origins = origins(reader)?;
    let words = |b: u8| b.is_ascii_alphanumeric() || b"-_*, ".contains(&b);
    let mut list = |key: &str, default: Option<&'static str>| match reader.text(key) {
        Some(text) if text.bytes().all(words) => HeaderValue::try_from(text).ok(),
        Some(_) => {
            reader.ignore(key, "is not a list of names");
            default.map(HeaderValue::from_static)
        }
        None => default.map(HeaderValue::from_static),
    };
    let methods = list("cors-allow-methods", Some(METHODS))?;
    let headers = list("cors-allow-headers", Some(HEADERS))?;
    let expose = list("cors-expose-headers", None);
    let max_age = reader.number("cors-max-age").unwrap_or(1_728_000);
    Some(Cors {
        origins,
        methods,
        headers,
        expose,
        credentials: reader.flag("cors-allow-credentials", true),
        max_age: HeaderValue::from(max_age),
    })
}

/// `None`: of those that are named none can be used, and nothing is said of CORS (golden case 299).
fn origins(reader: &mut Reader<'_>) -> Option<Origins> {
    let Some(text) = reader.text("cors-allow-origin") else { return Some(Origins::Any) };
    let mut origins = Vec::new();
    for origin in text.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        if origin == "*" {
            return Some(Origins::Any);
        }
        let (scheme, host) = origin.split_once("://").unwrap_or_default();
        let name = |b: u8| b.is_ascii_alphanumeric() || b"-._:*[]".contains(&b);
        let stars = host.matches('*').count();
        let usable = !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
            && !host.is_empty()
            && host.bytes().all(name)
            && (stars == 0 || (stars == 1 && host.starts_with("*.")));
        if usable {
            origins.push(origin.to_ascii_lowercase());
        } else {
            reader.warn("cors-allow-origin", format!("`{origin}` is not an origin (`https://host`); it is left out"));
        }
    }
    (!origins.is_empty()).then_some(Origins::These(origins))
}
