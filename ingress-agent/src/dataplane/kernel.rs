//! The two things of bpf(2) that aya does not offer: running an operation on a prefix of `union bpf_attr`, and detaching a link
//! at once.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Calls bpf(2) with the head of `union bpf_attr`.
pub(super) fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the head of `union bpf_attr` with the size given; what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// Detaches the link pinned at `path` and removes the pin. Removing alone would detach it some time later, and the interface
/// would stay taken until then.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_LINK_DETACH: libc::c_int = 34;
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    if let Ok(fd) = bpf(BPF_OBJ_GET, &mut get) {
        // A link whose interface is gone can't be detached, and need not be.
        let _ = bpf(BPF_LINK_DETACH, &mut LinkDetach { link_fd: fd as u32 });
        // SAFETY: the descriptor was just made here, and nobody else has it.
        unsafe { libc::close(fd) };
    }
    std::fs::remove_file(path)
}
