//! `limit-rps`, `limit-rpm`, `limit-connections` and their kin; whether edges share them, and what becomes of clients that go on exceeding them.

use std::time::Duration;

use super::read::{Reader, Spoilt, ranges};
use super::settings::Settings;
use crate::model::policy::{LimitDrop, Limits, Rate};

/// How much more than the rate comes through at once, unless `limit-burst-multiplier` says otherwise.
const BURST: u32 = 5;
const LIMIT_DROP_AFTER: &str = "metadata.annotations[sluicegate.io/limit-drop-after]";

pub(super) fn read(reader: &mut Reader<'_>, settings: &Settings) -> Option<Limits> {
    let multiplier = reader.number("limit-burst-multiplier").filter(|m| *m > 0).unwrap_or(BURST);
    let mut rates = Vec::new();
    for (key, period) in [("limit-rps", Duration::from_secs(1)), ("limit-rpm", Duration::from_mins(1))] {
        if let Some(rate) = count(reader, key) {
            rates.push(Rate { every: period / rate, burst: rate.saturating_mul(multiplier) });
        }
    }
    let connections = count(reader, "limit-connections");
    let shared = shared(reader, settings, &rates);
    let limited = !rates.is_empty() || connections.is_some();
    let drop = asked_drop(reader, settings, limited);
    if !limited {
        return None;
    }
    let mut exempt = Vec::new();
    if let Some((key, text)) =
        ["limit-allowlist", "limit-whitelist"].into_iter().find_map(|k| Some((k, reader.text(k)?)))
    {
        match ranges(text) {
            Ok(ranges) => exempt = ranges,
            Err(part) => reader.ignore(key, format!("contains `{part}`, which is no address or range")),
        }
    }
    let owner = reader.ingress.origin.name.clone();
    let (rate_status, connection_status) = (settings.rate_status, settings.connection_status);
    Some(Limits { owner, shared, rates, connections, exempt, rate_status, connection_status, drop })
}

/// What our own annotation asks for, where it has a meaning.
fn asked_drop(reader: &mut Reader<'_>, settings: &Settings, limited: bool) -> Option<LimitDrop> {
    let drop = reader.ingress.limit_drop?;
    let useless = if !settings.limit_drop {
        "changes nothing: agents drop clients with `--enable-limit-drop` only"
    } else if limited {
        return Some(drop);
    } else {
        "changes nothing: there is no limit-rps, limit-rpm or limit-connections"
    };
    reader.rejections.push(reader.ingress.origin.warn("Ingress", LIMIT_DROP_AFTER, useless));
    None
}

/// Negative and 0: no limit.
fn count(reader: &mut Reader<'_>, key: &str) -> Option<u32> {
    let text = reader.text(key)?;
    let Ok(number) = text.parse::<i64>() else {
        reader.spoil(key, Spoilt::Ingress, "is not a whole number");
        return None;
    };
    u32::try_from(number).ok().filter(|n| *n > 0).map(|n| n.min(1_000_000))
}

/// Ours (`sluicegate.io/limit-shared`): whether the rates are those of all edges together.
fn shared(reader: &mut Reader<'_>, settings: &Settings, rates: &[Rate]) -> bool {
    if !reader.ingress.limit_shared {
        return false;
    }
    let why = if rates.is_empty() {
        "changes nothing: there is no limit-rps and no limit-rpm"
    } else if settings.alone {
        "has no effect: this edge knows no others (`--sync-peer`), so each limits by itself"
    } else {
        return true;
    };
    let field = "metadata.annotations[sluicegate.io/limit-shared]";
    reader.rejections.push(reader.ingress.origin.warn("Ingress", field, why));
    false
}
