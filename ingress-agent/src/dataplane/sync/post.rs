//! The socket: seals datagrams, sends them, and takes what came.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::datagram::{Draft, Header, Kind};

/// Room for the datagrams of a whole burst, while this thread does something else.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

pub(super) struct Post {
    socket: UdpSocket,
    v4_only: bool,
    pub(super) key: hmac::Key,
    epoch: u64,
    sequence: u64,
    /// Datagrams that the kernel did not take.
    pub(super) unsent: u64,
}

impl Post {
    /// A socket on `port` of every address of this network namespace.
    pub(super) fn open(port: u16, key: hmac::Key) -> Result<Self> {
        let (socket, v4_only) = match bound(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => (socket, false),
            // No IPv6 in this kernel.
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                (bound(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()).context(taken(port))?, true)
            }
            Err(e) => return Err(e).context(taken(port)),
        };
        Ok(Self { socket, v4_only, key, epoch: nanoseconds(), sequence: 0, unsent: 0 })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sends a draft, which is empty then, to each of them.
    pub(super) fn send(&mut self, draft: &mut Draft, kind: Kind, token: u64, to: impl Iterator<Item = SocketAddr>) {
        self.sequence += 1;
        let header = Header { kind, epoch: self.epoch, sequence: self.sequence, time: milliseconds(), token };
        let bytes = draft.seal(&header, &self.key);
        for to in to {
            let to = match to.ip() {
                IpAddr::V4(v4) if !self.v4_only => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
                _ => to,
            };
            // A peer that is down is no news: it is seen by its silence.
            self.unsent += u64::from(self.socket.send_to(&bytes, to).is_err());
        }
    }

    /// Waits until something came or the time is over.
    pub(super) fn wait(&self, time: Duration) {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // A millisecond more rather than a turn too many.
        let milliseconds = i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, which outlives the call. Why it returned does not matter.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    }

    /// A datagram, if there is one. One that is longer than `buffer` is cut, which its tag shows.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<(IpAddr, &'a [u8])> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok((len, from)) => return Some((from.ip().to_canonical(), &buffer[..len])),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Nothing there; or an ICMP error about what was sent, which the next call no longer tells.
                Err(_) => return None,
            }
        }
    }
}

fn bound(domain: Domain, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    let size = RECEIVE_BUFFER;
    // SAFETY: the option's value is the int that is pointed to. FORCE goes beyond `net.core.rmem_max`, which takes CAP_NET_ADMIN;
    // where the kernel refuses, flows of a burst are lost and told again later.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn taken(port: u16) -> String {
    format!("bind UDP port {port} for the flow sync; choose another --sync-port, the same on every edge")
}

/// Whether an address is one of this node's.
pub(in crate::dataplane) fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Since 1970.
pub(super) fn milliseconds() -> u64 {
    nanoseconds() / 1_000_000
}

fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
}
