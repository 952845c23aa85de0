//! The right of the calling thread to run when it must: before all ordinary threads, and never waiting for the disk. Where this is
//! not permitted, elections go on and the status says what is missing.

use std::fs;
use std::io;

/// Above every ordinary thread, below the kernel's interrupt threads (50).
const PRIORITY: libc::c_int = 10;
/// `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

/// What could not be had.
pub(super) fn enter() -> Vec<String> {
    let mut notes = Vec::new();
    if let Err(e) = first_in_line() {
        notes.push(format!(
            "the VIP thread has no real-time priority ({e}): a busy machine may delay adverts. It needs CAP_SYS_NICE, and in \
             a container a cgroup that allows it"
        ));
    }
    if let Err(why) = stay_in_memory() {
        notes.push(format!(
            "the VIP thread's memory is not locked ({why}): swapping may delay adverts. It needs CAP_IPC_LOCK"
        ));
    }
    notes
}

fn first_in_line() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // Threads and processes that this one starts are ordinary ones (sched(7)).
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameters` is valid for the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks what the process uses, when it uses it: its reservations are larger than its memory.
fn stay_in_memory() -> Result<(), String> {
    // With a limit, a lock on future pages would make some later allocation fail.
    if !may_lock() && !is_unlimited() {
        return Err("RLIMIT_MEMLOCK is in force".into());
    }
    // SAFETY: mlockall takes no pointers.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

fn may_lock() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits & 1 << CAP_IPC_LOCK != 0
}

fn is_unlimited() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    read == 0 && limit.rlim_cur == libc::RLIM_INFINITY
}
