//! Servers that say who they are and whom they see, and clients that ask them. Sockets are made in a host's namespace and served by
//! threads of this process; they end when the value drops.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;

/// How often a server looks whether it should end.
const PAUSE: Duration = Duration::from_millis(20);
/// The same for a connection: with a thousand of them, a shorter pause would keep a core busy.
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a client for one answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// TCP and UDP on one port, both families. Answers each line or datagram with `NAME PEER`, and `send N` over TCP with N bytes.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
}

impl Echo {
    pub fn start(ns: &Namespace, name: &str, port: u16) -> Result<Self> {
        let any: SocketAddr = format!("[::]:{port}").parse()?;
        let (tcp, udp) = ns.inside(|| -> Result<_> { Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?)) })?;
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(PAUSE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, own, ended) = (name.to_owned(), name.to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, _)) => {
                        let (name, ended) = (own.clone(), Arc::clone(&ended));
                        std::thread::spawn(move || serve(&stream, &name, &ended));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let ended = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(answer(&name, peer).as_bytes(), peer);
                }
            }
        });
        Ok(Self { stop })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(stream: &TcpStream, name: &str, ended: &AtomicBool) {
    let Ok(peer) = stream.peer_addr() else { return };
    // On Linux an accepted socket does not inherit O_NONBLOCK.
    let _ = stream.set_read_timeout(Some(LONG_PAUSE));
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !ended.load(Ordering::Relaxed) {
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {
                let reply = match line.trim_end().strip_prefix("send ").and_then(|n| n.parse().ok()) {
                    Some(count) => "x".repeat(count) + "\n",
                    None => answer(name, peer),
                };
                line.clear();
                let mut writer = stream;
                if writer.write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}\n", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub name: String,
    /// The client as the server saw it.
    pub seen: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> Result<Self> {
        let (name, seen) = text.trim_end().split_once(' ').with_context(|| format!("an answer, not {text:?}"))?;
        Ok(Self { name: name.into(), seen: seen.parse().with_context(|| format!("an address in {text:?}"))? })
    }
}

/// One connection or connected datagram socket that asks.
#[derive(Debug)]
pub enum Asker {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

impl Asker {
    /// Connects from `local` (port 0: any) inside `ns`.
    pub fn tcp(ns: &Namespace, local: SocketAddr, vip: SocketAddr) -> Result<Self> {
        let socket = ns.inside(|| -> Result<Socket> {
            let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.bind(&local.into()).with_context(|| format!("bind {local}"))?;
            socket.connect_timeout(&vip.into(), PATIENCE).with_context(|| format!("connect {local} to {vip}"))?;
            Ok(socket)
        })?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(BufReader::new(stream)))
    }

    pub fn udp(ns: &Namespace, local: SocketAddr, vip: SocketAddr) -> Result<Self> {
        let socket = ns.inside(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind(local).with_context(|| format!("bind {local}"))?;
            socket.connect(vip)?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::Udp(socket))
    }

    pub fn local(&self) -> Result<SocketAddr> {
        Ok(match self {
            Self::Tcp(stream) => stream.get_ref().local_addr()?,
            Self::Udp(socket) => socket.local_addr()?,
        })
    }

    /// Has the server send `count` bytes over TCP and waits for all.
    pub fn download(&mut self, count: usize) -> Result<()> {
        let Self::Tcp(stream) = self else { bail!("only TCP downloads") };
        writeln!(stream.get_mut(), "send {count}").context("send")?;
        let mut body = String::new();
        stream.read_line(&mut body).context("wait for the body")?;
        anyhow::ensure!(body.len() == count + 1, "{} bytes came instead of {}", body.len(), count + 1);
        Ok(())
    }

    /// Asks once and waits for the answer.
    pub fn ask(&mut self) -> Result<Answer> {
        match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(b"who\n").context("send")?;
                let mut line = String::new();
                if stream.read_line(&mut line).context("wait for an answer")? == 0 {
                    bail!("the connection was closed");
                }
                Answer::parse(&line)
            }
            Self::Udp(socket) => {
                socket.send(b"who\n").context("send")?;
                let mut buffer = [0; 256];
                let n = socket.recv(&mut buffer).context("wait for an answer")?;
                Answer::parse(std::str::from_utf8(&buffer[..n])?)
            }
        }
    }
}

/// Any port of an address.
pub fn any(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), 0)
}
