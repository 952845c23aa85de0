//! How long and how large what clients send may be.

use std::time::Duration;

use super::super::read::{period, size};
use super::Values;
use crate::model::policy::{ClientLimits, HeadLimits, UpstreamKeep};

pub(super) fn limits(v: &mut Values<'_>) -> ClientLimits {
    let positive = |d: &Duration| !d.is_zero();
    ClientLimits {
        header: v.seconds("client-header-timeout").filter(positive),
        body: v.seconds("client-body-timeout").filter(positive),
        // 0 turns keeping off: one request a connection.
        keep_alive: v.seconds("keep-alive").filter(positive),
        requests: match (v.seconds("keep-alive").is_some_and(|d| d.is_zero()), v.count("keep-alive-requests")) {
            (true, _) => Some(1),
            (false, count) => count.map(|n| n.max(1)),
        },
    }
}

/// Towards backends.
pub(super) fn keep(v: &mut Values<'_>) -> UpstreamKeep {
    let default = UpstreamKeep::default();
    UpstreamKeep {
        connections: v.count("upstream-keepalive-connections").unwrap_or(default.connections),
        idle: v.seconds("upstream-keepalive-timeout").unwrap_or(default.idle),
        life: v.take("upstream-keepalive-time", "a time such as `1h`", period).unwrap_or(default.life),
        requests: v.count("upstream-keepalive-requests").map_or(default.requests, |n| n.max(1)),
    }
}

pub(super) fn head(v: &mut Values<'_>) -> HeadLimits {
    let defaults = HeadLimits::default();
    let bytes =
        |text: &str| size(text).flatten().and_then(|n| u32::try_from(n).ok()).filter(|n| (256..=256 << 10).contains(n));
    let first = v.take("client-header-buffer-size", "a size from 256 bytes to 256k", bytes).unwrap_or(defaults.first);
    let large = |text: &str| {
        let (count, each) = text.split_once(char::is_whitespace)?;
        let count = count.parse().ok().filter(|n| (1..=64).contains(n))?;
        Some((count, bytes(each.trim())?))
    };
    let wanted = "a number from 1 to 64 and a size from 256 bytes to 256k";
    let (buffers, size) =
        v.take("large-client-header-buffers", wanted, large).unwrap_or((defaults.buffers, defaults.size));
    HeadLimits { buffers, size, first }
}
