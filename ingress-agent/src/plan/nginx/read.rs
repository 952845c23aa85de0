//! Reading the values of annotations and settings as ingress-nginx does: which are taken, which are passed over with a word to their
//! owner, and which spoil more than themselves.

use std::time::Duration;

use ipnet::IpNet;

use crate::model::difference::Contrast;
use crate::model::facts::IngressFacts;
use crate::model::rejection::Rejection;

/// What a value that cannot be used costs, beyond itself (observed: golden cases 299 and 402).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoilt {
    /// The whole Ingress is not served.
    Ingress,
    /// Its requests are answered with 503.
    Denied,
}

pub(super) struct Reader<'a> {
    pub(super) ingress: &'a IngressFacts,
    pub(super) spoilt: Option<Spoilt>,
    pub(super) rejections: Vec<Rejection>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(ingress: &'a IngressFacts) -> Self {
        Self { ingress, spoilt: None, rejections: Vec::new() }
    }

    /// Absent and empty are the same.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.ingress.annotations.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(text) = self.text(key) else { return default };
        flag(text).unwrap_or_else(|| {
            self.ignore(key, "is not `true` or `false`");
            default
        })
    }

    pub(super) fn number(&mut self, key: &str) -> Option<u32> {
        let text = self.text(key)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.ignore(key, "is not a whole number");
        }
        number
    }

    /// Seconds, as ingress-nginx has them: a bare number, of which 0 and less mean nothing.
    pub(super) fn seconds(&mut self, key: &str) -> Option<Duration> {
        let text = self.text(key)?;
        let seconds = text.parse().ok().filter(|n: &u64| *n > 0).map(Duration::from_secs);
        if seconds.is_none() {
            self.ignore(key, "is not a number of seconds");
        }
        seconds
    }

    /// It changes nothing.
    pub(super) fn ignore(&mut self, key: &str, reason: impl AsRef<str>) {
        self.note(key, reason.as_ref(), "it is ignored", false);
    }

    pub(super) fn warn(&mut self, key: &str, reason: impl Into<String>) {
        self.rejections.push(self.ingress.origin.warn("Ingress", self.ingress.annotation_field(key), reason));
    }

    /// It spoils its Ingress, or the access to it.
    pub(super) fn spoil(&mut self, key: &str, spoilt: Spoilt, reason: impl AsRef<str>) {
        let effect = match spoilt {
            Spoilt::Ingress => "the whole Ingress is not served",
            Spoilt::Denied => "its requests are answered with 503",
        };
        self.note(key, reason.as_ref(), effect, true);
        if self.spoilt != Some(Spoilt::Ingress) {
            self.spoilt = Some(spoilt);
        }
    }

    /// Of what was said last: how ingress-nginx takes it, where that is not as we do.
    pub(super) fn contrast(&mut self, contrast: Contrast) {
        if let Some(last) = self.rejections.pop() {
            self.rejections.push(last.contrasted(contrast));
        }
    }

    pub(super) fn unsupported(&mut self, instead: &'static str) {
        self.contrast(Contrast::Unsupported { instead });
    }

    fn note(&mut self, key: &str, reason: &str, effect: &str, rejected: bool) {
        let shown = self.text(key).map_or_else(String::new, |value| format!("`{value}` "));
        let text = format!("{shown}{reason}; {effect}");
        let origin = &self.ingress.origin;
        self.rejections.push(if rejected {
            origin.reject("Ingress", self.ingress.annotation_field(key), text)
        } else {
            origin.warn("Ingress", self.ingress.annotation_field(key), text)
        });
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// nginx's sizes: bytes, or with `k`, `m`, `g`. 0 is no limit.
#[expect(clippy::option_option, reason = "no size, and a size that is no limit")]
pub(super) fn size(text: &str) -> Option<Option<u64>> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (end, 'k' | 'K') => (&text[..end], 1 << 10),
        (end, 'm' | 'M') => (&text[..end], 1 << 20),
        (end, 'g' | 'G') => (&text[..end], 1 << 30),
        _ => (text, 1),
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    Some((bytes > 0).then_some(bytes))
}

/// nginx's times: seconds, or with `s`, `m`, `h`, `d`.
pub(super) fn period(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (end, 's') => (&text[..end], 1),
        (end, 'm') => (&text[..end], 60),
        (end, 'h') => (&text[..end], 3600),
        (end, 'd') => (&text[..end], 86400),
        _ => (text, 1),
    };
    Some(Duration::from_secs(digits.parse::<u64>().ok()?.checked_mul(unit)?.min(365 * 86400)))
}

/// Addresses and ranges, by commas. `Err` is the one that is none.
pub(super) fn ranges(text: &str) -> Result<Vec<IpNet>, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let range = |part: &str| {
        let range = part.parse::<IpNet>().ok().map(|n| n.trunc());
        range.or_else(|| part.parse::<std::net::IpAddr>().ok().map(IpNet::from)).ok_or_else(|| part.to_owned())
    };
    parts.map(range).collect()
}

/// Whether a text may stand in a header field (RFC 9110 §5.5): no line break, no NUL, no control character.
pub(super) fn plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_nginxs() {
        for (text, bytes) in [
            ("1m", Some(Some(1 << 20))),
            ("0", Some(None)),
            ("10", Some(Some(10))),
            ("8K", Some(Some(8 << 10))),
            ("1x", None),
            ("", None),
            ("-1", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
