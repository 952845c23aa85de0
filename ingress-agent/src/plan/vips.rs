//! Which addresses can be a virtual IP.

use std::net::IpAddr;

/// Why this address cannot be one that we answer for.
pub(super) fn fault(vip: IpAddr) -> Option<&'static str> {
    let link_local = match vip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    match vip {
        _ if vip.is_unspecified() => Some("is the unspecified address"),
        _ if vip.is_multicast() => Some("is a multicast address"),
        _ if vip.is_loopback() => Some("is a loopback address"),
        _ if link_local => Some("is link-local: no client behind a router can reach it"),
        IpAddr::V4(a) if a.is_broadcast() => Some("is the broadcast address"),
        _ => None,
    }
}
