//! Targets with bytes that RFC 3986 does not allow and that nginx takes as they are: not ASCII, `"`, `#`, `<`, `>`, `` ` ``. hyper would refuse
//! them, so it is shown `_` in their place, and what the client sent is kept beside the request. Controls, blanks and DEL stay refused.

use std::fmt::Write as _;

/// A target as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Odd {
    /// Path and query.
    pub(super) raw: Vec<u8>,
    /// The same with its odd bytes percent-encoded, for places where a URI must stand.
    pub(super) escaped: String,
}

const fn odd(byte: u8) -> bool {
    byte >= 0x80 || matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`')
}

/// Without branches, so that the compiler compares many bytes at once: it is asked of every request.
pub(super) fn any(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &b| found | odd(b))
}

pub(super) fn mask(bytes: &mut [u8]) {
    for byte in bytes {
        if odd(*byte) {
            *byte = b'_';
        }
    }
}

impl Odd {
    /// Of a request line without its end.
    pub(super) fn of_line(line: &[u8]) -> Option<Self> {
        let after = line.iter().position(|b| *b == b' ')? + 1;
        let end = line.iter().rposition(|b| *b == b' ').filter(|end| *end > after)?;
        let mut target = &line[after..end];
        if target.first() != Some(&b'/') {
            // Absolute form: the host is the URI's own, and may not be odd.
            let rest = target.windows(3).position(|w| w == b"://")? + 3;
            let slash = target[rest..].iter().position(|b| *b == b'/')? + rest;
            if any(&target[..slash]) {
                return None;
            }
            target = &target[slash..];
        }
        let mut escaped = String::with_capacity(target.len() + 16);
        for &byte in target {
            if odd(byte) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            } else {
                escaped.push(byte as char);
            }
        }
        Some(Self { raw: target.to_vec(), escaped })
    }

    /// What routes are matched by, not yet normalised.
    pub(super) fn path(&self) -> &[u8] {
        let end = self.raw.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(self.raw.len());
        &self.raw[..end]
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.escaped.split_once('?').map(|(_, query)| query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_kept_as_it_was_sent() {
        let odd = Odd::of_line(b"GET /a\xfc#x?b=\"1\" HTTP/1.1").expect("a target");
        assert_eq!(odd.raw, b"/a\xfc#x?b=\"1\"");
        assert_eq!(odd.escaped, "/a%FC%23x?b=%221%22");
        assert_eq!(odd.path(), b"/a\xfc");
        assert_eq!(odd.query(), Some("b=%221%22"));
        assert_eq!(Odd::of_line(b"GET http://a/<x> HTTP/1.1").expect("absolute").raw, b"/<x>");
        assert_eq!(Odd::of_line(b"GET http://a<b/x HTTP/1.1"), None);
        for line in [&b"GET"[..], b"GET ", b"GET  ", b"", b"GET *\xff HTTP/1.1"] {
            assert_eq!(Odd::of_line(line), None);
        }
    }
}
