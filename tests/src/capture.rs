//! Frames as they arrive on a host's link, each with the time of its arrival. What they mean is the test's business.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lan::Host;

/// A packet socket on one interface of one namespace, open since before the test began to act.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    pub frames: Vec<(Instant, Vec<u8>)>,
}

impl Capture {
    /// Everything that `link` of `host` receives from now on.
    pub fn start(host: &Host, link: &str) -> Result<Self> {
        let name = std::ffi::CString::new(link)?;
        let socket = host.inside(|| {
            // SAFETY: socket takes no pointers.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
            ensure!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
            // SAFETY: the kernel just returned this descriptor, and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: an all-zero sockaddr_ll is valid.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: `name` is NUL-terminated.
            to.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
            // SAFETY: `to` is a sockaddr_ll of the length given.
            let bound = unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            ensure!(bound == 0, "bind to {link}: {}", std::io::Error::last_os_error());
            Ok(socket)
        })?;
        Ok(Self { socket, frames: Vec::new() })
    }

    /// Takes in frames until `enough` or the time is over; returns whether it was enough.
    pub fn collect(&mut self, patience: Duration, mut enough: impl FnMut(&[(Instant, Vec<u8>)]) -> bool) -> bool {
        let end = Instant::now() + patience;
        loop {
            while let Some(frame) = self.receive() {
                self.frames.push((Instant::now(), frame));
            }
            if enough(&self.frames) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, valid for reads and writes.
            unsafe { libc::poll(&raw mut poll, 1, left.as_millis().clamp(1, 1000) as i32) };
        }
    }

    /// Sends a frame as it is, whosever addresses it has.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: `frame` is valid for reads of its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        ensure!(usize::try_from(sent) == Ok(frame.len()), "send a frame: {}", std::io::Error::last_os_error());
        Ok(())
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0u8; 2048];
        // SAFETY: `buffer` is valid for writes of its length.
        let len = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        buffer.truncate(usize::try_from(len).ok()?);
        Some(buffer)
    }
}
