//! Which requests a canary takes: by a field, by a cookie, by chance, in this order.

use http::HeaderMap;
use regex::bytes::Regex;

use super::view::cookie;
use crate::model::policy::{Canary, CanaryValue};
use crate::proxy::pools::PoolId;

pub(in crate::proxy) struct CompiledCanary {
    pub(in crate::proxy) pool: PoolId,
    pattern: Option<Regex>,
}

impl CompiledCanary {
    pub(in crate::proxy) fn new(canary: &Canary, pool: PoolId) -> Self {
        let pattern = match &canary.header {
            Some((_, CanaryValue::Pattern(pattern))) => crate::proxy::hosts::expression(pattern, false),
            _ => None,
        };
        Self { pool, pattern }
    }

    pub(in crate::proxy) fn takes(&self, canary: &Canary, headers: &HeaderMap, random: impl Fn() -> u64) -> bool {
        if let Some((name, value)) = &canary.header
            && let Some(sent) = headers.get(name).map(http::HeaderValue::as_bytes)
        {
            match value {
                CanaryValue::Exact(wanted) if wanted.as_bytes() == sent => return true,
                CanaryValue::Pattern(_) if self.pattern.as_ref().is_some_and(|p| p.is_match(sent)) => return true,
                CanaryValue::Words if sent == b"always" => return true,
                CanaryValue::Words if sent == b"never" => return false,
                _ => {}
            }
        }
        if let Some(name) = &canary.cookie {
            match cookie(headers, name, true) {
                Some(b"always") => return true,
                Some(b"never") => return false,
                _ => {}
            }
        }
        canary.weight > 0 && random() % u64::from(canary.total) < u64::from(canary.weight)
    }
}
