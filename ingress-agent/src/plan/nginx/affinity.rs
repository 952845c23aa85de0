//! `affinity: cookie`, `upstream-hash-by`.

use super::read::{Reader, Spoilt, plain};
use super::template::template;
use crate::model::policy::{Affinity, HashBy};

pub(super) fn cookie(reader: &mut Reader<'_>) -> Option<Affinity> {
    if reader.text("affinity")? != "cookie" {
        reader.ignore("affinity", "is not `cookie`");
        return None;
    }
    let word = |reader: &mut Reader<'_>, key: &str| {
        let text = reader.text(key)?;
        // What would end the attribute, or the field.
        if !plain(text) || text.contains([';', ',', ' ', '"', '\\']) {
            reader.ignore(key, "cannot stand in a cookie");
            return None;
        }
        Some(text.to_owned())
    };
    let same_site = word(reader, "session-cookie-samesite").filter(|s| {
        let known = ["none", "lax", "strict"].contains(&s.to_ascii_lowercase().as_str());
        if !known {
            reader.ignore("session-cookie-samesite", "is not `None`, `Lax` or `Strict`");
        }
        known
    });
    Some(Affinity {
        cookie: word(reader, "session-cookie-name").unwrap_or_else(|| "INGRESSCOOKIE".to_owned()),
        persistent: reader.text("affinity-mode") == Some("persistent"),
        change_on_failure: reader.flag("session-cookie-change-on-failure", false),
        canary_sticks: match reader.text("affinity-canary-behavior") {
            None | Some("sticky") => true,
            Some("legacy") => false,
            Some(_) => {
                reader.ignore("affinity-canary-behavior", "is neither `sticky` nor `legacy`");
                true
            }
        },
        path: word(reader, "session-cookie-path"),
        domain: word(reader, "session-cookie-domain"),
        expires: reader.number("session-cookie-expires").map(u64::from),
        max_age: reader.number("session-cookie-max-age").map(|n| n.to_string()),
        same_site,
        conditional_none: reader.flag("session-cookie-conditional-samesite-none", false),
        secure: reader.text("session-cookie-secure").and_then(super::read::flag),
    })
}

pub(super) fn hash_by(reader: &mut Reader<'_>) -> Option<HashBy> {
    let text = reader.text("upstream-hash-by")?;
    let parsed =
        if plain(text) && !text.contains([';', '"', '\\', ' ']) { template(text) } else { Err(text.to_owned()) };
    match parsed {
        Ok(by) => {
            let size = subset_size(reader);
            Some(HashBy { by, subset: reader.flag("upstream-hash-by-subset", false).then_some(size) })
        }
        Err(what) => {
            reader.spoil("upstream-hash-by", Spoilt::Ingress, format!("has `{what}`, which is not known here"));
            if what != text {
                reader.unsupported(super::OTHER_VARIABLE);
            }
            None
        }
    }
}

/// Of `upstream-hash-by-subset`.
fn subset_size(reader: &mut Reader<'_>) -> u32 {
    const KEY: &str = "upstream-hash-by-subset-size";
    const DEFAULT: u32 = 3;
    let Some(text) = reader.text(KEY) else { return DEFAULT };
    let Ok(size) = text.parse::<i32>() else {
        reader.ignore(KEY, "is not a whole number");
        return DEFAULT;
    };
    // 0 stands for the default there.
    u32::try_from(size).ok().filter(|size| *size > 0).unwrap_or(DEFAULT)
}
