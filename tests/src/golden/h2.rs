//! Requests over HTTP/2. What a well-behaved client cannot say (field names in upper case, no authority) is written as frames by hand;
//! of the answer to those only the status is read.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Answer;
use super::client::{Ask, Stream, certificate};
use super::echo::{Buffer, from_latin1, latin1};

impl Ask<'_> {
    pub fn http2(&self) -> Answer {
        let stream = match self.connect() {
            Ok(stream) => stream,
            Err(answer) => return *answer,
        };
        let alpn = match &stream {
            Stream::Tls(stream) => stream.conn.alpn_protocol().map(from_latin1),
            Stream::Tcp(_) => None,
        };
        if alpn.as_deref() != Some("h2") {
            return Answer { alpn, ..Answer::default() };
        }
        let began = Instant::now();
        let shown = certificate(&stream);
        let odd =
            |name: &str| !["User-Agent", "Accept"].contains(&name) && name.bytes().any(|b| b.is_ascii_uppercase());
        let by_hand = self.text("host").is_none() || self.fields().iter().any(|(n, _)| odd(n));
        let mut answer = if by_hand { self.frames(stream) } else { self.exchange(stream) };
        answer.seconds = began.elapsed().as_secs_f64();
        answer.certificate = shown;
        answer
    }

    fn message(&self) -> Option<Vec<u8>> {
        let body = self.body()?;
        if self.request["grpc"].as_bool() != Some(true) {
            return Some(body);
        }
        Some([&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat())
    }

    fn exchange(&self, stream: Stream) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let Stream::Tls(stream) = stream else { return Answer::default() };
        let (session, socket) = (stream.conn, stream.sock);
        let asked = async {
            socket.set_nonblocking(true).expect("non-blocking");
            let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(Session { session, socket }))
                    .await?;
            tokio::spawn(connection);
            let uri: Uri =
                format!("https://{}{}", self.text("host").unwrap_or_default(), self.text("path").unwrap_or("/"))
                    .parse()
                    .expect("a target");
            let mut request = Request::builder().method(self.text("method").unwrap_or("GET")).uri(uri);
            for (name, value) in self.fields() {
                let value = http::HeaderValue::from_bytes(&latin1(&value)).expect("a value");
                request = request.header(name.to_ascii_lowercase(), value);
            }
            let request = request.body(Full::new(Bytes::from(self.message().unwrap_or_default()))).expect("a request");
            let response = sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let pair =
                |(n, v): (&http::HeaderName, &http::HeaderValue)| (n.as_str().to_owned(), from_latin1(v.as_bytes()));
            let mut answer = Answer {
                status: Some(parts.status.as_u16()),
                fields: parts.headers.iter().map(pair).collect(),
                ..Answer::default()
            };
            let body = body.collect().await?;
            answer.trailers = body.trailers().into_iter().flatten().map(pair).collect();
            answer.body = Some(body.to_bytes().to_vec());
            Ok::<_, hyper::Error>(answer)
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(25), asked).await });
        match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer { reset: reset(&error), ..Answer::default() },
            Err(_) => Answer { timed_out: true, ..Answer::default() },
        }
    }

    fn frames(&self, mut stream: Stream) -> Answer {
        let mut block = Vec::new();
        let mut literal = |name: &str, value: &str| {
            // RFC 7541 §6.2.2: without indexing, a new name, no Huffman.
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(latin1(text));
            }
        };
        literal(":method", self.text("method").unwrap_or("GET"));
        literal(":scheme", "https");
        literal(":path", self.text("path").unwrap_or("/"));
        if let Some(host) = self.text("host") {
            literal(":authority", host);
        }
        for (name, value) in self.fields() {
            let plain = ["User-Agent", "Accept"].contains(&name.as_str());
            literal(&if plain { name.to_ascii_lowercase() } else { name }, &value);
        }
        let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        wire.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        wire.extend([0, (block.len() >> 8) as u8, block.len() as u8, 1, 5, 0, 0, 0, 1]);
        wire.extend(block);
        let _ = stream.write_all(&wire).and_then(|()| stream.flush());
        let mut buffer = Buffer::default();
        let mut answer = Answer { opaque: true, ..Answer::default() };
        while let Ok(head) = buffer.take(&mut stream, 9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Ok(payload) = buffer.take(&mut stream, length) else { break };
            let code = |at: usize| payload.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
            match head[3] {
                1 => {
                    // RFC 7541, appendix A: the statuses that have an index.
                    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
                    let index = payload.first().and_then(|b| b.checked_sub(0x88)).map(usize::from);
                    answer.status = index.and_then(|i| INDEXED.get(i)).copied();
                    break;
                }
                3 => answer.reset = code(0),
                7 => answer.reset = code(4),
                _ => continue,
            }
            break;
        }
        answer
    }
}

fn reset(error: &hyper::Error) -> Option<u32> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = source {
        // The code stands in the words of the error, which is all that hyper shows of it.
        if inner.to_string().contains("PROTOCOL_ERROR") || inner.to_string().contains("unspecific protocol error") {
            return Some(1);
        }
        source = inner.source();
    }
    None
}

/// A TLS session that was begun by blocking calls.
struct Session {
    session: ClientConnection,
    socket: tokio::net::TcpStream,
}

impl Session {
    fn send(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        while self.session.wants_write() {
            std::task::ready!(self.socket.poll_write_ready(cx))?;
            match self.session.write_tls(&mut Nonblocking(&self.socket)) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                other => drop(other?),
            }
        }
        std::task::Poll::Ready(Ok(()))
    }
}

struct Nonblocking<'a>(&'a tokio::net::TcpStream);

impl std::io::Read for Nonblocking<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Session {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        use std::io::Read as _;
        let this = self.get_mut();
        loop {
            match this.session.reader().read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return std::task::Poll::Ready(Err(e)),
            }
            std::task::ready!(this.socket.poll_read_ready(cx))?;
            match this.session.read_tls(&mut Nonblocking(&this.socket)) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                other => drop(other?),
            }
            this.session.process_new_packets().map_err(std::io::Error::other)?;
        }
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.send(cx))?;
        let count = this.session.writer().write(buf)?;
        let _ = this.send(cx)?;
        std::task::Poll::Ready(Ok(count))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.get_mut().send(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.session.send_close_notify();
        this.send(cx)
    }
}
