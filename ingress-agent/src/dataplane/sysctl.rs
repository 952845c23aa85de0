//! The kernel settings without which packets that XDP rewrote and passed up would be dropped. Writes the settings of the current
//! network namespace (whose they are depends on who looks, not on where /proc/sys is mounted), only what differs, and logs each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::device::Device;

/// Turns on forwarding, and lets `devices` take packets whose source XDP rewrote to an address of this host.
pub(super) fn prepare(root: &Path, devices: &[Device]) -> Result<()> {
    // With forwarding on, an interface ignores router advertisements unless `accept_ra` is 2 (ip-sysctl.rst): a host that
    // has its default route from one would lose it.
    if read(root, "net/ipv6/conf/all/forwarding").is_some_and(|v| v == "0") {
        for entry in fs::read_dir(root.join("net/ipv6/conf")).into_iter().flatten().flatten() {
            let accept = format!("net/ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy());
            if read(root, &accept).is_some_and(|v| v == "1") {
                set(root, &accept, "2")?;
            }
        }
    }
    set(root, "net/ipv4/ip_forward", "1")?;
    // A kernel without IPv6 has nothing to set.
    if read(root, "net/ipv6/conf/all/forwarding").is_some() {
        set(root, "net/ipv6/conf/all/forwarding", "1")?;
    }
    for device in devices {
        // A packet to a `nat` backend that is left to the kernel carries the VIP as its source: without this a martian.
        set(root, &conf(&device.name, "accept_local"), "1")?;
        // The larger of `all` and the interface counts; strict (1) wants the reverse path through the same interface.
        let strict = |path: &str| read(root, path).is_some_and(|v| v == "1");
        let own = conf(&device.name, "rp_filter");
        if strict(&own) || (strict("net/ipv4/conf/all/rp_filter") && read(root, &own).is_some_and(|v| v == "0")) {
            set(root, &own, "2")?;
        }
    }
    Ok(())
}

/// Path of an interface's setting. A dot in a name (`eth0.100`) is a plain character in a path.
fn conf(interface: &str, setting: &str) -> String {
    format!("net/ipv4/conf/{interface}/{setting}")
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

fn set(root: &Path, path: &str, value: &str) -> Result<()> {
    let before = read(root, path);
    if before.as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(root.join(path), value).with_context(|| {
        let name = path.replace('/', ".");
        format!(
            "set {name}={value} below {}; where that is read-only (a container), set it on the host, or mount the host's \
             /proc/sys/net and name it with --proc-sys",
            root.display()
        )
    })?;
    tracing::info!(setting = path, value, before, "kernel setting changed: forwarding needs it");
    Ok(())
}
