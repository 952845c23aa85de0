//! `use-regex`, `rewrite-target`, `x-forwarded-prefix`.

use http::HeaderValue;

use super::read::Reader;
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
        Some(Rewrite { pattern: path.to_owned(), target, prefix: self.prefix.clone() })
    }
}

/// An expression from a user: linear in time, of bounded size, and over bytes, as nginx's are. `Err` says what is wrong with it.
pub(in crate::plan) fn expression_fault(pattern: &str) -> Option<String> {
    let built =
        regex::bytes::RegexBuilder::new(pattern).unicode(false).case_insensitive(true).size_limit(1 << 20).build();
    let error = built.err()?.to_string();
    Some(error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
}
