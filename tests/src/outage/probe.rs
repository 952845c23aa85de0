//! The probe itself: asks every millisecond, and knows when each question was asked and whether it was answered. It runs in a process
//! of its own (`outage_probe`), before all ordinary threads and in locked memory: whoever starts programs in the middle of a measurement
//! has the kernel copy its page tables, and all its threads wait for that. With a thousand of them this takes 20 ms.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Findings;

const EVERY: Duration = Duration::from_millis(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait for an answer after the end, so that a gap that is still open is seen in full.
const OPEN: Duration = Duration::from_secs(10);
/// What the probe says when its socket is open.
pub(super) const READY: &str = "ready";

/// The program: `echo ADDRESS` and `stream ADDRESS:PORT` ask until standard input ends, and print what they found; `serve PORT` answers
/// streams.
pub fn main(arguments: &[String]) -> Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", address] => watch(&Target::echo(address.parse().context("an address")?)?),
        ["stream", to] => watch(&Target::stream(to.parse().context("an address and a port")?)?),
        ["serve", port] => serve(port.parse().context("a port")?),
        _ => bail!("`echo ADDRESS`, `stream ADDRESS:PORT` or `serve PORT`"),
    }
}

/// Returns every datagram.
fn serve(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).context("bind the port")?;
    first_in_line();
    println!("{READY}");
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error for an earlier answer is reported here; it concerns one client.
        if let Ok((len, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], client);
        }
    }
}

fn watch(target: &Target) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        stopped.store(true, Ordering::Relaxed);
    });
    first_in_line();
    println!("{READY}");
    io::stdout().flush()?;
    println!("{}", probe(target, &stop).line());
    Ok(())
}

/// Without the right to it, it probes as it can; [`Findings::paused`] shows how well that was.
fn first_in_line() {
    let parameters = libc::sched_param { sched_priority: 50 };
    // SAFETY: `parameters` is valid for the call; 0 is the calling thread. mlockall takes no pointers.
    unsafe {
        libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters);
    }
}

/// Whom to ask, and how.
struct Target {
    socket: Socket,
    to: SockAddr,
    /// Absent for a stream of datagrams.
    echo: Option<IpAddr>,
}

impl Target {
    fn echo(address: IpAddr) -> Result<Self> {
        let socket = match address {
            IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
            IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to: SocketAddr::new(address, 0).into(), echo: Some(address) })
    }

    fn stream(to: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to: to.into(), echo: None })
    }

    fn ask(&self, number: u32) {
        let packet = self.echo.map_or_else(|| number.to_be_bytes().to_vec(), |address| request(address, number));
        // What cannot be sent, for want of a neighbour entry, was not answered either.
        let _ = self.socket.send_to(&packet, &self.to);
    }

    /// The number of the next answer that waits.
    fn answer(&self) -> Option<u32> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            let len = match self.socket.recv(&mut buffer) {
                Ok(len) => len,
                // A refusal (ICMP) is reported once and concerns a datagram before.
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => continue,
                Err(_) => return None,
            };
            // SAFETY: recv has written the first `len` bytes.
            let packet: Vec<u8> = buffer[..len].iter().map(|b| unsafe { b.assume_init() }).collect();
            let number = self.echo.map_or(packet.get(..4), |address| reply(address, &packet));
            if let Some(number) = number.and_then(|n| n.try_into().ok()) {
                return Some(u32::from_be_bytes(number));
            }
        }
    }
}

fn probe(target: &Target, stop: &AtomicBool) -> Findings {
    let start = Instant::now();
    let mut sent: Vec<(Instant, bool)> = Vec::with_capacity(1 << 16);
    let mut told: Option<(Instant, usize)> = None;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) && told.is_none() {
            told = Some((now, sent.len()));
        }
        if told.is_some_and(|(at, n)| now >= at + OPEN || sent.iter().skip(n).any(|(_, answered)| *answered)) {
            break;
        }
        target.ask(sent.len() as u32);
        sent.push((now, false));
        while let Some(n) = target.answer() {
            if let Some((at, answered)) = sent.get_mut(n as usize) {
                *answered |= at.elapsed() < PATIENCE;
            }
        }
        let next = start + EVERY * (start.elapsed().as_micros() / EVERY.as_micros() + 1) as u32;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    summary(start, &sent)
}

fn summary(start: Instant, sent: &[(Instant, bool)]) -> Findings {
    let mut answered: Vec<Instant> = sent.iter().filter(|(_, a)| *a).map(|(at, _)| *at).collect();
    let found = answered.len();
    let until_first = answered.first().map_or_else(|| start.elapsed(), |at| *at - start);
    // What was asked behind the last answer may still be on its way.
    let last = sent.iter().rposition(|(_, a)| *a).unwrap_or(sent.len());
    let lost = sent[..last].iter().filter(|(_, a)| !a).count();
    // If it never answered again, the gap is at least as long as the wait.
    answered.extend(sent.last().map(|(at, _)| *at));
    let gap = answered.windows(2).map(|w| (w[1] - w[0], w[0] - start)).max().unwrap_or_default();
    let paused = sent.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap_or_default();
    Findings { sent: sent.len(), answered: found, lost, longest: gap.0, began: gap.1, until_first, paused }
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

/// The number in an answer to an echo request of ours.
fn reply(address: IpAddr, packet: &[u8]) -> Option<&[u8]> {
    // IPv4 comes with its header.
    let (icmp, kind) = if address.is_ipv4() { (packet.get(20..)?, 0) } else { (packet, 129) };
    let ours = icmp.first() == Some(&kind) && icmp.get(4..6) == Some(&[0x53, 0x47]);
    icmp.get(8..12).filter(|_| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_lies_between_two_answers_and_what_is_on_its_way_is_not_lost() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let sent = [(at(0), true), (at(1), false), (at(2), false), (at(7), true), (at(8), true), (at(9), false)];
        let found = summary(start, &sent);
        assert_eq!((found.sent, found.answered, found.lost), (6, 3, 2));
        assert_eq!((found.longest, found.began, found.paused), (at(7) - start, Duration::ZERO, at(5) - start));
    }
}
