//! Memory that is free again, back to the kernel. mimalloc gives back as it goes on allocating, so that an agent which has read a cluster, or
//! the kernel's types as its programs were loaded, and then has nothing to do, would keep what that took: 20 MB and more.

use std::time::{Duration, Instant};

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
