//! A client that sends exactly the bytes it is given and reads a response by its framing, over any stream.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::PATIENCE;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    /// Without chunked framing.
    pub body: Vec<u8>,
    /// Lines after the last chunk.
    pub trailers: String,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }
}

/// A connection with what was read and not yet used.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    pub rest: Vec<u8>,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_nodelay(true).expect("no delay");
        Self::over(stream)
    }

    /// Whether the peer closes without another byte.
    pub fn closed(&mut self) -> bool {
        let mut byte = [0; 1];
        self.rest.is_empty() && !matches!(self.stream.read(&mut byte), Ok(1..)) && !self.silent()
    }

    /// The last read timed out, so the connection is still open.
    fn silent(&mut self) -> bool {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(1)));
        let result = self.stream.read(&mut [0; 1]);
        matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<S: Read + Write> Raw<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, rest: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // A proxy that has refused may close while we still send; what it answered counts.
        let _ = self.stream.write_all(bytes.as_ref());
        let _ = self.stream.flush();
        self
    }

    /// The next response; `None` if the peer closed before one began.
    pub fn response(&mut self) -> Option<Response> {
        self.response_to("GET")
    }

    pub fn response_to(&mut self, method: &str) -> Option<Response> {
        let end = self.until(0, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = Response { status, head, ..Response::default() };
        self.rest.drain(..end);
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return Some(response);
        }
        if response.field("transfer-encoding") == Some("chunked") {
            self.chunks(&mut response)?;
        } else if let Some(length) = response.field("content-length") {
            let length: usize = length.parse().ok()?;
            while self.rest.len() < length {
                self.fill()?;
            }
            response.body = self.rest.drain(..length).collect();
        } else {
            while self.fill().is_some() {}
            response.body = std::mem::take(&mut self.rest);
        }
        Some(response)
    }

    fn chunks(&mut self, response: &mut Response) -> Option<()> {
        loop {
            let end = self.until(0, b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&self.rest[..end - 2]).ok()?, 16).ok()?;
            self.rest.drain(..end);
            if size == 0 {
                break;
            }
            while self.rest.len() < size + 2 {
                self.fill()?;
            }
            response.body.extend(self.rest.drain(..size));
            self.rest.drain(..2);
        }
        loop {
            let end = self.until(0, b"\r\n")?;
            let line: Vec<u8> = self.rest.drain(..end).collect();
            if line == b"\r\n" {
                return Some(());
            }
            response.trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    /// Reads until `count` bytes are there, and takes them.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.rest.len() < count {
            self.fill()?;
        }
        Some(self.rest.drain(..count).collect())
    }

    fn until(&mut self, from: usize, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(found) = self.rest[from..].windows(mark.len()).position(|w| w == mark) {
                return Some(from + found + mark.len());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                self.rest.extend_from_slice(&part[..count]);
                Some(())
            }
        }
    }
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Response> {
    Raw::connect(address).send(request).response()
}

/// `GET path` for `host`.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    ask(address, request).expect("a response")
}
