//! Which addresses the programs look at closer (`ADDR_FILTER`) and which are ours (`VIPS`). A filter bit is set before a map names
//! its address, and cleared after the maps forgot it.

use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xdp_ebpf::{Addr, Vip, vip_flags};

use super::Image;
use crate::dataplane::filter::Bit;
use crate::dataplane::maps::removed;
use crate::dataplane::plain::Abi;
use crate::dataplane::pool::{addr, ip};

/// Why an address is in `VIPS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressUse {
    vip: bool,
    /// Frontends whose `nat` backends see clients come from it.
    source_of: u32,
}

/// How long answers to a source address that was replaced still find their flows.
const LINGER: Duration = Duration::from_hours(1);

/// The source of an L7 frontend, which has no backends here.
const NOWHERE: Addr = [0; 16];

impl Image {
    /// An address to answer for. False when `VIPS` is full.
    pub(super) fn put_vip(&mut self, vip: IpAddr) -> Result<bool> {
        let before = self.addresses.get(&addr(vip)).copied().unwrap_or_default();
        if !self.set_address(addr(vip), AddressUse { vip: true, ..before })? {
            return Ok(false);
        }
        self.vips.insert(vip);
        Ok(true)
    }

    pub(super) fn remove_vip(&mut self, vip: IpAddr) -> Result<()> {
        self.vips.remove(&vip);
        let before = self.addresses.get(&addr(vip)).copied().unwrap_or_default();
        self.set_address(addr(vip), AddressUse { vip: false, ..before })?;
        Ok(())
    }

    /// One more frontend uses this address as source.
    pub(super) fn use_source(&mut self, source: &Addr) -> Result<()> {
        if *source == NOWHERE {
            return Ok(());
        }
        // Without it in VIPS replies still find their way; only the ICMP errors of a few flows don't.
        let before = self.addresses.get(source).copied().unwrap_or_default();
        if !self.set_address(*source, AddressUse { source_of: before.source_of + 1, ..before })? {
            tracing::warn!(address = %ip(source), "VIPS is full: ICMP errors to this source address are not followed");
        }
        self.watch(Bit::of_address(source));
        Ok(())
    }

    pub(super) fn leave_source(&mut self, source: &Addr) -> Result<()> {
        if *source == NOWHERE {
            return Ok(());
        }
        let before = self.addresses.get(source).copied().unwrap_or_default();
        self.set_address(*source, AddressUse { source_of: before.source_of.saturating_sub(1), ..before })?;
        self.unwatch(Bit::of_address(source));
        Ok(())
    }

    /// A frontend got another source; flows that were made with this one go on.
    pub(super) fn linger(&mut self, source: Addr, now: Instant) {
        self.lingering.push_back((now + LINGER, source));
    }

    pub(super) fn forget_lingering(&mut self, now: Instant) -> Result<()> {
        while self.lingering.front().is_some_and(|(end, _)| *end <= now)
            && let Some((_, source)) = self.lingering.pop_front()
        {
            self.leave_source(&source)?;
        }
        Ok(())
    }

    /// Reads `VIPS`; the frontends are known already.
    pub(super) fn adopt_addresses(&mut self, now: Instant) -> Result<()> {
        let sources: Vec<Addr> = self.frontends.values().map(|f| f.image.snat).filter(|s| *s != NOWHERE).collect();
        for source in sources {
            self.addresses.entry(source).or_default().source_of += 1;
            self.watch(Bit::of_address(&source));
        }
        let entries: Vec<_> = self.maps.vips.iter().collect::<Result<_, _>>().context("read VIPS")?;
        for (address, Abi(value)) in entries {
            let vip = value.flags & vip_flags::ECHO != 0;
            if vip {
                self.vips.insert(ip(&address));
            }
            self.adopt_router(address, value.router);
            let entry = self.addresses.entry(address).or_default();
            let lingers = !vip && entry.source_of == 0;
            (entry.vip, entry.source_of) = (vip, entry.source_of + u32::from(lingers));
            self.watch(Bit::of_address(&address));
            if lingers {
                self.watch(Bit::of_address(&address));
                self.linger(address, now);
            }
        }
        Ok(())
    }

    /// Makes the entry of `VIPS` what `wanted` means. False when there is no room for it.
    fn set_address(&mut self, address: Addr, wanted: AddressUse) -> Result<bool> {
        let full = self.addresses.len() >= self.maps.max_vips;
        match (self.addresses.entry(address), wanted == AddressUse::default()) {
            (Entry::Vacant(_), true) => return Ok(true),
            (Entry::Vacant(_), false) if full => return Ok(false),
            (Entry::Vacant(entry), false) => {
                entry.insert(wanted);
                self.watch(Bit::of_address(&address));
            }
            (Entry::Occupied(mut entry), false) => {
                if entry.insert(wanted).vip == wanted.vip {
                    return Ok(true);
                }
            }
            (Entry::Occupied(entry), true) => {
                entry.remove();
                removed(self.maps.vips.remove(&address))
                    .with_context(|| format!("remove {} from VIPS", ip(&address)))?;
                self.unwatch(Bit::of_address(&address));
                return Ok(true);
            }
        }
        self.write_address(&address, wanted)?;
        Ok(true)
    }

    fn write_address(&mut self, address: &Addr, wanted: AddressUse) -> Result<()> {
        let flags = if wanted.vip { vip_flags::ECHO } else { 0 };
        let router = self.guard.router_of(address);
        self.maps
            .vips
            .insert(address, Abi(Vip { flags, router }), 0)
            .with_context(|| format!("write {} into VIPS", ip(address)))
    }

    /// Writes an address anew where it is in `VIPS`: its router changed.
    pub(super) fn rewrite_address(&mut self, address: &Addr) -> Result<()> {
        match self.addresses.get(address).copied() {
            Some(wanted) => self.write_address(address, wanted),
            None => Ok(()),
        }
    }

    /// One more reason for the programs to look closer at an address or a port.
    pub(super) fn watch(&mut self, bit: Bit) {
        if let Some((word, bits)) = self.filter.add(bit) {
            self.maps.filter.word(word, 0).store(bits, Ordering::Release);
        }
    }

    /// One reason less.
    pub(super) fn unwatch(&mut self, bit: Bit) {
        if let Some((word, bits)) = self.filter.remove(bit) {
            self.maps.filter.word(word, 0).store(bits, Ordering::Release);
        }
    }
}
