//! The agent's own process, under the names that Prometheus' clients agreed on. What cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauges};

/// Of the agent, where it can be read.
#[derive(Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    /// Seconds since 1970.
    pub(super) started: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let tick = ticks_per_second(&fs::read("/proc/self/auxv").unwrap_or_default());
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
        let seconds = |ticks: fn(&Stat) -> u64| Some(ticks(stat.as_ref()?) as f64 / tick?);
        Self {
            cpu_seconds: seconds(|stat| stat.cpu_ticks),
            started: seconds(|stat| stat.start_ticks).and_then(|since| Some(boot_time()? as f64 + since)),
            virtual_bytes: stat.as_ref().map(|stat| stat.virtual_bytes as f64),
            resident_bytes: line("/proc/self/status", "VmRSS:").map(|kilobytes| kilobytes as f64 * 1024.0),
        }
    }
}

pub(super) fn encode(e: &mut DescriptorEncoder) -> fmt::Result {
    let tick = ticks_per_second(&fs::read("/proc/self/auxv").unwrap_or_default());
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
    if let (Some(stat), Some(tick)) = (&stat, tick) {
        counters(e, "process_cpu_seconds", "CPU time of the agent in user and kernel mode.")?
            .count_seconds(stat.cpu_ticks as f64 / tick)?;
        if let Some(boot) = boot_time() {
            gauges(e, "process_start_time_seconds", "When the agent started, in seconds since 1970.")?
                .gauge(&[], boot as f64 + stat.start_ticks as f64 / tick)?;
        }
    }
    if let Some(stat) = stat {
        gauges(e, "process_threads", "Threads of the agent.")?.gauge(&[], stat.threads as f64)?;
        gauges(e, "process_virtual_memory_bytes", "Address space of the agent.")?
            .gauge(&[], stat.virtual_bytes as f64)?;
    }
    if let Some(kilobytes) = line("/proc/self/status", "VmRSS:") {
        gauges(e, "process_resident_memory_bytes", "Memory of the agent that is in RAM.")?
            .gauge(&[], kilobytes as f64 * 1024.0)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        gauges(e, "process_open_fds", "File descriptors that the agent has open.")?
            .gauge(&[], open.count().saturating_sub(1) as f64)?;
    }
    if let Some(most) = line("/proc/self/limits", "Max open files") {
        gauges(e, "process_max_fds", "File descriptors that the agent may have open.")?.gauge(&[], most as f64)?;
    }
    Ok(())
}

/// The first number after a line's name.
fn line(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// `AT_CLKTCK` of getauxval(3): the unit of times in /proc.
fn ticks_per_second(auxv: &[u8]) -> Option<f64> {
    const AT_CLKTCK: u64 = 17;
    let words: Vec<u64> = auxv.as_chunks::<8>().0.iter().map(|w| u64::from_ne_bytes(*w)).collect();
    words.chunks(2).find(|pair| pair[0] == AT_CLKTCK).and_then(|pair| pair.get(1)).map(|t| *t as f64)
}

/// The columns of `/proc/self/stat` that we show.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    /// `proc_pid_stat(5)`. The name in parentheses may contain anything, so columns are counted from the last one.
    fn parse(text: &str) -> Option<Self> {
        let rest: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let column = |number: usize| rest.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: column(14)? + column(15)?,
            threads: column(20)?,
            start_ticks: column(22)?,
            virtual_bytes: column(23)?,
        })
    }
}

fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_survive_a_hostile_name() {
        let text = "7 (a) b) 1 (c) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 5 0 999 4096 33 18446744073709551615";
        let stat = Stat { cpu_ticks: 33, threads: 5, start_ticks: 999, virtual_bytes: 4096 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn clock_tick_of_this_machine_is_known() {
        assert!(ticks_per_second(&fs::read("/proc/self/auxv").expect("readable")).is_some_and(|t| t >= 1.0));
        assert_eq!(ticks_per_second(&[17, 0, 0]), None);
    }
}
