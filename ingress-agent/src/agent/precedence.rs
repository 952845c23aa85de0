//! The right of the calling thread, and of those that it starts from now on, to go before ordinary ones. The control thread and the
//! source of facts work for some milliseconds a change; behind busy workers those become many.

use std::io;

use tracing::debug;

/// Three times the share of an ordinary thread (sched(7)), which leaves the workers a quarter of a core even in a storm of changes.
const NICE: i32 = -5;
/// Nanoseconds at a time: whoever asks for less at once gets it sooner (`sched_runtime` in sched(7); before Linux 6.12 without effect).
/// The usual slice on two cores is 1.4 ms, and a wake-up waits for the end of somebody else's.
const SLICE: u64 = 100_000;

/// `struct sched_attr` in its first size.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Without the right to a nice value (`CAP_SYS_NICE`) only the slice is had. Everything works as well, only later on a busy machine.
pub(super) fn take() {
    if let Err(error) = ask(NICE).or_else(|_| ask(0)) {
        debug!(%error, "the control thread has no precedence");
    }
}

fn ask(nice: i32) -> io::Result<()> {
    let size = size_of::<SchedAttr>() as u32;
    let wanted = SchedAttr { size, nice, runtime: SLICE, ..SchedAttr::default() };
    // SAFETY: the structure is valid for the call and says its own size; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
