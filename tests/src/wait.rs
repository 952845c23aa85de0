//! Waiting for a condition with a deadline. Tests never sleep for a fixed time and hope.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait of a test for anything: generous, since CI machines are busy; a condition that holds ends it at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `condition` every few milliseconds until it yields a value. Panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// [`until`] with a deadline of its own.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Whether `condition` came to hold in time, for a test that has more to say than [`within`] when it did not.
pub fn holds(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Tells the threads of a scope to stop, also when an assertion beside them fails: the scope waits for them either way.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
