//! Load from plain sockets, for the demo and the benchmarks. Every answer is checked; every failure is kept with the
//! time at which its attempt began, so that a reader can say "after this moment, none".

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

pub mod asking;
pub mod web;

/// An answer that takes longer is a failure. Below TCP's first retransmission of a SYN (1 s) plus its second (2 s).
const PATIENCE: Duration = Duration::from_secs(2);

/// How many answers each backend gave.
pub type Spread = BTreeMap<String, u32>;

/// Tells endless loads to come to an end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// When standard input ends: whoever started this program closes it, or is gone.
    pub fn at_end_of_input() -> Self {
        let (sender, receiver) = watch::channel(false);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = sender.send(true);
        });
        Self(receiver)
    }

    /// When the sender says so, or is gone.
    pub fn by_hand() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// After a time.
    pub fn after(time: Duration) -> Self {
        let (sender, receiver) = watch::channel(false);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            let _ = sender.send(true);
        });
        Self(receiver)
    }

    pub fn now(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, which is an end too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// What an endless load saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub ok: u64,
    /// (milliseconds since 1970 at which the attempt began, why it failed).
    pub failures: Vec<(u128, String)>,
}

impl Outcome {
    fn note<T>(&mut self, began: u128, result: Result<T>) {
        match result {
            Ok(_) => self.ok += 1,
            Err(error) => self.failures.push((began, format!("{error:#}"))),
        }
    }

    /// `ok N`, then `failed MS WHY` for each failure: [`Outcome::parse`] reads it back.
    pub fn print(&self) {
        println!("ok {}", self.ok);
        for (began, why) in &self.failures {
            println!("failed {began} {}", why.replace('\n', " "));
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        let mut outcome = Self::default();
        let mut complete = false;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("ok", count)) => {
                    outcome.ok = count.parse().context("a count after `ok`")?;
                    complete = true;
                }
                Some(("failed", rest)) => {
                    let (began, why) = rest.split_once(' ').unwrap_or((rest, ""));
                    outcome.failures.push((began.parse().context("a time after `failed`")?, why.to_owned()));
                }
                _ => {}
            }
        }
        ensure!(complete, "the load ended without a count: {text}");
        Ok(outcome)
    }

    /// Failures of attempts that began at this time or later.
    pub fn failed_since(&self, began: u128) -> usize {
        self.failures.iter().filter(|(at, _)| *at >= began).count()
    }
}

/// Lets this process open as many files as the system allows: a thousand connections need more than the usual 1,024.
pub fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a local rlimit, which outlives them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Milliseconds since 1970, on one clock for all processes of a machine.
pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis())
}

pub fn print_spread(spread: &Spread) {
    for (name, count) in spread {
        println!("{name} {count}");
    }
}

/// One datagram from each of `count` sockets.
pub async fn udp(to: SocketAddr, count: u32) -> Result<Spread> {
    let mut spread = Spread::new();
    for _ in 0..count {
        let socket = UdpSocket::bind(local(to)).await.context("bind a UDP socket")?;
        socket.connect(to).await?;
        *spread.entry(ask_udp(&socket).await?).or_default() += 1;
    }
    Ok(spread)
}

/// The first word of the answer to a datagram.
async fn ask_udp(socket: &UdpSocket) -> Result<String> {
    socket.send(b"who?").await?;
    let mut answer = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await.context("no answer to a datagram")??;
    Ok(first_word(&String::from_utf8_lossy(&answer[..length])))
}

pub fn local(to: SocketAddr) -> SocketAddr {
    if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// `count` connections one after another, each with one message echoed.
pub async fn tcp(to: SocketAddr, count: u32) -> Result<Spread> {
    let mut spread = Spread::new();
    for _ in 0..count {
        *spread.entry(one_connection(to).await?).or_default() += 1;
    }
    Ok(spread)
}

/// New connections, one after another with a breath between them, until stopped. Without it a minute would use up the
/// client's ports.
pub async fn connect(to: SocketAddr, stop: Stop) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.now() {
        let began = now_ms();
        outcome.note(began, one_connection(to).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    outcome
}

async fn one_connection(to: SocketAddr) -> Result<String> {
    let whole = async {
        let (name, mut stream) = open(to, None).await?;
        message(&mut stream, b"hello, whoever you are").await?;
        Ok(name)
    };
    timeout(PATIENCE, whole).await.context("a connection took too long")?
}

/// Opens a connection to a backend that is not the one to avoid, and reads its name.
async fn open(to: SocketAddr, avoid: Option<&str>) -> Result<(String, BufReader<TcpStream>)> {
    for _ in 0..50 {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.context("connecting took too long")??;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        timeout(PATIENCE, stream.read_line(&mut line)).await.context("no greeting")??;
        let name = first_word(&line);
        ensure!(!name.is_empty(), "the connection was closed before the greeting");
        if avoid != Some(name.as_str()) {
            return Ok((name, stream));
        }
    }
    bail!("50 connections all went to {}", avoid.unwrap_or_default())
}

async fn message(stream: &mut BufReader<TcpStream>, text: &[u8]) -> Result<()> {
    stream.write_all(text).await?;
    let mut echo = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.context("no echo")??;
    ensure!(echo == text, "the echo differs");
    Ok(())
}

/// Holds connections open and speaks on each after every pause. `ok` is those that still worked at the end. `opened` is
/// called when all are open.
pub async fn hold(
    to: SocketAddr,
    connections: usize,
    avoid: Option<&str>,
    pause: Duration,
    stop: Stop,
    opened: impl FnOnce(),
) -> Result<Outcome> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (_, mut stream) = open(to, avoid).await?;
        let mut stop = stop.clone();
        tasks.spawn(async move {
            loop {
                let began = now_ms();
                // A lost packet is resent within half a second; a lost connection never answers.
                if let Err(error) = message(&mut stream, b"still there?").await {
                    return Err((began, format!("{error:#}")));
                }
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }
    opened();
    let mut outcome = Outcome::default();
    while let Some(ended) = tasks.join_next().await {
        match ended.context("a task broke")? {
            Ok(()) => outcome.ok += 1,
            Err(failure) => outcome.failures.push(failure),
        }
    }
    Ok(outcome)
}

/// Streams through an echo until stopped, and checks every byte that comes back. Prints `transferring NAME` at first.
pub async fn transfer(to: SocketAddr, avoid: Option<&str>, stop: Stop) -> Result<u64> {
    let (name, stream) = open(to, avoid).await?;
    println!("transferring {name}");
    let (mut reader, mut writer) = stream.into_inner().into_split();
    // A prime length, so that the pattern never lines up with segments or buffers.
    let pattern: Vec<u8> = (0..65_521_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = pattern.clone();
    let sender = tokio::spawn(async move {
        while !stop.now() {
            writer.write_all(&sent).await?;
            // A machine of two cores has other things to do as well.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writer.shutdown().await
    });
    let (mut total, mut buffer) = (0_usize, vec![0; 65_536]);
    loop {
        let read = timeout(Duration::from_secs(10), reader.read(&mut buffer)).await.context("the transfer stalled")?;
        let length = read.context("the transfer broke")?;
        if length == 0 {
            break;
        }
        for (index, byte) in buffer[..length].iter().enumerate() {
            ensure!(*byte == pattern[(total + index) % pattern.len()], "byte {} came back wrong", total + index);
        }
        total += length;
    }
    sender.await.context("the sender broke")??;
    ensure!(total.is_multiple_of(pattern.len()), "the transfer ended early, after {total} bytes");
    Ok(total as u64)
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
