//! What answers become on their way: `proxy-redirect-*`, `proxy-cookie-*`, `limit-rate`; who gets a copy of requests (`mirror-*`); whether
//! there is a log line.

use http::StatusCode;

use super::auth::address;
use super::read::{Reader, Spoilt, flag, plain};
use super::settings::Settings;
use super::template::template;
use crate::model::policy::{AnswerEdits, FixedRedirect, MirrorTo, Part, SendRate, Template, Variable};

pub(super) fn edits(reader: &mut Reader<'_>, settings: &Settings) -> Option<AnswerEdits> {
    let from = shared(reader, settings, "proxy-redirect-from");
    let to = shared(reader, settings, "proxy-redirect-to");
    let location = match (from.as_deref(), to.as_deref()) {
        (None | Some("off" | "default"), _) | (_, None | Some("off")) => None,
        (Some(from), Some(to)) => pair(reader, "proxy-redirect-to", from, to),
    };
    let mut cookie = |key: &str| {
        let text = shared(reader, settings, key).filter(|text| text != "off")?;
        match text.split_once(char::is_whitespace) {
            Some((from, to)) if !from.starts_with('~') => pair(reader, key, from, to.trim()),
            _ => {
                reader.ignore(key, "is not two words, what it is and what it becomes");
                if text.starts_with('~') {
                    reader.unsupported("name the domain or path itself, without an expression");
                }
                None
            }
        }
    };
    let edits = AnswerEdits {
        location,
        cookie_domain: cookie("proxy-cookie-domain"),
        cookie_path: cookie("proxy-cookie-path"),
    };
    (edits != AnswerEdits::default()).then_some(edits)
}

fn pair(reader: &mut Reader<'_>, key: &str, from: &str, to: &str) -> Option<(String, Template)> {
    let usable = |text: &str| plain(text) && !text.contains([' ', ';', '"', '\\', '{', '}']);
    match template(to) {
        Ok(made) if usable(from) && usable(to) && !from.contains('$') => Some((from.to_owned(), made)),
        _ => {
            reader.ignore(key, "has what cannot stand in a field, or a variable that is not known here");
            if to.contains('$') || from.starts_with('~') {
                reader.unsupported(super::OTHER_VARIABLE);
            }
            None
        }
    }
}

/// KiB a second, and KiB before that.
pub(super) fn send_rate(reader: &mut Reader<'_>, settings: &Settings) -> Option<SendRate> {
    let mut kib = |key: &str| {
        let text = shared(reader, settings, key)?;
        let number = text.parse::<i64>().ok();
        if number.is_none() {
            reader.ignore(key, "is not a whole number of KiB");
        }
        number.and_then(|n| u64::try_from(n).ok()).map(|n| n.min(1 << 40) * 1024)
    };
    let (rate, after) = (kib("limit-rate").filter(|n| *n > 0), kib("limit-rate-after"));
    // There it works through the buffers, and only then (golden case 334).
    if rate.is_some() && shared(reader, settings, "proxy-buffering").is_none_or(|text| text != "on") {
        reader.warn("limit-rate", "limits nothing without `proxy-buffering: \"on\"`, as in ingress-nginx");
        return None;
    }
    Some(SendRate { rate: rate?, after: after.unwrap_or(0) })
}

pub(super) fn mirror(reader: &mut Reader<'_>) -> Option<MirrorTo> {
    let text = reader.text("mirror-target")?;
    // The address may end in `$request_uri`, which begins with the slash that a path needs.
    let authority = text.find("://").map_or(0, |at| at + 3);
    let end = text[authority..].find(['/', '?', '$']).map_or(text.len(), |at| at + authority);
    let bare = text[end..].starts_with('$');
    let url = if bare { format!("{}/{}", &text[..end], &text[end..]) } else { text.to_owned() };
    let Some((secure, host, port, mut target)) = address(&url) else {
        let reason = "is not an address (`http://host/path`) with known variables in its path only";
        reader.spoil("mirror-target", Spoilt::Denied, reason);
        if text.contains('$') {
            reader.unsupported(super::OTHER_VARIABLE);
        }
        return None;
    };
    if bare {
        // The text that was put in, which is a part of its own before a variable.
        target.0.remove(0);
    }
    let name = match reader.text("mirror-host") {
        Some(text) if plain(text) && !text.contains([' ', ';', '"', '\\', '/']) => template(text).ok(),
        _ => None,
    };
    if name.is_none() && reader.text("mirror-host").is_some() {
        reader.ignore("mirror-host", "is not a host");
    }
    let name = name.unwrap_or_else(|| Template(vec![Part::Text(host.clone())]));
    let body = match reader.text("mirror-request-body") {
        None | Some("on") => true,
        Some("off") => false,
        Some(_) => {
            reader.ignore("mirror-request-body", "is neither `on` nor `off`");
            true
        }
    };
    Some(MirrorTo { secure, host, port, target, name, body })
}

/// A switch, where the Ingress's own word goes before the ConfigMap's.
pub(super) fn shared_flag(reader: &mut Reader<'_>, settings: &Settings, key: &str) -> bool {
    let default = settings.defaults.get(key).and_then(|text| flag(text)).unwrap_or(false);
    reader.flag(key, default)
}

/// What answers `path` where only `path/` is configured, if not by the whole address.
pub(in crate::plan) fn to_slash(path: &str) -> FixedRedirect {
    let location = vec![Part::Text(path.to_owned()), Part::Variable(Variable::IsArgs), Part::Variable(Variable::Args)];
    FixedRedirect { status: StatusCode::MOVED_PERMANENTLY, location: Template(location), trim_slash: false }
}

/// The Ingress's own word, else the ConfigMap's.
pub(super) fn shared(reader: &Reader<'_>, settings: &Settings, key: &str) -> Option<String> {
    let own = reader.text(key).map(str::to_owned);
    own.or_else(|| settings.defaults.get(key).cloned())
}
