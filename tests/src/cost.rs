//! What a process costs, by proc(5): its CPU time, its memory, and when it has nothing to do.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of all threads that live (`proc_pid_schedstat`).
fn cpu(id: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{id}/task")).context("the process is gone")? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

/// Waits until it was idle for so many seconds in a row, each with hardly any CPU time; a minute at most. An agent gives back what memory
/// is free after two of them.
pub fn until_idle(id: u32, seconds: usize) -> Result<()> {
    let (mut before, mut quiet) = (cpu(id)?, 0);
    for _ in 0..60 {
        thread::sleep(Duration::from_secs(1));
        let now = cpu(id)?;
        quiet = if now < before + Duration::from_millis(20) { quiet + 1 } else { 0 };
        if quiet == seconds {
            break;
        }
        before = now;
    }
    Ok(())
}

/// A value of `/proc/ID/FILE`, `status` or `smaps_rollup`, in KiB.
pub fn kib(id: u32, file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/{file}")).with_context(|| format!("read {file} of {id}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| format!("{key} in {file}"))
}

pub fn mb(kib: u64) -> String {
    format!("{:.0} MB", kib as f64 / 1024.0)
}
