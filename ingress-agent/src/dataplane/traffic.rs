//! Reading the counters. Per-CPU values are summed; only numbers in use are read.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use aya::maps::{IterableMap, MapData, PerCpuArray};
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
        let last = self.image.frontends.values().map(|f| f.image.id).max().unwrap_or(0);
        let counted = counts(&maps.frontend_traffic, last).context("read FRONTEND_TRAFFIC")?;
        let of = |counted: &[Counts], id: u32| counted.get(id as usize).copied().unwrap_or_default();
        for (key, frontend) in &self.image.frontends {
            traffic.frontends.push((*key, of(&counted, frontend.image.id)));
        }
        let last = self.image.pools.values().flat_map(|p| &p.slots).map(|s| s.id).max().unwrap_or(0);
        let counted = counts(&maps.backend_traffic, last).context("read BACKEND_TRAFFIC")?;
        for (key, pool) in &self.image.pools {
            for slot in &pool.slots {
                traffic.backends.push((key.name.clone(), slot.address, of(&counted, slot.id)));
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

/// `BPF_MAP_LOOKUP_BATCH` (linux/bpf.h).
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Entries of one system call: 100,000 backends are read by two dozen, and the buffer stays below a megabyte.
const BATCH: usize = 4096;

/// The sums over all CPUs of the entries 0 to `last`.
fn counts(map: &PerCpuArray<MapData, Abi<Traffic>>, last: u32) -> Result<Vec<Counts>> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::Error::new(error).context(file))?;
    let wanted = (last as usize + 1).min(map.len() as usize);
    let mut sums = Vec::with_capacity(wanted);
    let mut keys = vec![0u32; BATCH];
    let mut values = vec![Traffic::default(); BATCH * cpus];
    // The kernel's place in the walk: for arrays the last key that was read.
    let mut place = 0u32;
    while sums.len() < wanted {
        let mut attr = LookupBatch {
            in_batch: if sums.is_empty() { 0 } else { (&raw const place) as u64 },
            out_batch: (&raw mut place) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH.min(wanted - sums.len()) as u32,
            map_fd: map.map().fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let result = super::kernel::bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        // ENOENT: the map ends here; what was read before the end is there all the same.
        if let Err(error) = result
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            return Err(error.into());
        }
        let count = attr.count as usize;
        if count == 0 {
            break;
        }
        sums.extend(values.chunks(cpus).take(count).map(sum));
    }
    Ok(sums)
}

fn sum(cpus: &[Traffic]) -> Counts {
    let mut sum = Counts::default();
    for cpu in cpus {
        sum.rx_packets += cpu.rx_packets;
        sum.rx_bytes += cpu.rx_bytes;
        sum.tx_packets += cpu.tx_packets;
        sum.tx_bytes += cpu.tx_bytes;
        sum.new_flows += cpu.new_flows;
    }
    sum
}
