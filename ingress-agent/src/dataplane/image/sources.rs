//! The clients that a frontend admits: its ranges in `SOURCES`. Added before the frontend asks for them and removed after it asks
//! for others, so that nobody whom both the old and the new list admit is turned away in between.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::lpm_trie::Key;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use xdp_ebpf::SourceKey;

use super::Image;
use crate::dataplane::maps::removed;
use crate::dataplane::pool::{addr, ip};

impl Image {
    /// Adds the ranges that are new. Both lists are sorted.
    pub(super) fn admit(&mut self, frontend: u32, old: &[IpNet], new: &[IpNet]) -> Result<()> {
        for range in new.iter().filter(|range| old.binary_search(range).is_err()) {
            let written = self.maps.sources.insert(&key(frontend, range), 1, 0);
            written.with_context(|| format!("admit {range} in SOURCES"))?;
        }
        Ok(())
    }

    /// Removes the ranges that are no longer wanted.
    pub(super) fn shut_out(&mut self, frontend: u32, old: &[IpNet], new: &[IpNet]) -> Result<()> {
        for range in old.iter().filter(|range| new.binary_search(range).is_err()) {
            removed(self.maps.sources.remove(&key(frontend, range)))
                .with_context(|| format!("remove {range} from SOURCES"))?;
        }
        Ok(())
    }

    /// Reads the ranges of the frontends that were adopted, and removes those of nobody.
    pub(super) fn adopt_sources(&mut self) -> Result<()> {
        let mut found: HashMap<u32, Vec<IpNet>> = HashMap::new();
        let keys: Vec<Key<[u8; 20]>> = self.maps.sources.keys().collect::<Result<_, _>>().context("read SOURCES")?;
        for key in keys {
            let (frontend, range) = read(&key)?;
            found.entry(frontend).or_default().push(range);
        }
        for state in self.frontends.values_mut() {
            state.sources = found.remove(&state.image.id).unwrap_or_default();
            state.sources.sort_unstable();
        }
        for (frontend, ranges) in found {
            // Their frontend went and its ranges did not: the agent was killed in between.
            self.shut_out(frontend, &ranges, &[])?;
        }
        Ok(())
    }
}

fn key(frontend: u32, range: &IpNet) -> Key<[u8; 20]> {
    let SourceKey { bits, frontend, addr } =
        SourceKey::new(frontend, addr(range.network()), u32::from(range.prefix_len()));
    let mut data = [0; 20];
    data[..4].copy_from_slice(&frontend.to_ne_bytes());
    data[4..].copy_from_slice(&addr);
    Key::new(bits, data)
}

fn read(key: &Key<[u8; 20]>) -> Result<(u32, IpNet)> {
    let ([a, b, c, d, address @ ..], bits) = (key.data(), key.prefix_len());
    let frontend = u32::from_ne_bytes([a, b, c, d]);
    let bits = bits.checked_sub(SourceKey::ID_BITS).context("SOURCES has an entry for part of an id")?;
    let range = if let IpAddr::V4(network) = ip(&address) {
        let bits = bits.checked_sub(SourceKey::MAPPED_BITS).context("SOURCES has an entry for part of a family")?;
        Ipv4Net::new(network, bits as u8)?.into()
    } else {
        Ipv6Net::new(address.into(), bits as u8)?.into()
    };
    Ok((frontend, range))
}
