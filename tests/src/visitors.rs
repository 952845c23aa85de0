//! What visitors of a web site do while its address moves: requests on kept connections, HTTP/2, a WebSocket, a long download, a slow
//! answer, a connection that is idle. And the backend that all of it ends at. Every failure is kept, in words.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::lan::Host;
use crate::load::{Stop, web};
use crate::websocket::{self, Opcode};

pub const HOST_NAME: &str = "shop.example";
/// Of a download, and how fast it comes: it takes some four seconds.
const DOWNLOAD: usize = 8 << 20;
const CHUNK: usize = 64 << 10;
const CHUNK_EVERY: Duration = Duration::from_millis(30);
/// The slow answer's.
const SLOW: Duration = Duration::from_secs(3);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "c2x1aWNlZ2F0ZSBkZW1vIQ==";

/// Serves on `port` of a host until the process ends.
pub fn backend(host: &Host, port: u16) -> Result<()> {
    host.inside(|| {
        let listener = std::net::TcpListener::bind(("::", port)).context("bind the backend")?;
        listener.set_nonblocking(true)?;
        std::thread::Builder::new().name("backend".into()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("register it");
                while let Ok((stream, _)) = listener.accept().await {
                    // A connection that breaks is the client's matter.
                    tokio::spawn(async { drop(serve(stream).await) });
                }
            });
        })?;
        Ok(())
    })
}

async fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let lower = line.trim_end().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1).context("a path")?.to_owned();
            } else if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            } else if lower.is_empty() {
                break;
            }
        }
        tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
        match path.as_str() {
            "/ws" => {
                let accept = websocket::accept(KEY);
                let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket";
                stream.write_all(format!("{head}\r\nsec-websocket-accept: {accept}\r\n\r\n").as_bytes()).await?;
                return Ok(websocket::echo(&mut stream).await?);
            }
            "/download" => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {DOWNLOAD}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                for _ in 0..DOWNLOAD / CHUNK {
                    stream.write_all(&vec![b'd'; CHUNK]).await?;
                    sleep(CHUNK_EVERY).await;
                }
            }
            path => {
                if path == "/slow" {
                    sleep(SLOW).await;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            }
        }
    }
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct Findings {
    /// Requests that were answered.
    pub answered: usize,
    /// Messages that a WebSocket echoed.
    pub echoed: usize,
    /// HTTP/2 connections that were used.
    pub http2_connections: usize,
    pub failures: Vec<String>,
}

/// Visitors that stay until they are asked for their findings, or dropped.
pub struct Visitors {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Findings>>,
}

impl Visitors {
    /// All of them are connected when this returns.
    pub fn come(from: &Host, to: &[SocketAddr]) -> Result<Self> {
        let (stop, stopped) = Stop::by_hand();
        let (ready, wait) = std::sync::mpsc::channel();
        let (host, to) = (from.clone(), to.to_vec());
        let thread = std::thread::Builder::new().name("visitors".into()).spawn(move || {
            host.inside(|| {
                let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(visit(&to, stopped, &ready))
            })
        })?;
        // An error says that they ended before; their findings say why.
        let _ = wait.recv();
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Lets everybody finish what he does.
    pub fn leave(mut self) -> Findings {
        self.stop.send_replace(true);
        self.thread.take().expect("it was started").join().expect("no panic among the visitors")
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn visit(to: &[SocketAddr], stop: Stop, ready: &std::sync::mpsc::Sender<()>) -> Findings {
    let mut all = Findings::default();
    let mut tasks = tokio::task::JoinSet::new();
    let (connected, mut count) = watch::channel(0);
    let mut wanted = 0;
    for &to in to {
        let site = |path| web::Site::plain(to, HOST_NAME, path);
        let tell = || {
            let connected = connected.clone();
            move || connected.send_modify(|n| *n += 1)
        };
        let kept = (site("/"), stop.clone());
        tasks.spawn(async move {
            let outcome = web::steady(&kept.0, 20, 1000.0, kept.1).await;
            let failures = outcome.failures.iter().map(|(_, why)| format!("a request: {why}")).collect();
            Findings { answered: outcome.ok as usize, failures, ..Findings::default() }
        });
        tasks.spawn(websocket(to, stop.clone(), tell()));
        tasks.spawn(http2(to, stop.clone(), tell()));
        tasks.spawn(idle(site("/"), stop.clone(), tell()));
        tasks.spawn(one(site("/slow"), "the slow answer", tell()));
        tasks.spawn(one(site("/download"), "the download", tell()));
        wanted += 5;
    }
    tokio::select! {
        _ = count.wait_for(|n| *n == wanted) => drop(ready.send(())),
        () = sleep(PATIENCE) => all.failures.push("not everybody was connected".into()),
    }
    while let Some(found) = tasks.join_next().await {
        let found = found.unwrap_or_else(|e| Findings { failures: vec![e.to_string()], ..Findings::default() });
        all.answered += found.answered;
        all.echoed += found.echoed;
        all.http2_connections += found.http2_connections;
        all.failures.extend(found.failures);
    }
    all
}

fn found(what: &str, result: Result<Findings>) -> Findings {
    result.unwrap_or_else(|e| Findings { failures: vec![format!("{what}: {e:#}")], ..Findings::default() })
}

/// One request, under way when it is told that it is.
async fn one(site: web::Site, what: &'static str, under_way: impl Fn()) -> Findings {
    let ask = async {
        let mut connection = web::Connection::open(&site).await?;
        under_way();
        let body = connection.get_patiently(PATIENCE).await?;
        let whole = if what == "the download" { DOWNLOAD } else { 2 };
        ensure!(body.len() == whole, "{} of {whole} bytes", body.len());
        Ok(Findings { answered: 1, ..Findings::default() })
    };
    found(what, ask.await)
}

/// A connection that is silent until the end, and is used once more then.
async fn idle(site: web::Site, mut stop: Stop, connected: impl Fn()) -> Findings {
    let ask = async {
        let mut connection = web::Connection::open(&site).await?;
        connection.get().await?;
        connected();
        stop.wait().await;
        connection.get().await.context("after the silence")?;
        Ok(Findings { answered: 2, ..Findings::default() })
    };
    found("an idle connection", ask.await)
}

async fn websocket(to: SocketAddr, stop: Stop, connected: impl Fn()) -> Findings {
    let talk = async {
        let mut stream = TcpStream::connect(to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let head = format!("GET /ws HTTP/1.1\r\nhost: {HOST_NAME}\r\nconnection: Upgrade\r\nupgrade: websocket");
        let head = format!("{head}\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.context("the upgrade's answer")?);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        let mut echoed = 0;
        while !stop.now() {
            let text = format!("message {echoed}");
            websocket::write(&mut stream, Opcode::Text, text.as_bytes(), Some([1, 2, 3, 4])).await?;
            let echo = timeout(PATIENCE, websocket::read(&mut stream)).await.context("no echo")??;
            ensure!(echo.payload == text.as_bytes(), "another echo");
            echoed += 1;
            if echoed == 1 {
                connected();
            }
            sleep(Duration::from_millis(10)).await;
        }
        websocket::write(&mut stream, Opcode::Close, &[3, 232], Some([0; 4])).await?;
        let close = timeout(PATIENCE, websocket::read(&mut stream)).await.context("no answer to the end")??;
        ensure!(close.opcode == Opcode::Close, "{close:?} instead of the end");
        Ok(Findings { echoed, ..Findings::default() })
    };
    found("a WebSocket", talk.await)
}

/// HTTP/2 with prior knowledge: three requests at a time. A connection that takes no more (GOAWAY) is replaced; a request that was
/// sent must be answered.
async fn http2(to: SocketAddr, stop: Stop, connected: impl Fn()) -> Findings {
    let mut all = Findings::default();
    let ask = async {
        while !stop.now() {
            let stream = TcpStream::connect(to).await.context("connect")?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            all.http2_connections += 1;
            while !stop.now() && sender.ready().await.is_ok() {
                let request = || {
                    let request = Request::get(format!("http://{HOST_NAME}/")).header(HOST, HOST_NAME);
                    request.body(Empty::<Bytes>::new()).expect("a request")
                };
                let mut sent = Vec::new();
                for _ in 0..3 {
                    sent.push(sender.try_send_request(request()));
                }
                for answer in sent {
                    let response = match timeout(PATIENCE, answer).await.context("no answer")? {
                        Ok(response) => response,
                        // It never left.
                        Err(mut e) => match e.take_message() {
                            Some(_) => continue,
                            None if is_refused(e.error()) => continue,
                            None => return Err(e.into_error().into()),
                        },
                    };
                    ensure!(response.status() == StatusCode::OK, "{}", response.status());
                    let body = response.into_body().collect().await.context("the body")?.to_bytes();
                    ensure!(body == "ok", "{body:?}");
                    all.answered += 1;
                }
                connected_once(&all, &connected);
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    };
    let result: Result<()> = ask.await;
    if let Err(e) = result {
        all.failures.push(format!("HTTP/2: {e:#}"));
    }
    all
}

/// RFC 9113 §6.8: the connection takes no more, and this request came behind the last one that it took. Whoever sent it asks again on
/// another connection, as browsers do.
fn is_refused(error: &hyper::Error) -> bool {
    let why = std::error::Error::source(error).map(ToString::to_string);
    why.is_some_and(|why| why == "connection error received: not a result of an error")
}

fn connected_once(all: &Findings, connected: &impl Fn()) {
    if all.answered == 3 {
        connected();
    }
}
