//! Network interfaces of this namespace: their numbers, and what lies below a VLAN or bond. Reads procfs rather than sysfs, which
//! shows the devices of the namespace it was mounted in.

use std::ffi::CString;
use std::fs;

use anyhow::{Result, ensure};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub name: String,
    pub index: u32,
}

/// Looks an interface up in the network namespace of this thread.
pub(super) fn find(name: &str) -> Result<Device> {
    let c_name = CString::new(name)?;
    // SAFETY: NUL-terminated.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    ensure!(index != 0, "there is no interface {name} in this network namespace: {}", existing());
    Ok(Device { name: name.into(), index })
}

fn existing() -> String {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    format!("there are {}", names.join(", "))
}

/// The devices below a VLAN (one) or a bond (its members). Empty for anything else.
pub(super) fn below(device: &Device) -> Vec<Device> {
    let read =
        |kind: &str| fs::read_to_string(format!("/proc/thread-self/net/{kind}/{}", device.name)).unwrap_or_default();
    let mut names = lines_after(&read("vlan"), "Device:");
    names.extend(lines_after(&read("bonding"), "Slave Interface:"));
    names.iter().filter_map(|name| find(name).ok()).collect()
}

fn lines_after(text: &str, label: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix(label)).map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_devices_are_read_as_the_kernel_writes_them() {
        let vlan = "eth0.100  VID: 100\t REORDER_HDR: 1  dev->priv_flags: 1021\n\nDevice: eth0\nINGRESS priority mappings: 0:0\n";
        assert_eq!(lines_after(vlan, "Device:"), ["eth0"]);
        let bond = "Bonding Mode: IEEE 802.3ad\n\nSlave Interface: eth1\nMII Status: up\n\nSlave Interface: eth2\n";
        assert_eq!(lines_after(bond, "Slave Interface:"), ["eth1", "eth2"]);
    }

    #[test]
    fn a_missing_interface_names_the_existing_ones() {
        let message = find("nowhere0").unwrap_err().to_string();
        assert!(message.contains("nowhere0") && message.contains("lo"), "{message}");
        assert_eq!(below(&find("lo").unwrap()), []);
    }
}
