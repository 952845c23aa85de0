//! `rewrite-target`: the whole path replaced, as nginx's `rewrite` does it: over the decoded path, encoded again afterwards.

use std::fmt::Write as _;

use regex::bytes::Regex;

use crate::model::policy::Rewrite;

/// The new target, with the request's own query. `None`: the expression does not match, and
/// the request stays as it is.
pub(in crate::proxy) fn rewritten(
    rewrite: &Rewrite,
    pattern: &Regex,
    path: &[u8],
    query: Option<&str>,
) -> Option<String> {
    let captures = pattern.captures(path)?;
    let absolute = rewrite.target.starts_with("http://") || rewrite.target.starts_with("https://");
    let mut bytes = Vec::new();
    expand(&rewrite.target, &captures, &mut bytes);
    let mut out = escape_path(&bytes);
    if !absolute && !out.starts_with('/') {
        out.insert(0, '/');
    }
    if let Some(query) = query.filter(|q| !q.is_empty()) {
        out.push('?');
        out.push_str(query);
    }
    Some(out)
}

fn expand(text: &str, captures: &regex::bytes::Captures<'_>, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&b| b == b'$') {
        out.extend_from_slice(&rest[..at]);
        if let Some(digit @ b'1'..=b'9') = rest.get(at + 1) {
            if let Some(group) = captures.get(usize::from(digit - b'0')) {
                out.extend_from_slice(group.as_bytes());
            }
            rest = &rest[at + 2..];
        } else {
            out.push(b'$');
            rest = &rest[at + 1..];
        }
    }
    out.extend_from_slice(rest);
}

/// `ngx_escape_uri` for a path.
pub(in crate::proxy) fn escape_path(path: &[u8]) -> String {
    escape(path, |b| b" \"#%?<>\\^`{|}".contains(&b))
}

fn escape(bytes: &[u8], odd: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte <= 0x1f || byte >= 0x7f || odd(byte) {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        } else {
            out.push(byte as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, target: &str, path: &str, query: Option<&str>) -> Option<String> {
        let regex =
            regex::bytes::RegexBuilder::new(pattern).unicode(false).case_insensitive(true).build().expect("a pattern");
        let rewrite = Rewrite { pattern: pattern.to_owned(), target: target.to_owned(), prefix: None };
        rewritten(&rewrite, &regex, path.as_bytes(), query)
    }

    #[test]
    fn the_whole_path_is_replaced_and_the_query_kept() {
        for (pattern, target, path, query, expected) in [
            ("/foo(/|$)(.*)", "/$2", "/foo/bar", None, "/bar"),
            ("/foo(/|$)(.*)", "/$2", "/foo/bar", Some("q=1"), "/bar?q=1"),
            ("/foo(/|$)(.*)", "/$2", "/foo/b c?", None, "/b%20c%3F"),
            ("/foo(/|$)(.*)", "/$2", "/foo/", Some(""), "/"),
            ("/(.*)", "https://else.test/$1", "/x", Some("q"), "https://else.test/x?q"),
            ("/foo", "/", "/FOO/x", None, "/"),
            ("/(.*)", "/$1", "/\r\nx", None, "/%0D"),
        ] {
            assert_eq!(check(pattern, target, path, query).as_deref(), Some(expected), "{pattern} {target} {path}");
        }
    }
}
