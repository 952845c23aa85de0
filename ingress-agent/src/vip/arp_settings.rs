//! Kernel settings without which a machine with several interfaces answers ARP for a VIP on the wrong one. Only ever
//! raised, never lowered: an operator's stricter choice stays.

use std::fs;
use std::path::Path;

use super::voice::Voice;

/// (file, value): kernel, networking/ip-sysctl.rst. 1 answers only for addresses of the interface that was asked; 2
/// asks with the address that fits the target's network, so that a VIP is not taught to the LAN by the way.
const SETTINGS: [(&str, u8); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

pub(super) fn apply(root: &Path, interface: &str, voice: &Voice) {
    for (name, wanted) in SETTINGS {
        let path = root.join(format!("net/ipv4/conf/{interface}/{name}"));
        let current = fs::read_to_string(&path).ok().and_then(|v| v.trim().parse::<u8>().ok());
        if current.is_some_and(|c| c >= wanted) {
            continue;
        }
        match fs::write(&path, wanted.to_string()) {
            Ok(()) => voice.say(format!("{interface}: {name} raised to {wanted}")),
            Err(e) => {
                voice.warn(format!(
                    "set {} to {wanted}: {e}; with several interfaces the wrong one may answer ARP for a VIP",
                    path.display()
                ));
            }
        }
    }
}
