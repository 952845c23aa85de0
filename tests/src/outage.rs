//! How long an address did not answer: an echo request every millisecond, and the longest time between two that were answered.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lan::Host;

const EVERY: Duration = Duration::from_millis(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait for an answer after the end, so that a gap that is still open is seen in full.
const OPEN: Duration = Duration::from_secs(10);

/// A probe that runs until it is asked for its findings, or dropped.
#[derive(Debug)]
pub struct Outage {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Findings>>,
}

#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub sent: usize,
    pub answered: usize,
    /// Between two requests that were answered, one after the other.
    pub longest: Duration,
    /// From the beginning to the first request that was answered.
    pub until_first: Duration,
    /// When the longest began.
    pub began: Option<Instant>,
}

impl Outage {
    /// Probes `address` from `host` from now on, before all ordinary threads of this machine, so that what is measured is the
    /// address and not the probe.
    pub fn watch(host: &Host, address: &str) -> Result<Self> {
        let address: IpAddr = address.parse().context("the address to watch")?;
        let socket = host.inside(|| open(address))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("outage".into()).spawn(move || {
            let parameters = libc::sched_param { sched_priority: 50 };
            // SAFETY: `parameters` is valid for the call; 0 is the calling thread. Without the right it probes as it can.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
            probe(&socket, address, &stopped)
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Waits until the address answers again, if it does not.
    pub fn end(mut self) -> Findings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|t| t.join().ok()).unwrap_or_default()
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(address: IpAddr) -> Result<Socket> {
    let socket = match address {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn probe(socket: &Socket, address: IpAddr, stop: &AtomicBool) -> Findings {
    let to = SockAddr::from(SocketAddr::new(address, 0));
    let start = Instant::now();
    let mut sent: Vec<(Instant, bool)> = Vec::new();
    let mut told: Option<(Instant, usize)> = None;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) && told.is_none() {
            told = Some((now, sent.len()));
        }
        if told.is_some_and(|(at, n)| now >= at + OPEN || sent.iter().skip(n).any(|(_, answered)| *answered)) {
            break;
        }
        // What cannot be sent, for want of a neighbour entry, was not answered either.
        let _ = socket.send_to(&request(address, sent.len() as u32), &to);
        sent.push((now, false));
        while let Some(n) = answer(socket, address) {
            if let Some((at, answered)) = sent.get_mut(n as usize) {
                *answered |= at.elapsed() < PATIENCE;
            }
        }
        let next = start + EVERY * (start.elapsed().as_micros() / EVERY.as_micros() + 1) as u32;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let mut answered: Vec<Instant> = sent.iter().filter(|(_, a)| *a).map(|(at, _)| *at).collect();
    let found = answered.len();
    let until_first = answered.first().map_or_else(|| start.elapsed(), |at| *at - start);
    // If it never answered again, the gap is at least as long as the wait.
    answered.extend(sent.last().map(|(at, _)| *at));
    let gap = answered.windows(2).map(|w| (w[1] - w[0], w[0])).max();
    Findings {
        sent: sent.len(),
        answered: found,
        until_first,
        longest: gap.map(|g| g.0).unwrap_or_default(),
        began: gap.map(|g| g.1),
    }
}

/// An echo request (RFC 792, RFC 4443 §4.1) with a number of its own. The kernel fills in the checksum of ICMPv6.
fn request(address: IpAddr, number: u32) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0, 0x53, 0x47, 0, 0];
    packet.extend_from_slice(&number.to_be_bytes());
    let sum: u32 = packet.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    if address.is_ipv4() {
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The number of the next answer that waits.
fn answer(socket: &Socket, address: IpAddr) -> Option<u32> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
    loop {
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        // SAFETY: recv has written the first `len` bytes.
        let packet: Vec<u8> = buffer[..len].iter().map(|b| unsafe { b.assume_init() }).collect();
        // IPv4 comes with its header.
        let (icmp, kind) = if address.is_ipv4() { (packet.get(20..)?, 0) } else { (&packet[..], 129) };
        if icmp.first() == Some(&kind) && icmp.get(4..6) == Some(&[0x53, 0x47]) {
            return icmp.get(8..12)?.try_into().ok().map(u32::from_be_bytes);
        }
    }
}
