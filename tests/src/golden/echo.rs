//! The backends of the recordings: they show what reached them and do what a request's fields ask. Bytes are kept as they come, one
//! character a byte. `../shared/golden/echo/main.go` is what these reproduce.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What reached the backends, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Value>>>);

impl Log {
    pub fn add(&self, seen: Value) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    pub fn drain(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a backend answers where a request asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Echo,
    /// 404, or the status in X-Code.
    Default,
    Auth,
    /// The body is `ok`.
    Fast,
}

impl Manner {
    fn prefix(self) -> &'static str {
        match self {
            Self::Auth => "X-Auth-Ctl-",
            Self::Default => "X-Def-",
            Self::Echo | Self::Fast => "X-Echo-",
        }
    }
}

#[derive(Clone)]
pub struct Backend {
    pub name: &'static str,
    pub manner: Manner,
    pub tls: Option<Arc<ServerConfig>>,
    pub log: Log,
}

impl Backend {
    /// Serves until the process ends: the namespace goes with the test.
    pub fn listen(self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let backend = self.clone();
                std::thread::spawn(move || {
                    // A client that goes away is part of the game.
                    let _ = backend.connection(stream);
                });
            }
        });
        Ok(())
    }

    fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return self.serve(&mut stream, None, |s| socket2::SockRef::from(&*s).set_linger(Some(Duration::ZERO)));
        };
        let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        if let Err(error) = session.complete_io(&mut stream) {
            self.log
                .add(json!({"backend": self.name, "method": "", "target": "", "proto": "tls-error", "headers": null,
                "body_len": 0, "body_err": error.to_string()}));
            return Err(error);
        }
        let tls = json!({"sni": session.server_name().unwrap_or_default(), "client_cn": common_name(&session)});
        let mut stream = StreamOwned::new(session, stream);
        self.serve(&mut stream, Some(&tls), |_| Ok(()))
    }

    fn serve<S: Read + Write>(
        &self,
        stream: &mut S,
        tls: Option<&Value>,
        reset: impl Fn(&mut S) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = Buffer::default();
        loop {
            let (line, mut fields) = buffer.head(stream)?;
            let (method, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let (target, proto) = rest.rsplit_once(' ').unwrap_or((rest, ""));
            if field(&fields, "Expect").eq_ignore_ascii_case("100-continue") {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let (body, complete) = buffer.body(stream, &fields);
            let mut seen = self.seen(method, target, proto, &fields, &body, tls);
            if !complete {
                seen["incomplete"] = true.into();
            }
            self.log.add(seen.clone());
            if !complete {
                return Ok(());
            }
            let prefix = self.manner.prefix();
            let asked = |fields: &[(String, String)], what: &str| field(fields, &format!("{prefix}{what}")).to_owned();
            if let Ok(delay) = asked(&fields, "Delay").parse() {
                std::thread::sleep(Duration::from_millis(delay));
            }
            let only = asked(&fields, "Only");
            if !only.is_empty() && only != self.name {
                fields.insert(0, (format!("{prefix}Status"), "200".to_owned()));
                fields.insert(0, (format!("{prefix}Action"), String::new()));
            }
            let action = asked(&fields, "Action");
            match action.as_str() {
                "close" => return Ok(()),
                "reset" => return reset(stream),
                "hang" => {
                    std::thread::sleep(Duration::from_secs(30));
                    return Ok(());
                }
                "garbage" => return stream.write_all(b"this is not http\r\n\r\n"),
                "partial" => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly-this"),
                _ => {}
            }
            if field(&fields, "Upgrade").eq_ignore_ascii_case("websocket") && action != "nows" {
                return self.websocket(stream, &mut buffer, field(&fields, "Sec-WebSocket-Key"));
            }
            if !self.answer(stream, method, &fields, &action, &seen)? {
                return Ok(());
            }
            if field(&fields, "Connection").eq_ignore_ascii_case("close") || proto == "HTTP/1.0" {
                return Ok(());
            }
        }
    }

    fn seen(
        &self,
        method: &str,
        target: &str,
        proto: &str,
        fields: &[(String, String)],
        body: &[u8],
        tls: Option<&Value>,
    ) -> Value {
        let mut seen = json!({"backend": self.name, "method": method, "target": target, "proto": proto,
            "headers": fields.iter().map(|(k, v)| json!([k, v])).collect::<Vec<_>>(), "body_len": body.len()});
        if !body.is_empty() {
            seen["body_sha256"] = hex(digest(&SHA256, body).as_ref()).into();
            if body.len() <= 200 {
                seen["body"] = String::from_utf8_lossy(body).into();
            }
        }
        if let Some(tls) = tls {
            seen["tls"] = tls.clone();
        }
        seen
    }

    /// False: the connection is to be closed.
    fn answer(
        &self,
        stream: &mut impl Write,
        method: &str,
        fields: &[(String, String)],
        action: &str,
        seen: &Value,
    ) -> io::Result<bool> {
        let prefix = self.manner.prefix();
        let asked = |what: &str| field(fields, &format!("{prefix}{what}"));
        let mut status: u16 = 200;
        if self.manner == Manner::Default {
            status = field(fields, "X-Code").parse().unwrap_or(404);
        }
        if let Ok(wanted) = asked("Status").parse() {
            status = wanted;
        }
        let mut out = if self.manner == Manner::Fast { b"ok".to_vec() } else { echo(seen) };
        if let Ok(size) = asked("Size").parse() {
            out = super::forms::filler(size);
        }
        let mut extra = String::new();
        let mut typed = false;
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(&format!("{prefix}Set")) {
                // Writing to a String cannot fail.
                let _ = write!(extra, "{value}\r\n");
                typed |= value.to_ascii_lowercase().starts_with("content-type:");
            } else if name.eq_ignore_ascii_case(&format!("{prefix}Bighdr")) {
                let _ = write!(extra, "X-Big: {}\r\n", "b".repeat(value.parse().unwrap_or(0)));
            }
        }
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
        if !typed {
            head += "Content-Type: application/json\r\n";
        }
        if !extra.contains("X-Backend:") {
            let _ = write!(head, "X-Backend: {}\r\n", self.name);
        }
        head += &extra;
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let mut wire = Vec::new();
        match action {
            "chunked" if !bodiless => {
                let _ = write!(head, "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", out.len());
                wire.extend(latin1(&head));
                wire.extend(&out);
                wire.extend(b"\r\n0\r\n\r\n");
            }
            "eof" if !bodiless => {
                wire.extend(latin1(&(head + "Connection: close\r\n\r\n")));
                wire.extend(&out);
                stream.write_all(&wire)?;
                return Ok(false);
            }
            "drip" => {
                let _ = write!(head, "Content-Length: {}\r\n\r\n", out.len());
                stream.write_all(&latin1(&head))?;
                for piece in out.chunks(out.len() / 3 + 1) {
                    stream.write_all(piece)?;
                    stream.flush()?;
                    std::thread::sleep(Duration::from_millis(600));
                }
                return Ok(true);
            }
            _ => {
                if status != 204 {
                    let _ = write!(head, "Content-Length: {}\r\n", out.len());
                }
                wire.extend(latin1(&(head + "\r\n")));
                if !bodiless {
                    wire.extend(&out);
                }
            }
        }
        stream.write_all(&wire)?;
        stream.flush()?;
        Ok(true)
    }

    fn websocket(&self, stream: &mut (impl Read + Write), buffer: &mut Buffer, key: &str) -> io::Result<()> {
        let joined = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, joined.as_bytes()));
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
             X-Backend: {}\r\n\r\n",
            self.name
        );
        stream.write_all(head.as_bytes())?;
        loop {
            let head = buffer.take(stream, 2)?;
            let length = usize::from(head[1] & 127);
            let mask = if head[1] & 128 != 0 { buffer.take(stream, 4)? } else { vec![0; 4] };
            let mut payload = buffer.take(stream, length)?;
            for (i, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[i % 4];
            }
            stream.write_all(&[&[head[0], length as u8][..], &payload].concat())?;
            if head[0] & 15 == 8 {
                return Ok(());
            }
        }
    }
}

/// The body of an answer: `backend` stands first, by which a reader knows it.
pub fn echo(seen: &Value) -> Vec<u8> {
    let text = seen.to_string();
    let name = seen["backend"].as_str().unwrap_or_default();
    format!("{{\"backend\":\"{name}\",\"seen\":{text}}}").into_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// One byte a character.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u8).collect()
}

pub fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| b as char).collect()
}

pub fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
}

fn common_name(session: &ServerConnection) -> String {
    let Some(certificate) = session.peer_certificates().and_then(|c| c.first()) else { return String::new() };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return String::new() };
    parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default().to_owned()
}

/// What was read of a stream and not used yet.
#[derive(Default)]
pub struct Buffer(pub Vec<u8>);

impl Buffer {
    pub fn fill(&mut self, stream: &mut impl Read) -> io::Result<()> {
        let mut part = [0; 16 * 1024];
        // signal(7): with a timeout a stop interrupts it, also where no signal has an action (a debugger).
        let count = loop {
            match stream.read(&mut part) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.0.extend_from_slice(&part[..count]);
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    pub fn take(&mut self, stream: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
        while self.0.len() < count {
            self.fill(stream)?;
        }
        Ok(self.0.drain(..count).collect())
    }

    /// A line without its end.
    pub fn line(&mut self, stream: &mut impl Read) -> io::Result<String> {
        loop {
            if let Some(end) = self.0.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.0.drain(..=end).collect();
                return Ok(from_latin1(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            self.fill(stream)?;
        }
    }

    /// The first line, and the fields with their case and order.
    pub fn head(&mut self, stream: &mut impl Read) -> io::Result<(String, Vec<(String, String)>)> {
        let first = self.line(stream)?;
        let mut fields = Vec::new();
        loop {
            let line = self.line(stream)?;
            if line.is_empty() {
                return Ok((first, fields));
            }
            match line.split_once(':') {
                Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
                None => fields.push((line, String::new())),
            }
        }
    }

    /// A request's body, and whether all of it came.
    fn body(&mut self, stream: &mut impl Read, fields: &[(String, String)]) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        let read = if field(fields, "Transfer-Encoding").to_ascii_lowercase().contains("chunked") {
            self.chunks(stream, &mut body)
        } else {
            let length = field(fields, "Content-Length").parse().unwrap_or(0);
            self.take(stream, length).map(|b| body = b).inspect_err(|_| body.clone_from(&self.0))
        };
        (body, read.is_ok())
    }

    pub fn chunks(&mut self, stream: &mut impl Read, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line(stream)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line(stream)?.is_empty() {}
                return Ok(());
            }
            body.extend(self.take(stream, size)?);
            self.take(stream, 2)?;
        }
    }
}
