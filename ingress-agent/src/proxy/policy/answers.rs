//! `proxy-redirect-*` and `proxy-cookie-*`: what a backend says of itself becomes what its clients see.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::view::View;
use crate::model::policy::{AnswerEdits, Template};

pub(in crate::proxy) fn edit(edits: &AnswerEdits, headers: &mut HeaderMap, view: &View<'_>) {
    if let Some((from, to)) = &edits.location {
        for name in [header::LOCATION, header::REFRESH] {
            replace(headers, &name, |text| {
                // `Refresh: 5; url=http://…`
                let at = if name == header::REFRESH { text.find("url=")? + 4 } else { 0 };
                let rest = text[at..].strip_prefix(from.as_str())?;
                Some(format!("{}{}{rest}", &text[..at], view.fill(to)))
            });
        }
    }
    if edits.cookie_domain.is_some() || edits.cookie_path.is_some() {
        replace(headers, &header::SET_COOKIE, |text| cookie(edits, text, view));
    }
}

/// `None` leaves the field as it is.
fn replace(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    if !headers.contains_key(name) {
        return;
    }
    let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for value in values {
        let changed = value.to_str().ok().and_then(&change).and_then(|text| HeaderValue::try_from(text).ok());
        headers.append(name.clone(), changed.unwrap_or(value));
    }
}

fn cookie(edits: &AnswerEdits, text: &str, view: &View<'_>) -> Option<String> {
    let mut changed = false;
    let mut parts = text.split(';');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        out.push(';');
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let new = if name.trim().eq_ignore_ascii_case("domain") {
            let whole = |(from, to): &(String, Template)| {
                let same = value.strip_prefix('.').unwrap_or(value).eq_ignore_ascii_case(from.trim_start_matches('.'));
                same.then(|| view.fill(to))
            };
            edits.cookie_domain.as_ref().and_then(whole)
        } else if name.trim().eq_ignore_ascii_case("path") {
            let beginning = |(from, to): &(String, Template)| {
                value.strip_prefix(from.as_str()).map(|rest| format!("{}{rest}", view.fill(to)))
            };
            edits.cookie_path.as_ref().and_then(beginning)
        } else {
            None
        };
        match new {
            // It must not end the attribute.
            Some(new) if !new.contains(';') => {
                changed = true;
                out.push_str(name);
                out.push('=');
                out.push_str(&new);
            }
            _ => out.push_str(part),
        }
    }
    changed.then_some(out)
}
