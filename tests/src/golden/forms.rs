//! Forms that need a look inside: what is malformed, and bodies that are compressed.

use std::io::Read as _;

use serde_json::Value;

use super::answer::Answer;

/// What backends say where they are asked for so many bytes.
pub fn filler(size: usize) -> Vec<u8> {
    b"abcdefghijklmno\n".iter().copied().cycle().take(size).collect()
}

/// A field of a recorded request or answer.
pub(super) fn named<'a>(recorded: &'a Value, name: &str) -> Option<&'a str> {
    let fields = recorded["headers"].as_array()?;
    fields.iter().find(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))?[1].as_str()
}

/// Two encoders say the same in other bytes: what they say has to be what the backend said.
pub(super) fn coded(request: &Value, answer: &Answer, to: &mut Vec<String>) {
    let size = named(request, "X-Echo-Size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let said = filler(size);
    let body = answer.body.as_deref().unwrap_or_default();
    let mut read = Vec::new();
    let done = match answer.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut read).is_ok(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut read).is_ok(),
        _ => false,
    };
    if !done || read != said {
        to.push(format!("the compressed body says {} bytes, of {size} that the backend said", read.len()));
    }
    if body.len() * 4 > size {
        to.push(format!("{size} bytes became {}", body.len()));
    }
}

/// Whether RFC 9112 has a server refuse it (§2.2, §3, §5): a bare line feed, more than one blank in the request line, a line without
/// colon, a name that is no token, a control character in a value.
pub(super) fn malformed(request: &str) -> bool {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.split("\r\n");
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let field = |line: &str| {
        line.split_once(':').is_some_and(|(name, value)| {
            !name.is_empty() && name.chars().all(token) && !value.chars().any(|c| c.is_control() && c != '\t')
        })
    };
    lines.next().is_some_and(|line| line.contains('\n') || line.contains("  ")) || !lines.all(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_requests_are_known_by_their_bytes() {
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nHost: a\r\nX: \tb\r\n\r\nbody\nwithout\x01form", false),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\nHost: a\n\n", true),
            ("GET / HTTP/1.1\r\nNoColon\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nX(y): 1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nX: a\x01b\r\n\r\n", true),
        ] {
            assert_eq!(malformed(request), expected, "{request:?}");
        }
    }
}
