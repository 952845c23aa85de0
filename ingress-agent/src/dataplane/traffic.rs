//! Reading the counters. Per-CPU values are summed; only numbers in use are read.

use anyhow::{Context, Result};
use aya::maps::{MapData, PerCpuArray};
use xdp_ebpf::{Traffic, WAYS, verdict::Verdict};

use super::Dataplane;
use super::maps::Maps;
use super::plain::Abi;
use crate::model::traffic::{AttachMode, Attachment, Counts, L4Traffic};

impl Dataplane {
    /// A reading of all counters.
    pub fn read(&self) -> Result<L4Traffic> {
        let maps = &self.image.maps;
        let mut traffic = L4Traffic {
            flows: self.image.sweep.live,
            flow_capacity: u64::from(maps.flow_buckets()) * WAYS as u64,
            ..L4Traffic::default()
        };
        for verdict in Verdict::ALL {
            let packets = maps.verdicts.get(&(*verdict as u32), 0).context("read VERDICTS")?.iter().sum();
            traffic.verdicts.push((verdict.label(), verdict.meaning(), packets));
        }
        for (key, frontend) in &self.image.frontends {
            traffic.frontends.push((*key, counts(&maps.frontend_traffic, frontend.image.id)?));
        }
        for (key, pool) in &self.image.pools {
            for slot in &pool.slots {
                traffic.backends.push((key.name.clone(), slot.address, counts(&maps.backend_traffic, slot.id)?));
            }
            traffic.tables.push((key.name.clone(), key.v6, self.image.tables.current(pool.id).len(), pool.digest));
        }
        Ok(traffic)
    }
}

impl Maps {
    /// Lets XDP redirect to the attached devices. A driver that could not take our program natively may lack the transmit
    /// half as well, and a redirect to it would lose the packet; so generic devices are named only where there is nothing else.
    pub(super) fn allow_redirect(&mut self, attachments: &[Attachment]) -> Result<()> {
        let any_native = attachments.iter().any(|a| a.mode == AttachMode::Native);
        let targets: Vec<u32> =
            attachments.iter().filter(|a| a.mode == AttachMode::Native || !any_native).map(|a| a.index).collect();
        for index in &targets {
            self.devices.insert(*index, *index, None, 0).context("write DEVICES")?;
        }
        let stale: Vec<u32> = self.devices.keys().flatten().filter(|key| !targets.contains(key)).collect();
        for index in stale {
            self.devices.remove(index).context("remove from DEVICES")?;
        }
        Ok(())
    }
}

fn counts(map: &PerCpuArray<MapData, Abi<Traffic>>, id: u32) -> Result<Counts> {
    let mut sum = Counts::default();
    for Abi(cpu) in map.get(&id, 0).context("read traffic counters")?.iter() {
        sum.rx_packets += cpu.rx_packets;
        sum.rx_bytes += cpu.rx_bytes;
        sum.tx_packets += cpu.tx_packets;
        sum.tx_bytes += cpu.tx_bytes;
        sum.new_flows += cpu.new_flows;
    }
    Ok(sum)
}
