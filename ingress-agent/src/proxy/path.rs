//! The path that routes are matched against, normalised as nginx does it: `%XX` decoded, slashes merged, dot segments
//! resolved. What is forwarded stays the raw path. Never lets `..` climb above the root.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Why a path cannot be matched; the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPath {
    /// `%` without two hexadecimal digits (RFC 3986 §2.1).
    Escape,
    /// `%00`, which nginx refuses too: backends written in C would see a shorter path.
    Nul,
    /// `/../` above the root.
    AboveRoot,
    /// Not beginning with a slash (RFC 9112 §3.2.1).
    NotAbsolute,
}

/// Of a target without its query.
pub(super) fn normalise(bytes: &[u8]) -> Result<Cow<'_, [u8]>, BadPath> {
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    // Nearly every path is already normal. `/.` also covers `/.well-known`, which then takes the slow road unharmed.
    let mut after_slash = false;
    let mut plain = true;
    for &byte in bytes {
        if byte == b'%' || (after_slash && (byte == b'/' || byte == b'.')) {
            plain = false;
            break;
        }
        after_slash = byte == b'/';
    }
    if plain {
        return Ok(Cow::Borrowed(bytes));
    }
    resolve(&decode(bytes)?).map(Cow::Owned)
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = rest.next().and_then(|&b| (b as char).to_digit(16)).ok_or(BadPath::Escape)?;
        let low = rest.next().and_then(|&b| (b as char).to_digit(16)).ok_or(BadPath::Escape)?;
        let decoded = (high * 16 + low) as u8;
        if decoded == 0 {
            return Err(BadPath::Nul);
        }
        out.push(decoded);
    }
    Ok(out)
}

/// Slashes merged and dot segments removed (RFC 3986 §5.2.4), after decoding: `/%2e%2e/` counts as `/../`.
fn resolve(decoded: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&b| b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(BadPath::AboveRoot)?;
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        // `/a/`, `/a/.` and `/a/b/..` all end in a slash.
        if last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}

/// Percent-encodes what may not stand in a path (RFC 3986 §3.3), for paths that were decoded and rewritten.
pub(super) fn encode(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    for &byte in path {
        match byte {
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) => out.push(byte as char),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_nginx_does() {
        for (raw, expected) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("//a///b", Ok("/a/b")),
            ("/a/./b", Ok("/a/b")),
            ("/a/../b", Ok("/b")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/a/.", Ok("/a/")),
            ("/a/", Ok("/a/")),
            ("/%61", Ok("/a")),
            ("/a%2Fb", Ok("/a/b")),
            ("/%2e%2e/x", Err(BadPath::AboveRoot)),
            ("/a/%2E%2e/x", Ok("/x")),
            ("/../x", Err(BadPath::AboveRoot)),
            ("/a/../../x", Err(BadPath::AboveRoot)),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/...", Ok("/...")),
            ("/%", Err(BadPath::Escape)),
            ("/%4", Err(BadPath::Escape)),
            ("/%zz", Err(BadPath::Escape)),
            ("/%00", Err(BadPath::Nul)),
            ("*", Err(BadPath::NotAbsolute)),
            ("", Err(BadPath::NotAbsolute)),
        ] {
            let got = normalise(raw.as_bytes()).map(|p| String::from_utf8_lossy(&p).into_owned());
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{raw}");
        }
    }

    #[test]
    fn encoding_leaves_path_characters_and_escapes_the_rest() {
        assert_eq!(encode(b"/a b/\xc3\xa9?#%"), "/a%20b/%C3%A9%3F%23%25");
        assert_eq!(encode(b"/a:b@c;d=e"), "/a:b@c;d=e");
    }
}
