//! How long the machine stood still. Elections, failovers and time limits are tested in real time, on whatever machine there is; a virtual one
//! with few cores can keep even a real-time thread from running for a third of a second. A test that failed meanwhile says nothing yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often each core is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Looks at the cores until it is dropped.
pub(crate) struct Pauses {
    longest: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Pauses {
    /// One thread a core, which nothing else should keep waiting. Where the kernel refuses that, each is one like others, and pauses look longer.
    pub(crate) fn watch() -> Self {
        let pauses = Self { longest: Arc::default(), over: Arc::default() };
        for core in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (longest, over) = (Arc::clone(&pauses.longest), Arc::clone(&pauses.over));
            thread::spawn(move || {
                before_all_others(core);
                while !over.load(Ordering::Relaxed) {
                    let slept = Instant::now();
                    thread::sleep(EVERY);
                    let late = slept.elapsed().saturating_sub(EVERY);
                    longest.fetch_max(late.as_millis() as u64, Ordering::Relaxed);
                }
            });
        }
        pauses
    }

    /// The longest since this was asked last.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn before_all_others(core: usize) {
    // SAFETY: both calls read a value that lives here, of the size that they are told; 0 is the calling thread.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores);
        let first = libc::sched_param { sched_priority: libc::sched_get_priority_max(libc::SCHED_FIFO) };
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first);
    }
}
