//! Adverts out and in, on one interface. Out: raw sockets with our own IP header, so that source and hop limit are what the
//! protocol wants whatever the routes say. In: packet sockets that a filter keeps free of everything else, because they tell the
//! sender's link-layer address, which a raw IP socket does not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::packet::{Envelope, GROUP_V4, GROUP_V6, PROTOCOL, Reject, split_ipv4, split_ipv6};
use crate::vip::wire::{link_address, set, watched};

/// `linux/if_packet.h`: to us, to everybody, to a group; the rest is our own or was meant for others.
const TO_US: [u8; 3] = [0, 1, 2];
/// RFC 4594 §3.1: network control.
const DSCP_CS6: u8 = 0xc0;
/// Packets taken in one go, so that no flood keeps the clock from its turn for ever. As many as the queue holds: after a stall, the
/// last of them says who has the addresses now.
const BATCH: usize = 8192;
/// Bytes of that queue, as the kernel counts them: about 8,000 adverts.
const QUEUE: i32 = 6 << 20;

/// Must be made and used within one tokio runtime.
pub(in crate::vip) struct Sockets {
    index: u32,
    v4: Pair,
    /// `None` where the kernel has no IPv6.
    v6: Option<Pair>,
}

struct Pair {
    out: Socket,
    incoming: AsyncFd<OwnedFd>,
}

impl Sockets {
    pub(in crate::vip) fn open(interface: &str, index: u32) -> Result<Self> {
        let v4 = open_v4(interface, index).with_context(|| format!("open VRRP's IPv4 sockets on {interface}"))?;
        let v6 = match open_v6(interface, index) {
            Ok(pair) => Some(pair),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e).with_context(|| format!("open VRRP's IPv6 sockets on {interface}")),
        };
        Ok(Self { index, v4, v6 })
    }

    pub(in crate::vip) fn fits(&self, index: u32) -> bool {
        self.index == index
    }

    /// Never waits: what the kernel does not take at once is lost, as on a wire.
    pub(in crate::vip) fn send(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> io::Result<()> {
        let (out, packet, to): (_, _, SocketAddr) = match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (&self.v4.out, ipv4(from, to, payload), SocketAddrV4::new(to, 0).into())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let pair = self.v6.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
                (&pair.out, ipv6(from, to, payload), SocketAddrV6::new(to, 0, 0, self.index).into())
            }
            _ => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        out.send_to_with_flags(&packet, &SockAddr::from(to), libc::MSG_DONTWAIT).map(drop)
    }

    /// Resolves when a packet waits.
    pub(in crate::vip) async fn readable(&self) {
        tokio::select! {
            () = ready(&self.v4.incoming) => {}
            () = async {
                match &self.v6 {
                    Some(pair) => ready(&pair.incoming).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// Hands out what waits, at most one batch a family.
    pub(in crate::vip) fn receive(&self, mut take: impl FnMut(Result<(Envelope, &[u8]), Reject>, [u8; 6])) {
        drain(&self.v4.incoming, |packet, mac| take(split_ipv4(packet), mac));
        if let Some(pair) = &self.v6 {
            drain(&pair.incoming, |packet, mac| take(split_ipv6(packet), mac));
        }
    }
}

async fn ready(fd: &AsyncFd<OwnedFd>) {
    match fd.readable().await {
        // Stays ready until a read finds nothing.
        Ok(mut guard) => guard.retain_ready(),
        Err(_) => std::future::pending().await,
    }
}

fn drain(fd: &AsyncFd<OwnedFd>, mut take: impl FnMut(&[u8], [u8; 6])) {
    let mut buffer = [0u8; 2048];
    for _ in 0..BATCH {
        match fd.try_io(tokio::io::Interest::READABLE, |fd| receive(fd, &mut buffer)) {
            Ok((len, from)) => {
                if TO_US.contains(&from.sll_pkttype) {
                    let mac = from.sll_addr.first_chunk().copied().unwrap_or_default();
                    take(buffer.get(..len).unwrap_or_default(), mac);
                }
            }
            // An error such as ENETDOWN concerns the link, which netlink reports better.
            Err(_) => return,
        }
    }
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, libc::sockaddr_ll)> {
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut from_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: all pointers are valid for writes of the lengths given.
    let len = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut from_len,
        )
    };
    match usize::try_from(len) {
        Ok(len) => Ok((len, from)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn open_v4(interface: &str, index: u32) -> io::Result<Pair> {
    // IPPROTO_RAW only sends, and the header is the sender's (raw(7)).
    let out = Socket::new(Domain::IPV4, Type::RAW, Some(libc::IPPROTO_RAW.into()))?;
    out.bind_device(Some(interface.as_bytes()))?;
    out.set_multicast_loop_v4(false)?;
    out.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
    out.set_nonblocking(true)?;
    prefer(&out)?;
    // The protocol is at byte 9 of the IPv4 header.
    Ok(Pair { out, incoming: incoming(index, libc::ETH_P_IP as u16, 9)? })
}

fn open_v6(interface: &str, index: u32) -> io::Result<Pair> {
    let out = Socket::new(Domain::IPV6, Type::RAW, Some(libc::IPPROTO_RAW.into()))?;
    out.bind_device(Some(interface.as_bytes()))?;
    out.set_multicast_loop_v6(false)?;
    out.join_multicast_v6(&GROUP_V6, index)?;
    out.set_nonblocking(true)?;
    prefer(&out)?;
    // The next header is at byte 6. Adverts have no extension headers.
    Ok(Pair { out, incoming: incoming(index, libc::ETH_P_IPV6 as u16, 6)? })
}

/// Before everything else in the queue of the interface: `TC_PRIO_CONTROL` of `linux/pkt_sched.h`.
fn prefer(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &7i32)
}

fn incoming(index: u32, ethertype: u16, protocol_at: u32) -> io::Result<AsyncFd<OwnedFd>> {
    // Without a protocol it receives nothing before the filter is in place.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, protocol_at),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(PROTOCOL)),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
    // Where this is not permitted, a long stall of many routers loses adverts, as it would on the wire.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE);
    let address = link_address(index, ethertype);
    // SAFETY: `address` is a sockaddr_ll of the length given.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    watched(socket.into())
}

/// The kernel fills in identification, total length and checksum (raw(7)).
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, DSCP_CS6];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 255, PROTOCOL, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6c, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[PROTOCOL, 255]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}
