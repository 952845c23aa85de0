//! HTTP fixtures: a proxy of our own on loopback, backends that show what reached them, and a client that speaks raw
//! bytes. Everything runs in this process; addresses are taken from 127.0.0.0/8 by process id, so runs never meet.

pub mod backend;

pub mod site;

pub mod raw;

pub mod tls;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, Ordering};

/// A loopback address that no other test of this machine uses at this time.
pub fn address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    // 127.0.x.x is left to others.
    let second = 1 + (pid >> 8) as u8 % 254;
    IpAddr::V4(Ipv4Addr::new(127, second, pid as u8, NEXT.fetch_add(1, Ordering::Relaxed)))
}
