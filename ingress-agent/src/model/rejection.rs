//! Why something was not taken. A rejection concerns one object (or a part of it) and nothing else; the owner can read from
//! it what to change, and where.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::difference::{Contrast, Difference};
use super::snapshot::ObjectName;

/// Bytes of a field or a reason. An Event's note takes 1,024, and nobody reads more.
const LONGEST: usize = 700;

/// A [`Finding`] that is shared: it goes from the facts through the parts of the plan into every snapshot, and there may be as many as
/// objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection(Arc<Finding>);

/// Ordered by what an operator looks for first: kind, name, place, field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `Service`, `Ingress`, … as in the manifest; `File` where not even that could be read.
    pub kind: String,
    pub name: ObjectName,
    /// Where it was read: `shop.yaml, document 2`, or empty for objects from the API server.
    pub place: String,
    /// Path of the field: `spec.rules[0].http.paths[1].path`. Empty for the whole object.
    pub field: String,
    /// What is wrong and what would be right, without a full stop.
    pub reason: String,
    pub severity: Severity,
    /// Of the object, where it came from an API server.
    pub uid: String,
    pub contrast: Contrast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// This part does not serve (or its last good state does).
    Rejected,
    /// It serves, but somebody should know (an expired certificate).
    Warning,
}

impl From<Finding> for Rejection {
    fn from(finding: Finding) -> Self {
        Self(Arc::new(finding))
    }
}

impl Deref for Rejection {
    type Target = Finding;

    fn deref(&self) -> &Finding {
        &self.0
    }
}

impl Rejection {
    /// Ingress-nginx takes it in this way.
    #[must_use]
    pub fn contrasted(mut self, contrast: Contrast) -> Self {
        Arc::make_mut(&mut self.0).contrast = contrast;
        self
    }

    #[must_use]
    pub fn differs(self, difference: Difference) -> Self {
        self.contrasted(Contrast::Differs(difference))
    }

    #[must_use]
    pub fn unsupported(self, instead: &'static str) -> Self {
        self.contrasted(Contrast::Unsupported { instead })
    }

    /// Says more in the reason.
    pub fn add(&mut self, words: &str) {
        Arc::make_mut(&mut self.0).reason += words;
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{} {}", self.kind, self.name)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The text as one line of bounded length. What it quotes was written by others: it must not look like a line of ours in a log, move
/// a terminal's cursor, or fill a disk.
pub fn one_line(text: String) -> String {
    let shown = if text.contains(is_hidden) { escaped(&text) } else { text };
    if shown.len() <= LONGEST {
        return shown;
    }
    // The beginning names what it is about, and the end says what is wrong with it.
    let head = shown.floor_char_boundary(LONGEST / 2);
    let tail = shown.floor_char_boundary(shown.len() - LONGEST / 2);
    format!("{} … {}", &shown[..head], &shown[tail..])
}

fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Not seen as what it is: control characters, and those that end a line or turn the direction of the text around.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_one_line() {
        for (text, shown) in [
            ("`a b` is no address: ü", "`a b` is no address: ü"),
            ("`a\n2026 WARN b` is no address", "`a\\n2026 WARN b` is no address"),
            ("\u{1b}[2J\r\0", "\\u{1b}[2J\\r\\u{0}"),
            ("a\u{202e}b\u{2028}c", "a\\u{202e}b\\u{2028}c"),
        ] {
            assert_eq!(one_line(text.to_owned()), shown);
        }
    }

    #[test]
    fn of_a_text_that_is_too_long_both_ends_are_shown() {
        let shown = one_line(format!("`{}` is no address", "ü".repeat(100_000)));
        assert!(shown.starts_with("`üü") && shown.ends_with("ü` is no address") && shown.contains(" … "), "{shown}");
        assert!(shown.len() < LONGEST + 10, "{}", shown.len());
    }
}
