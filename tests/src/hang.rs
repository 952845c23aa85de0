//! A thread that hangs while its process lives on, as one does in a system call that never returns.

use std::io::{Error, Result};

/// Stopped by ptrace(2), alone among the threads of its process, until this drops. The tracer is the thread that made it: it
/// must also be the one that drops it.
#[derive(Debug)]
pub struct Hanging(libc::pid_t);

impl Hanging {
    /// `thread` is a thread id; that of a process's first thread is the process id.
    pub fn thread(thread: u32) -> Result<Self> {
        let id = libc::pid_t::try_from(thread).map_err(Error::other)?;
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: PTRACE_ATTACH takes no memory of ours.
        if unsafe { libc::ptrace(libc::PTRACE_ATTACH, id, none, none) } < 0 {
            return Err(Error::last_os_error());
        }
        let hanging = Self(id);
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        if unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) } < 0 {
            return Err(Error::last_os_error());
        }
        Ok(hanging)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. One that has ended meanwhile needs nothing.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}
