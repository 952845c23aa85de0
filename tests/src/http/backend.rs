//! A backend that speaks raw HTTP/1.1: it records each request byte for byte and answers what the test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub head: String,
    /// As on the wire: chunked framing and trailers included.
    pub body: Vec<u8>,
}

impl Received {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    /// Values of a field, in order.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }
}

/// What the backend does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
}

type Answer = dyn Fn(&Received, &mut TcpStream) -> Then + Send + Sync;

pub struct Backend {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Answers 200 with the request as its body.
    pub fn echo() -> Self {
        Self::answering(|request, stream| {
            let mut body = request.head.clone().into_bytes();
            body.extend_from_slice(&request.body);
            reply(stream, "200 OK", "content-type: text/plain\r\n", &body);
            Then::Keep
        })
    }

    /// Answers 200 with `name`.
    pub fn named(name: &'static str) -> Self {
        Self::answering(move |_, stream| {
            reply(stream, "200 OK", "", name.as_bytes());
            Then::Keep
        })
    }

    pub fn answering(answer: impl Fn(&Received, &mut TcpStream) -> Then + Send + Sync + 'static) -> Self {
        Self::bound("127.0.0.1:0".parse().expect("an address"), answer)
    }

    pub fn bound(
        address: SocketAddr,
        answer: impl Fn(&Received, &mut TcpStream) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("bind a backend on loopback");
        let address = listener.local_addr().expect("its address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answer> = Arc::new(answer);
        let shared = (Arc::clone(&received), Arc::clone(&connections), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (received, connections, stop) = shared;
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &received, &*answer));
            }
        });
        Self { address, received, connections, stop, thread: Some(thread) }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn last(&self) -> Received {
        self.received().pop().expect("a request reached the backend")
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn reply(stream: &mut TcpStream, status: &str, fields: &str, body: &[u8]) {
    let mut out = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    // The proxy may be gone; the test notices by itself.
    let _ = stream.write_all(&out);
}

fn serve(mut stream: TcpStream, received: &Mutex<Vec<Received>>, answer: &Answer) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_mins(1)));
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer) {
        received.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        if answer(&request, &mut stream) == Then::Close {
            return;
        }
    }
}

/// One request off the stream. A body that the peer announces but never finishes ends the connection.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = fill_until(stream, buffer, 0, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let request = Received { head, body: Vec::new() };
    // A tunnel's or an early answer's body is the test's affair.
    if request.field("x-read-body") == Some("no") {
        buffer.drain(..end);
        return Some(request);
    }
    let body_end = if let Some(length) = request.field("content-length") {
        let length: usize = length.parse().ok()?;
        while buffer.len() < end + length {
            fill(stream, buffer)?;
        }
        end + length
    } else if request.field("transfer-encoding").is_some() {
        chunked_end(stream, buffer, end)?
    } else {
        end
    };
    let body = buffer[end..body_end].to_vec();
    buffer.drain(..body_end);
    Some(Received { body, ..request })
}

fn chunked_end(stream: &mut TcpStream, buffer: &mut Vec<u8>, mut at: usize) -> Option<usize> {
    loop {
        let line_end = fill_until(stream, buffer, at, b"\r\n")?;
        let line = String::from_utf8_lossy(&buffer[at..line_end - 2]).into_owned();
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // Trailers, then an empty line.
            at = line_end;
            loop {
                let end = fill_until(stream, buffer, at, b"\r\n")?;
                if end == at + 2 {
                    return Some(end);
                }
                at = end;
            }
        }
        at = line_end + size + 2;
        while buffer.len() < at {
            fill(stream, buffer)?;
        }
    }
}

fn fill_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, from: usize, mark: &[u8]) -> Option<usize> {
    loop {
        if let Some(found) = buffer[from..].windows(mark.len()).position(|w| w == mark) {
            return Some(from + found + mark.len());
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend_from_slice(&part[..count]);
            Some(())
        }
    }
}
