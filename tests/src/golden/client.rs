//! The client of the recordings: exact bytes over TCP or TLS, and every answer as it came. `../shared/golden/echo/recorder.py` is what this
//! reproduces.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::answer::Answer;
use super::echo::{Buffer, latin1};
use crate::http::tls::Trusting;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(25);

/// A request as recorded.
pub struct Ask<'a> {
    pub request: &'a Value,
    pub edge: IpAddr,
    pub certificates: &'a Path,
    /// Answers that are expected on the connection, and whether it is then closed: nobody waits for more.
    pub expected: usize,
    pub closes: bool,
}

pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn patience(&self, patience: Duration) {
        self.tcp().set_read_timeout(Some(patience)).expect("a read timeout");
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Ask<'_> {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.request[name].as_str()
    }

    pub fn secure(&self) -> bool {
        matches!(self.text("scheme"), Some("https" | "wss" | "grpcs"))
    }

    pub fn fields(&self) -> Vec<(String, String)> {
        let pair =
            |f: &Value| (f[0].as_str().unwrap_or_default().to_owned(), f[1].as_str().unwrap_or_default().to_owned());
        self.request["headers"].as_array().into_iter().flatten().map(pair).collect()
    }

    pub fn body(&self) -> Option<Vec<u8>> {
        match &self.request["body"] {
            Value::String(text) => Some(text.clone().into_bytes()),
            Value::Object(_) => {
                let (unit, length) = (&self.request["body"]["repeat"], &self.request["body"]["len"]);
                let (unit, length) = (unit.as_str()?, usize::try_from(length.as_u64()?).ok()?);
                Some(unit.bytes().cycle().take(length).collect())
            }
            _ => None,
        }
    }

    /// The connected and, where wanted, secured stream; else what came of it.
    pub fn connect(&self) -> Result<Stream, Box<Answer>> {
        let failed = |answer: Answer| Err(Box::new(answer));
        let port = self.request["port"].as_u64().map_or(if self.secure() { 443 } else { 80 }, |p| p as u16);
        let from: IpAddr = self.text("client_ip").unwrap_or("10.77.2.1").parse().expect("an address");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("bind the client's address");
        if socket.connect_timeout(&SocketAddr::new(self.edge, port).into(), PATIENCE).is_err() {
            return failed(Answer { refused: true, ..Answer::default() });
        }
        let mut stream: TcpStream = socket.into();
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        if !self.secure() {
            return Ok(Stream::Tcp(stream));
        }
        let host = self.text("host").unwrap_or_default();
        let without_port =
            host.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h);
        let sni = self.text("sni").unwrap_or(without_port).trim_end_matches('.');
        let mut config = self.tls_config();
        let name = match ServerName::try_from(sni.to_owned()) {
            Ok(name) if !sni.is_empty() => name,
            _ => {
                config.enable_sni = false;
                ServerName::try_from("none.invalid").expect("a name")
            }
        };
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a TLS session");
        while session.is_handshaking() {
            if let Err(error) = session.complete_io(&mut stream) {
                return failed(Answer { tls_error: Some(error.to_string()), ..Answer::default() });
            }
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    fn tls_config(&self) -> ClientConfig {
        let versions: &[&rustls::SupportedProtocolVersion] = match self.text("tls_min") {
            Some("1.2") => &[&rustls::version::TLS12],
            Some("1.3") => &[&rustls::version::TLS13],
            _ => rustls::ALL_VERSIONS,
        };
        let trusting = Arc::new(Trusting::new());
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions of this provider");
        let builder = builder.dangerous().with_custom_certificate_verifier(trusting);
        let mut config = match self.text("client_cert") {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = |end: &str| self.certificates.join(format!("{name}.{end}"));
                let chain = CertificateDer::pem_file_iter(file("crt")).expect("a certificate");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a client certificate")
            }
        };
        let http2 = self.text("http_version") == Some("2");
        config.alpn_protocols = match self.request["alpn"].as_array() {
            Some(list) => list.iter().filter_map(|p| Some(p.as_str()?.as_bytes().to_vec())).collect(),
            None if http2 => vec![b"h2".to_vec()],
            None => vec![b"http/1.1".to_vec()],
        };
        config
    }

    /// Head and body, of HTTP/1.
    fn wire(&self) -> (Vec<u8>, Vec<u8>) {
        let version = self.text("http_version").unwrap_or("1.1");
        let word = |name| self.text(name).unwrap_or_default();
        let mut head = format!("{} {} HTTP/{version}\r\n", word("method"), word("path"));
        if let Some(host) = self.text("host") {
            // Writing to a String cannot fail.
            let _ = write!(head, "Host: {host}\r\n");
        }
        for (name, value) in self.fields() {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let mut body = Vec::new();
        if let Some(content) = self.body() {
            let chunk = match &self.request["chunked"] {
                Value::Number(n) => n.as_u64().filter(|n| *n > 1).map(|n| n as usize).or(Some(1000)),
                Value::Bool(true) => Some(1000),
                _ => None,
            };
            if let Some(size) = chunk {
                head += "Transfer-Encoding: chunked\r\n";
                for piece in content.chunks(size) {
                    body.extend(format!("{:x}\r\n", piece.len()).bytes());
                    body.extend(piece);
                    body.extend(b"\r\n");
                }
                body.extend(b"0\r\n\r\n");
            } else {
                let _ = write!(head, "Content-Length: {}\r\n", content.len());
                body = content;
            }
        }
        (latin1(&(head + "\r\n")), body)
    }

    /// One request on a connection of its own.
    pub fn http1(&self) -> Answer {
        let mut stream = match self.connect() {
            Ok(stream) => stream,
            Err(answer) => return *answer,
        };
        let certificate = certificate(&stream);
        if self.text("raw").is_some() {
            let mut answer = self.raw(&mut stream);
            answer.certificate = certificate;
            return answer;
        }
        let began = Instant::now();
        let (head, body) = self.wire();
        let mut buffer = Buffer::default();
        let mut interim = Vec::new();
        // A proxy that has refused may close while we still send; what it answered counts.
        let _ = stream.write_all(&head).and_then(|()| stream.flush());
        if self.fields().iter().any(|(n, _)| n.eq_ignore_ascii_case("expect")) {
            stream.patience(Duration::from_secs(2));
            while !buffer.0.windows(4).any(|w| w == b"\r\n\r\n") && buffer.fill(&mut stream).is_ok() {}
            if buffer.0.starts_with(b"HTTP/1.1 100") {
                let _ = buffer.head(&mut stream);
                interim.push(100);
            }
            stream.patience(PATIENCE);
        }
        if buffer.0.is_empty() && !body.is_empty() {
            let _ = stream.write_all(&body).and_then(|()| stream.flush());
        }
        let method = self.text("method").unwrap_or_default();
        let mut answer = answer(&mut stream, &mut buffer, method);
        while answer.status == Some(100) {
            interim.push(100);
            answer = self::answer(&mut stream, &mut buffer, method);
        }
        answer.interim = interim;
        answer.certificate = certificate;
        answer.seconds = began.elapsed().as_secs_f64();
        if answer.status == Some(101) {
            answer.messages = self.messages(&mut stream, &mut buffer);
        }
        answer
    }

    fn messages(&self, stream: &mut Stream, buffer: &mut Buffer) -> Vec<String> {
        let mut messages = Vec::new();
        for message in self.request["ws"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(pause) = message.strip_prefix("sleep:") {
                std::thread::sleep(Duration::from_secs_f64(pause.parse().expect("seconds")));
                continue;
            }
            let frame = [&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0][..], message.as_bytes()].concat();
            let _ = stream.write_all(&frame).and_then(|()| stream.flush());
            let got = buffer.take(stream, 2).and_then(|head| buffer.take(stream, usize::from(head[1] & 127)));
            match got {
                Ok(text) => messages.push(String::from_utf8_lossy(&text).into_owned()),
                Err(error) => {
                    messages.push(if timed_out(&error) { "<timeout>" } else { "<closed>" }.to_owned());
                    break;
                }
            }
        }
        messages
    }

    fn raw(&self, stream: &mut Stream) -> Answer {
        let mut whole = Answer::default();
        let _ = stream.write_all(&latin1(self.text("raw").unwrap_or_default())).and_then(|()| stream.flush());
        if let Some(second) = self.text("raw2") {
            std::thread::sleep(Duration::from_secs_f64(self.request["pause"].as_f64().unwrap_or(0.3)));
            let _ = stream.write_all(&latin1(second)).and_then(|()| stream.flush());
        }
        if self.request["half_close"].as_bool() == Some(true) {
            let _ = stream.tcp().shutdown(Shutdown::Write);
        }
        let patience = Duration::from_secs_f64(self.request["timeout"].as_f64().unwrap_or(4.0));
        let methods = &self.request["methods"];
        let mut buffer = Buffer::default();
        loop {
            // Where it stays open in the recording, a short look for an answer too many is enough.
            let enough = whole.all.len() >= self.expected && !self.closes;
            stream.patience(if enough { Duration::from_millis(250) } else { patience });
            if buffer.0.is_empty()
                && let Err(error) = buffer.fill(stream)
            {
                whole.closed = Some(!timed_out(&error));
                break;
            }
            let method = methods[whole.all.len()].as_str().unwrap_or("GET");
            let next = answer(stream, &mut buffer, method);
            let over = next.status.is_none();
            whole.all.push(next);
            if over {
                whole.closed = Some(true);
                break;
            }
        }
        if let Some(first) = whole.all.first() {
            whole.status = first.status;
            whole.fields.clone_from(&first.fields);
            whole.body.clone_from(&first.body);
        }
        whole
    }
}

pub fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The next answer on a connection. Without a status: what is told in `end` and `timed_out`.
fn answer(stream: &mut Stream, buffer: &mut Buffer, method: &str) -> Answer {
    let mut answer = Answer::default();
    while !buffer.0.windows(4).any(|w| w == b"\r\n\r\n") {
        if let Err(error) = buffer.fill(stream) {
            answer.timed_out = timed_out(&error);
            if !buffer.0.is_empty() {
                answer.end = Some("not-http");
                answer.body = Some(std::mem::take(&mut buffer.0));
            }
            return answer;
        }
    }
    if !buffer.0.starts_with(b"HTTP/") {
        while buffer.fill(stream).is_ok() {}
        return Answer { end: Some("not-http"), body: Some(std::mem::take(&mut buffer.0)), ..answer };
    }
    let Ok((line, fields)) = buffer.head(stream) else { return answer };
    let mut words = line.split(' ');
    words.next().unwrap_or_default().clone_into(&mut answer.version);
    answer.status = words.next().and_then(|s| s.parse().ok());
    answer.fields = fields;
    let status = answer.status.unwrap_or(0);
    if status == 100 || status == 101 {
        return answer;
    }
    if method == "HEAD" || status == 204 || status == 304 {
        answer.body = Some(Vec::new());
        return answer;
    }
    let mut body = Vec::new();
    let length = answer.field("content-length").and_then(|l| l.parse().ok());
    if answer.field("transfer-encoding").is_some_and(|t| t.contains("chunked")) {
        if buffer.chunks(stream, &mut body).is_err() {
            answer.end = Some("truncated");
        }
    } else if let Some(length) = length {
        if let Ok(whole) = buffer.take(stream, length) {
            body = whole;
        } else {
            body = std::mem::take(&mut buffer.0);
            answer.end = Some("truncated");
        }
    } else {
        while buffer.fill(stream).is_ok() {}
        body = std::mem::take(&mut buffer.0);
        answer.end = Some("eof");
    }
    answer.body = Some(body);
    answer
}

/// What the server showed.
pub fn certificate(stream: &Stream) -> Option<Value> {
    let Stream::Tls(stream) = stream else { return None };
    let leaf = stream.conn.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|san| &san.value.general_names).filter_map(|n| match n {
        x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let subject = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default();
    Some(json!({"cn": subject, "san": names.collect::<Vec<_>>()}))
}
