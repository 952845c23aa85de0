//! Those that stand for other machines on this one: a stopwatch, a backend. Before all ordinary threads, they wait for none of what is
//! measured; what they do must be short, as nothing else runs meanwhile.

use std::io;

/// For a process of one thread, or with 0 the calling thread: `SCHED_FIFO` at the lowest priority (sched(7)).
pub fn before_others(id: u32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` is valid for the call.
    match unsafe { libc::sched_setscheduler(id.cast_signed(), libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
