//! `use-regex`, `rewrite-target`, `x-forwarded-prefix`.

use std::borrow::Cow;

use http::HeaderValue;

use super::read::Reader;
use crate::model::difference::{Contrast, Difference};
use crate::model::policy::Rewrite;

/// What an Ingress asks of all its paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) regex: bool,
    pub(super) target: Option<String>,
    prefix: Option<HeaderValue>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Wanted {
    let regex = reader.flag("use-regex", false);
    let target = reader.text("rewrite-target").and_then(|target| {
        let odd = target.bytes().any(|b| !b.is_ascii_graphic() || b"?\"\\;{}`^|<>".contains(&b));
        if odd {
            reader.ignore("rewrite-target", "is not a path, with `$1` and the like for what was captured");
        }
        (!odd).then(|| target.to_owned())
    });
    let prefix = reader.text("x-forwarded-prefix").and_then(|text| {
        let value = HeaderValue::try_from(text).ok().filter(|_| !text.contains([' ', '"', '\\', ';', '{', '}', '$']));
        if value.is_none() {
            reader.ignore("x-forwarded-prefix", "is not a path");
        }
        value
    });
    Wanted { regex, target, prefix }
}

impl Wanted {
    /// Whether a path makes its whole host one of regular expressions.
    pub(super) fn makes_regex(&self, path: &str) -> bool {
        self.regex || self.rewrites(path)
    }

    fn rewrites(&self, path: &str) -> bool {
        self.target.as_ref().is_some_and(|target| target != path)
    }

    pub(super) fn of(&self, path: &str) -> Option<Rewrite> {
        if !self.rewrites(path) {
            return None;
        }
        let target = self.target.clone()?;
        Some(Rewrite { pattern: guarded(path).0.into_owned(), target, prefix: self.prefix.clone() })
    }
}

/// An expression of a path without its look-ahead, and what the path must then not match. Only where the place of `(?!…)` is certain, behind
/// plain text, is that the same (golden case 026): `/(?!api/).*` is `/.*` and not `/(?:api/)`.
pub(in crate::plan) fn guarded(pattern: &str) -> (Cow<'_, str>, Option<String>) {
    split_guard(pattern).map_or((Cow::Borrowed(pattern), None), |(rest, guard)| (Cow::Owned(rest), Some(guard)))
}

fn split_guard(pattern: &str) -> Option<(String, String)> {
    let at = pattern.find("(?!")?;
    let before = &pattern[..at];
    let mut literal = before.strip_prefix('^').unwrap_or(before).bytes();
    while let Some(byte) = literal.next() {
        match byte {
            // `\d` and the like stand for more than one text.
            b'\\' => literal.next().filter(u8::is_ascii_punctuation).map(drop)?,
            b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'$' => return None,
            _ => {}
        }
    }
    let end = at + 3 + group_end(&pattern[at + 3..])?;
    let (guard, rest) = (&pattern[at + 3..end], &pattern[end + 1..]);
    // A choice, or a count, would be about more than what follows.
    if rest.starts_with(['?', '*', '+', '{']) || chooses(rest) || rest.contains("(?!") {
        return None;
    }
    Some((format!("{before}{rest}"), format!("{before}(?:{guard})")))
}

/// Where the group ends that has begun before.
fn group_end(text: &str) -> Option<usize> {
    let (mut depth, mut class, mut bytes) = (0, false, text.bytes().enumerate());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => class = true,
            b']' => class = false,
            b'(' if !class => depth += 1,
            b')' if !class && depth == 0 => return Some(at),
            b')' if !class => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether a `|` stands outside of groups.
fn chooses(text: &str) -> bool {
    let (mut depth, mut class, mut bytes) = (0, false, text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => class = true,
            b']' => class = false,
            b'(' if !class => depth += 1,
            b')' if !class => depth -= 1,
            b'|' if !class && depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// The same as [`expression_fault`] of an expression that may begin with a look-ahead.
pub(in crate::plan) fn path_fault(pattern: &str) -> Option<String> {
    let (rest, guard) = guarded(pattern);
    expression_fault(&rest).or_else(|| expression_fault(&guard?))
}

/// An expression from a user: linear in time, of bounded size, and over bytes, as nginx's are. `Err` says what is wrong with it.
pub(in crate::plan) fn expression_fault(pattern: &str) -> Option<String> {
    let built =
        regex::bytes::RegexBuilder::new(pattern).unicode(false).case_insensitive(true).size_limit(1 << 20).build();
    let error = built.err()?.to_string();
    Some(error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

/// What ingress-nginx makes of an expression with such a fault: broken is broken in PCRE, too.
pub(in crate::plan) fn expression_contrast(fault: &str) -> Contrast {
    const BROKEN: [&str; 5] = [
        "unclosed character class",
        "unclosed group",
        "unopened group",
        "repetition operator missing expression",
        "invalid character class range",
    ];
    let broken = BROKEN.iter().any(|text| fault.starts_with(text));
    if broken { Contrast::Alike } else { Contrast::Differs(Difference::Expressions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_ahead_behind_plain_text_becomes_an_exception() {
        for (pattern, expected) in [
            ("/neg(?!x)", Some(("/neg", "/neg(?:x)"))),
            ("^/(?!api/|admin/)(.*)", Some(("^/(.*)", "^/(?:api/|admin/)"))),
            ("/a\\.b(?!(c|[)])d)(/|$)", Some(("/a\\.b(/|$)", "/a\\.b(?:(c|[)])d)"))),
            ("/a.*(?!b)", None),
            ("/\\d(?!b)", None),
            ("/(?!a)|/b", None),
            ("/(?!a)+b", None),
            ("/(?!a)(?!b)", None),
            ("/(?!a", None),
            ("/a", None),
        ] {
            let split = split_guard(pattern);
            assert_eq!(split.as_ref().map(|(rest, guard)| (&**rest, &**guard)), expected, "{pattern}");
        }
        for broken in ["/[", "/(a", "/a)", "/[b-a]", "+"] {
            let fault = path_fault(broken).expect(broken);
            assert_eq!(expression_contrast(&fault), Contrast::Alike, "{broken}: {fault}");
        }
        for refused in ["/(a)\\1", "/x(?=a)", "/(?<=a)b", "/(?>a)", "/(a{1000}){1000}"] {
            let fault = path_fault(refused).expect(refused);
            assert_eq!(expression_contrast(&fault), Contrast::Differs(Difference::Expressions), "{refused}: {fault}");
        }
        assert_eq!(path_fault("/(?!a)"), None);
        assert!(path_fault("/x(?=a)").is_some() && path_fault("/(?!(?=a))").is_some());
    }
}
