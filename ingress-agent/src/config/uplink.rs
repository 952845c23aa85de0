//! `--interface auto`: the interfaces of the default routes, as the kernel lists them in /proc/net. For a DaemonSet, whose one
//! configuration meets nodes with differing names of devices.
//!
//! Read once, at the start: an agent must not wander to another interface under its flows because a route flapped.

use std::fs;

const V4: &str = "/proc/net/route";
const V6: &str = "/proc/net/ipv6_route";
/// linux/route.h.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// At least one; the interface of the preferred IPv4 default route first, then that of IPv6 where it is another.
pub(super) fn interfaces() -> Result<Vec<String>, String> {
    let v4 = fs::read_to_string(V4).map_err(|e| format!("{V4}: {e}"))?;
    // A kernel without IPv6 has no such file.
    let v6 = fs::read_to_string(V6).unwrap_or_default();
    let mut found: Vec<String> =
        [preferred(v4.lines().skip(1).filter_map(v4_default)), preferred(v6.lines().filter_map(v6_default))]
            .into_iter()
            .flatten()
            .collect();
    found.dedup();
    if found.is_empty() {
        return Err("this node has no default route yet; name the interface, or wait for the network".into());
    }
    Ok(found)
}

struct DefaultRoute<'a> {
    interface: &'a str,
    metric: u32,
}

/// The lowest metric wins; of equal ones the first, as in the kernel.
fn preferred<'a>(routes: impl Iterator<Item = DefaultRoute<'a>>) -> Option<String> {
    routes.min_by_key(|route| route.metric).map(|route| route.interface.to_owned())
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in hexadecimal but the metric.
fn v4_default(line: &str) -> Option<DefaultRoute<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[interface, destination, _, flags, _, _, metric, mask, ..] = words.as_slice() else { return None };
    let is_default = destination == "00000000" && mask == "00000000";
    (is_default && usable(interface, flags)).then_some(DefaultRoute { interface, metric: metric.parse().ok()? })
}

/// `destination bits source bits next-hop metric refcnt use flags interface`, all numbers in hexadecimal.
fn v6_default(line: &str) -> Option<DefaultRoute<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[destination, bits, _, _, _, metric, _, _, flags, interface] = words.as_slice() else { return None };
    let is_default = bits == "00" && destination.bytes().all(|b| b == b'0');
    let metric = u32::from_str_radix(metric, 16).ok()?;
    (is_default && usable(interface, flags)).then_some(DefaultRoute { interface, metric })
}

/// The kernel lists an unreachable default on `lo`.
fn usable(interface: &str, flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|f| f & RTF_UP != 0 && f & RTF_REJECT == 0) && interface != "lo"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_default_route_is_found_in_the_kernels_tables() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                  enp3s0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                  enp3s0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(preferred(v4.lines().filter_map(v4_default)).as_deref(), Some("enp3s0"));
        let zeros = "0".repeat(32);
        let line = |bits: &str, metric: &str, flags: &str, name: &str| {
            format!(
                "{zeros} {bits} {zeros} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 {flags} {name}\n"
            )
        };
        let v6 = line("00", "ffffffff", "00200200", "lo") + &line("00", "00000400", "00450003", "bond0.7");
        assert_eq!(preferred(v6.lines().filter_map(v6_default)).as_deref(), Some("bond0.7"));
        let no_default = line("00", "ffffffff", "00200200", "lo") + &line("40", "00000100", "00000001", "eth1");
        assert_eq!(preferred(no_default.lines().filter_map(v6_default)), None);
        assert_eq!(
            preferred(["", "a b c", "eth0 00000000 x zz 0 0 0 00000000"].into_iter().filter_map(v4_default)),
            None
        );
    }
}
