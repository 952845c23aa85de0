//! `canary` and its kin.

use http::HeaderName;

use super::read::Reader;
use crate::model::policy::{Canary, CanaryValue};
use crate::model::snapshot::PoolName;

/// What an Ingress says of the requests that it takes from another one.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Wanted> {
    if !reader.flag("canary", false) {
        return None;
    }
    let header = reader.text("canary-by-header").and_then(|name| {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        if parsed.is_none() {
            reader.ignore("canary-by-header", "is not a field name");
        }
        parsed
    });
    let value = match (reader.text("canary-by-header-value"), reader.text("canary-by-header-pattern")) {
        (Some(value), _) => CanaryValue::Exact(value.to_owned()),
        (None, Some(pattern)) => match super::rewrite::expression_fault(pattern) {
            None => CanaryValue::Pattern(pattern.to_owned()),
            Some(fault) => {
                reader.ignore(
                    "canary-by-header-pattern",
                    format!("is not a regular expression that is taken here ({fault})"),
                );
                reader.contrast(super::expression_contrast(&fault));
                CanaryValue::Words
            }
        },
        (None, None) => CanaryValue::Words,
    };
    let total = reader.number("canary-weight-total").filter(|t| *t > 0).unwrap_or(100);
    Some(Wanted {
        header: header.map(|name| (name, value)),
        cookie: reader.text("canary-by-cookie").map(str::to_owned),
        weight: reader.number("canary-weight").unwrap_or(0).min(total),
        total,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Wanted {
    header: Option<(HeaderName, CanaryValue)>,
    cookie: Option<String>,
    weight: u32,
    total: u32,
}

impl Wanted {
    pub(in crate::plan) fn to(&self, pool: PoolName) -> Canary {
        let Self { header, cookie, weight, total } = self.clone();
        Canary { pool, header, cookie, weight, total }
    }
}
