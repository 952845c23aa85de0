//! Listening sockets: one a worker for each (address, port), shared by `SO_REUSEPORT`, bound before the address exists.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Deref;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel may complete before we accept them; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Listens until it is dropped, also where another process has the descriptor yet.
pub(super) struct ListeningSocket(TcpListener);

impl Deref for ListeningSocket {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.0
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        // Between fork and exec a child (the command of a `--vrrp-check`) has a copy of every descriptor, and with it the socket would go on
        // listening: of the connections to whoever binds the port next, some would wait in its queue, and be reset when the child is
        // there. Linux ends a listening socket by shutdown(2), whoever has it (`inet_shutdown` in net/ipv4/af_inet.c).
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<ListeningSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    // Old connections in TIME_WAIT must not keep a restarted agent from its port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // ip(7), IP_FREEBIND: the VIP arrives after the listener, or the first clients would be refused.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    // Inherited by accepted connections, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(ListeningSocket(TcpListener::from_std(socket.into())?))
}

/// What an operator should do about it.
pub(super) fn explain(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address}: the port is taken by another process (find it with `ss -ltnp 'sport = :{}'`); bound as soon as it is free",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{address}: not allowed to bind; ports below 1024 need root or CAP_NET_BIND_SERVICE")
        }
        _ => format!("{address}: cannot listen: {error}; tried again every second"),
    }
}
