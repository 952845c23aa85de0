//! Which host a request is for, read strictly: proxies that disagree about it serve one tenant's pages to another.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Uri, Version};

/// The host as sent, with port, and the name by which routes are looked up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) authority: &'a [u8],
    /// Lower case, without port and trailing dot.
    pub(super) name: Cow<'a, str>,
}

/// `None` is answered with 400.
pub(super) fn target(parts: &Parts) -> Option<Target<'_>> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next();
    // RFC 9112 §3.2: more than one Host, or an invalid one, is 400.
    if fields.next().is_some() {
        return None;
    }
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if parts.version == Version::HTTP_2 {
        let authority = match (authority, field.map(HeaderValue::as_bytes)) {
            (Some(a), None) => a,
            // RFC 9113 §8.3.1: a Host that differs from :authority is malformed.
            (Some(a), Some(h)) if a.eq_ignore_ascii_case(h) => a,
            (None, Some(h)) => h,
            (Some(_), Some(_)) | (None, None) => return None,
        };
        return Some(Target { authority, name: name(authority)? });
    }
    let sent = match field {
        Some(value) => value.as_bytes(),
        // RFC 9112 §3.2: HTTP/1.1 requires Host; HTTP/1.0 knows none, and gets the catch-all.
        None if parts.version == Version::HTTP_10 => authority.unwrap_or(b""),
        None => return None,
    };
    if field.is_none() && sent.is_empty() {
        return Some(Target { authority: b"", name: Cow::Borrowed("") });
    }
    let sent_name = name(sent)?;
    match authority {
        None => Some(Target { authority: sent, name: sent_name }),
        // RFC 9112 §3.2.2: in absolute form the target's host counts, and Host is replaced by it, unless it says the same.
        Some(authority) => {
            let name = name(authority)?;
            Some(Target { authority: if sent_name == name { sent } else { authority }, name })
        }
    }
}

/// RFC 9110 §7.2 and RFC 3986 §3.2.2: `uri-host [ ":" port ]`, nothing else.
pub(super) fn name(authority: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        let port = if after.is_empty() { "" } else { after.strip_prefix(':')? };
        (&text[..address.len() + 2], port)
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    // RFC 9110 §7.2 has digits; nginx takes letters (golden case 012), and they choose nothing.
    if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    if name.starts_with('[') {
        return Some(lower(name));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
    if name.is_empty() || name.starts_with('.') || name.len() > 255 || !name.bytes().all(plain) || name.contains("..") {
        return None;
    }
    Some(lower(name))
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The path as sent. `None` for `*` and other forms that name no resource here.
pub(super) fn path(uri: &Uri) -> Option<&str> {
    let path = uri.path();
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_strictly() {
        for (host, expected) in [
            ("shop.example", Some("shop.example")),
            ("SHOP.Example:8080", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("shop.example:", Some("shop.example")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("", None),
            (".", None),
            ("..", None),
            (":80", None),
            ("a..b", None),
            ("a b", None),
            ("a/b", None),
            ("a@b", None),
            ("user@shop.example", None),
            ("a,b:80:80", None),
            ("a:http", Some("a")),
            ("a:h-p", None),
            ("a:123456", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[x]", None),
            ("a\u{e9}", None),
            ("a?b", None),
            ("a#b", None),
            ("a\\b", None),
        ] {
            assert_eq!(name(host.as_bytes()).as_deref(), expected, "{host:?}");
        }
    }

    #[test]
    fn any_bytes_give_an_answer() {
        let mut state = 0x5eed_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (state >> 59) as usize;
            let bytes: Vec<u8> = (0..length).map(|i| (state >> (i % 8 * 7)) as u8 ^ i as u8).collect();
            if let Some(found) = name(&bytes) {
                assert!(!found.is_empty() && !found.bytes().any(|b| b.is_ascii_uppercase() || b <= b' '));
            }
        }
    }
}
