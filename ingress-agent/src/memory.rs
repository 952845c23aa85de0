//! Memory that is free again, back to the kernel. mimalloc gives back as it goes on allocating, so that an agent which has read a cluster, or
//! the kernel's types as its programs were loaded, and then has nothing to do, would keep what that took: 20 MB and more.

use std::time::{Duration, Instant};

/// No huge pages for this process, nor for those that it starts (`PR_SET_THP_DISABLE`, prctl(2)). Its heap is many small things that come and go on
/// several threads: in pages of 2 MiB it takes 45 MB instead of 32 with a thousand Ingresses, 103 instead of 77 with ten thousand.
pub fn small_pages() {
    // SAFETY: it takes no pointers. Kernels without huge pages refuse it, which is as well.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// So long after the last work on a thread what it freed is given back: not between two changes that follow each other.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

/// Of one thread, which has to ask now and then.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    due: Option<Instant>,
}

impl Leftovers {
    /// There was work.
    pub(crate) fn worked(&mut self, now: Instant) {
        self.due = Some(now + QUIET);
    }

    /// Gives back what the calling thread has freed, once after each time of work.
    pub(crate) fn give_back(&mut self, now: Instant) {
        if self.due.take_if(|due| *due <= now).is_some() {
            // SAFETY: it has no conditions and may be called on any thread. Where mimalloc is not the allocator, as in tests, its heap is empty.
            unsafe { libmimalloc_sys::mi_collect(true) }
        }
    }

    /// When to ask.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }
}
