//! One client that asks and waits, without a runtime between it and the clock: for moments that are measured in fractions of a millisecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(5);

/// A connection on which requests for one host follow each other.
pub struct KeepAlive {
    stream: TcpStream,
    host: String,
}

impl KeepAlive {
    pub fn open(to: SocketAddr, host: &str) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect to the proxy")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, host: host.to_owned() })
    }

    pub fn fetch(&mut self, path: &str) -> Result<(u16, String)> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)?;
        answer(&mut self.stream).with_context(|| format!("GET {path} through the proxy"))
    }
}

/// Status and body of an answer with a `Content-Length`; nothing else comes from these peers.
pub fn answer(stream: &mut impl Read) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        let length = stream.read(&mut block).context("read an answer")?;
        ensure!(length > 0, "the connection was closed");
        bytes.extend_from_slice(&block[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let wanted = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= wanted.context("no Content-Length")? {
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
            return Ok((status, body.to_owned()));
        }
    }
}
