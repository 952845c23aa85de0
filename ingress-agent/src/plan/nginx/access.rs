//! `allowlist-source-range` (and its older name), `denylist-source-range`.

use ipnet::IpNet;

use super::read::{Reader, Spoilt, ranges};
use super::settings::Settings;
use crate::model::policy::Access;

pub(super) fn read(reader: &mut Reader<'_>, settings: &Settings) -> Option<Access> {
    let allow = list(reader, &["allowlist-source-range", "whitelist-source-range"], &settings.allow);
    let deny = list(reader, &["denylist-source-range"], &settings.deny);
    (!allow.is_empty() || !deny.is_empty()).then_some(Access { deny, allow })
}

fn list(reader: &mut Reader<'_>, keys: &[&str], default: &[IpNet]) -> Vec<IpNet> {
    let Some((key, text)) = keys.iter().find_map(|key| Some((key, reader.text(key)?))) else { return default.to_vec() };
    match ranges(text) {
        Ok(ranges) => ranges,
        Err(part) => {
            // A list that cannot be read must not open what it was to close.
            reader.spoil(key, Spoilt::Denied, format!("contains `{part}`, which is no address or range"));
            Vec::new()
        }
    }
}
