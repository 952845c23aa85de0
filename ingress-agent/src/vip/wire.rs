//! Raw sockets on one interface: frames out, ARP frames and neighbour advertisements in. Announcing happens here and not
//! in the kernel because the kernel announces once, on its own schedule or not at all.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;

use super::frame::{self, ArpOp, Mac};

const IPPROTO_ICMPV6: libc::c_int = 58;
/// linux/icmpv6.h: a set bit in the filter blocks the type.
const ICMP6_FILTER: libc::c_int = 1;
const NEIGHBOR_ADVERTISEMENT: usize = 136;

/// Must be made and used within one tokio runtime.
pub(super) struct Wire {
    index: u32,
    mac: Mac,
    interface: String,
    arp: AsyncFd<OwnedFd>,
    /// `None` where the kernel has no IPv6.
    ndp: Option<AsyncFd<OwnedFd>>,
}

impl Wire {
    pub(super) fn open(interface: &str, index: u32, mac: Mac) -> Result<Self> {
        let arp = arp_socket(index).with_context(|| format!("open a packet socket on {interface}"))?;
        let ndp = match ndp_socket(interface) {
            Ok(fd) => Some(watched(fd)?),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e).with_context(|| format!("open an ICMPv6 socket on {interface}")),
        };
        Ok(Self { index, mac, interface: interface.to_owned(), arp: watched(arp)?, ndp })
    }

    pub(super) fn fits(&self, index: u32, mac: Mac) -> bool {
        self.index == index && self.mac == mac
    }

    /// Tells the whole link that the address is here.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(vip) => {
                self.send(&frame::gratuitous_arp(ArpOp::Request, self.mac, vip))?;
                self.send(&frame::gratuitous_arp(ArpOp::Reply, self.mac, vip))
            }
            IpAddr::V6(vip) => self.send(&frame::unsolicited_na(self.mac, vip, self.forwards_ipv6())),
        }
    }

    /// Asks the link who has the address; the answer comes as a claim.
    pub(super) fn probe(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(vip) => self.send(&frame::arp_probe(self.mac, vip)),
            IpAddr::V6(vip) => self.send(&frame::dad_probe(self.mac, vip)),
        }
    }

    /// RFC 4861 §6.2.2 and §7.2.6: the R flag says whether we route on this interface.
    fn forwards_ipv6(&self) -> bool {
        let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", self.interface);
        std::fs::read_to_string(path).is_ok_and(|v| v.trim() != "0")
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let to = link_address(self.index, u16::from_be_bytes([frame[12], frame[13]]));
        // SAFETY: both pointers are valid for the lengths given, and `to` is a sockaddr_ll as AF_PACKET wants.
        let sent = unsafe {
            libc::sendto(
                self.arp.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next time that another machine says it has some address. Safe to drop half-way.
    pub(super) async fn claim(&self) -> (IpAddr, Mac) {
        loop {
            let (address, mac) = tokio::select! {
                (address, mac) = next(&self.arp, read_arp) => (address, mac),
                (address, mac) = async {
                    match &self.ndp {
                        Some(ndp) => next(ndp, read_na).await,
                        None => std::future::pending().await,
                    }
                } => (address, mac),
            };
            if mac != self.mac {
                return (address, mac);
            }
        }
    }
}

pub(super) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor for its whole life and is closed by its drop alone.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// One message from a socket, and who claims what by it, if anybody does.
type Read = fn(&OwnedFd) -> io::Result<Option<(IpAddr, Mac)>>;

async fn next(fd: &AsyncFd<OwnedFd>, read: Read) -> (IpAddr, Mac) {
    loop {
        let Ok(mut ready) = fd.readable().await else { return std::future::pending().await };
        // An error such as ENETDOWN concerns the link, which netlink reports better; the next frame may come.
        if let Ok(Ok(Some(claim))) = ready.try_io(|fd| read(fd.get_ref())) {
            return claim;
        }
    }
}

fn read_arp(fd: &OwnedFd) -> io::Result<Option<(IpAddr, Mac)>> {
    let mut buffer = [0u8; 128];
    // SAFETY: `buffer` is valid for writes of its length.
    let len = unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(buffer.get(..len).and_then(frame::arp_claim).map(|(a, mac)| (a.into(), mac)))
}

fn read_na(fd: &OwnedFd) -> io::Result<Option<(IpAddr, Mac)>> {
    /// Room for one control message with an int.
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut buffer = [0u8; 512];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: no name, no parts, no control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `message` is valid for the length beside it, and they outlive the call.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let mut hop_limit: libc::c_int = 0;
    // SAFETY: the kernel filled msg_control and msg_controllen; the macros stay within them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::IPPROTO_IPV6 && (*header).cmsg_type == libc::IPV6_HOPLIMIT {
                hop_limit = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    // RFC 4861 §7.1.2: anything but 255 came from beyond this link.
    if hop_limit != 255 {
        return Ok(None);
    }
    Ok(buffer.get(..len).and_then(frame::na_claim).map(|(a, mac)| (a.into(), mac)))
}

pub(super) fn link_address(index: u32, ethertype: u16) -> libc::sockaddr_ll {
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index as libc::c_int;
    address
}

fn socket(domain: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives ARP only, and not what this machine sends.
fn arp_socket(index: u32) -> io::Result<OwnedFd> {
    let fd = socket(libc::AF_PACKET, 0)?;
    let address = link_address(index, libc::ETH_P_ARP as u16);
    // SAFETY: `address` is a sockaddr_ll of the length given.
    let bound = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// Receives neighbour advertisements that arrive by this interface, with their hop limit.
fn ndp_socket(interface: &str) -> io::Result<OwnedFd> {
    let fd = socket(libc::AF_INET6, IPPROTO_ICMPV6)?;
    let mut block = [u32::MAX; 8];
    block[NEIGHBOR_ADVERTISEMENT / 32] &= !(1 << (NEIGHBOR_ADVERTISEMENT % 32));
    set(&fd, IPPROTO_ICMPV6, ICMP6_FILTER, &block)?;
    set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)?;
    let mut name = [0u8; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from;
    }
    set(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name)?;
    Ok(fd)
}

pub(super) fn set<T: Copy>(fd: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of the size given.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
