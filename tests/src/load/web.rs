//! HTTP, HTTPS and WebSocket clients that connect to one address, whatever the name resolves to, and trust one authority.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::{Outcome, PATIENCE, Stop, now_ms};
use crate::websocket::{self, Opcode};

/// How hard a load presses.
#[derive(Clone, Copy)]
pub struct Pace {
    pub workers: usize,
    /// Requests on one connection before the next is opened.
    pub requests_a_connection: usize,
    /// Between two requests of a worker.
    pub pause: Duration,
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where to, and what for.
#[derive(Clone)]
pub struct Site {
    to: SocketAddr,
    host: String,
    path: String,
    /// Absent for plain HTTP.
    connector: Option<TlsConnector>,
}

impl Site {
    /// Without TLS.
    pub fn plain(to: SocketAddr, host: &str, path: &str) -> Self {
        Self { to, host: host.to_owned(), path: path.to_owned(), connector: None }
    }

    /// `authority` is a PEM file.
    pub fn secure(to: SocketAddr, host: &str, path: &str, authority: &Path) -> Result<Self> {
        let pem = fs::read(authority).with_context(|| format!("read {}", authority.display()))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.context("read a certificate")?).context("trust a certificate")?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: Some(TlsConnector::from(Arc::new(config))), ..Self::plain(to, host, path) })
    }

    async fn open(&self) -> Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.connector else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).context("the host as a server name")?;
        Ok(Box::new(connector.connect(name, stream).await.context("TLS")?))
    }

    fn request(&self) -> http::request::Builder {
        Request::get(&self.path).header(HOST, &self.host)
    }
}

/// A connection that answers requests one after another.
pub struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    site: Site,
    /// The server said that it takes no other request here.
    last: bool,
}

impl Connection {
    pub async fn open(site: &Site) -> Result<Self> {
        let stream = timeout(PATIENCE, site.open()).await.context("connecting took too long")??;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self { sender, site: site.clone(), last: false })
    }

    /// The body of a successful answer.
    pub async fn get(&mut self) -> Result<String> {
        let path = self.site.path.clone();
        self.get_path(&path).await
    }

    /// The same for another path.
    pub async fn get_path(&mut self, path: &str) -> Result<String> {
        let (status, body) = self.ask(path).await?;
        ensure!(status.is_success(), "{status}: {}", body.trim());
        Ok(body)
    }

    /// The same where the answer may take its time.
    pub async fn get_patiently(&mut self, patience: Duration) -> Result<String> {
        let path = self.site.path.clone();
        let (status, body) = self.ask_within(&path, patience).await?;
        ensure!(status.is_success(), "{status}: {}", body.trim());
        Ok(body)
    }

    /// Whether the answer before was the last one of this connection (RFC 9112 §9.6).
    pub const fn is_over(&self) -> bool {
        self.last
    }

    /// Any answer. Fails only if there is none.
    pub async fn ask(&mut self, path: &str) -> Result<(StatusCode, String)> {
        self.ask_within(path, PATIENCE).await
    }

    async fn ask_within(&mut self, path: &str, patience: Duration) -> Result<(StatusCode, String)> {
        let request = Request::get(path).header(HOST, &self.site.host).body(Empty::new())?;
        let whole = async {
            self.sender.ready().await.context("the connection was closed")?;
            let response = self.sender.send_request(request).await.context("request")?;
            let status = response.status();
            self.last = response.headers().get(CONNECTION).is_some_and(|value| value.as_bytes() == b"close");
            let body = response.into_body().collect().await.context("body")?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        timeout(patience, whole).await.context("a request took too long")?
    }
}

/// When a worker asks next.
#[derive(Clone, Copy)]
enum Next {
    /// So long after an answer.
    After(Duration),
    /// Then, and once a period from then on, however long answers take.
    Due(Instant, Duration),
}

impl Next {
    async fn wait(&mut self) {
        match self {
            Self::After(pause) if pause.is_zero() => {}
            Self::After(pause) => sleep(*pause).await,
            Self::Due(due, period) => {
                *due += *period;
                // Whoever is late asks at once. What was missed before that is not made up for.
                *due = Instant::now().checked_sub(*period).map_or(*due, |earliest| earliest.max(*due));
                sleep_until(*due).await;
            }
        }
    }
}

/// Requests from several workers until stopped.
pub async fn load(site: &Site, pace: Pace, stop: Stop) -> Outcome {
    let worker = |_| worker(site.clone(), pace.requests_a_connection, Next::After(pace.pause), stop.clone());
    all((0..pace.workers).map(worker)).await
}

/// So many requests a second on so many connections, evenly, until stopped. A connection is replaced when it says that it is over.
pub async fn steady(site: &Site, connections: usize, rate: f64, stop: Stop) -> Outcome {
    let (began, period) = (Instant::now(), Duration::from_secs_f64(connections as f64 / rate));
    let worker = |i| {
        let (site, stop) = (site.clone(), stop.clone());
        async move {
            let first = began + period.mul_f64(i as f64 / connections as f64);
            sleep_until(first).await;
            worker(site, usize::MAX, Next::Due(first, period), stop).await
        }
    };
    all((0..connections).map(worker)).await
}

async fn worker(site: Site, requests_a_connection: usize, mut next: Next, stop: Stop) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.now() {
        let began = now_ms();
        let mut connection = match Connection::open(&site).await {
            Ok(connection) => connection,
            Err(error) => {
                outcome.note(began, Err::<(), _>(error));
                continue;
            }
        };
        for _ in 0..requests_a_connection {
            let began = now_ms();
            let result = connection.get().await;
            let broken = result.is_err();
            outcome.note(began, result);
            if broken || connection.is_over() || stop.now() {
                break;
            }
            next.wait().await;
        }
    }
    outcome
}

async fn all(workers: impl Iterator<Item = impl Future<Output = Outcome> + Send + 'static>) -> Outcome {
    let mut tasks = tokio::task::JoinSet::new();
    for worker in workers {
        tasks.spawn(worker);
    }
    let mut all = Outcome::default();
    for outcome in tasks.join_all().await {
        all.ok += outcome.ok;
        all.failures.extend(outcome.failures);
    }
    all
}

/// An upgraded connection whose other end returns each message.
pub struct WebSocket(TokioIo<hyper::upgrade::Upgraded>);

impl WebSocket {
    pub async fn open(site: &Site) -> Result<Self> {
        const KEY: &str = "c2x1aWNlZ2F0ZSBkZW1vIQ==";
        let stream = site.open().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let request = site.request().header(CONNECTION, "Upgrade").header(UPGRADE, "websocket");
        let request =
            request.header(SEC_WEBSOCKET_VERSION, "13").header(SEC_WEBSOCKET_KEY, KEY).body(Empty::<Bytes>::new())?;
        let response = timeout(PATIENCE, sender.send_request(request)).await.context("no answer to the upgrade")??;
        ensure!(
            response.status() == StatusCode::SWITCHING_PROTOCOLS,
            "the upgrade was answered with {}",
            response.status()
        );
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).context("no Sec-WebSocket-Accept")?;
        ensure!(accept.as_bytes() == websocket::accept(KEY).as_bytes(), "a wrong Sec-WebSocket-Accept");
        Ok(Self(TokioIo::new(hyper::upgrade::on(response).await.context("upgrade")?)))
    }

    /// Sends a message and waits for its echo.
    pub async fn echo(&mut self, text: &[u8]) -> Result<()> {
        websocket::write(&mut self.0, Opcode::Text, text, Some([0x12, 0x34, 0x56, 0x78])).await?;
        let echo = timeout(PATIENCE, websocket::read(&mut self.0)).await.context("no echo")??;
        ensure!(echo.opcode == Opcode::Text && echo.payload == text, "the echo of {} bytes differs", text.len());
        Ok(())
    }
}

/// Upgrades, sends messages of several sizes and checks their echoes; returns how many.
pub async fn websocket(site: &Site) -> Result<usize> {
    let mut socket = WebSocket::open(site).await?;
    let sizes = [1, 125, 126, 4_000, 70_000, 300_000];
    for size in sizes {
        socket.echo(&vec![b'w'; size]).await?;
    }
    websocket::write(&mut socket.0, Opcode::Close, &[3, 232], Some([0; 4])).await?;
    Ok(sizes.len())
}

/// Holds so many connections of that kind open and speaks on each after every pause. `ok` is those that still worked at the
/// end. `opened` is called when all are open.
pub async fn hold(site: &Site, count: usize, pause: Duration, stop: Stop, opened: impl FnOnce()) -> Result<Outcome> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let mut socket = WebSocket::open(site).await?;
        let mut stop = stop.clone();
        tasks.spawn(async move {
            loop {
                let began = now_ms();
                socket.echo(b"still here?").await.map_err(|error| (began, format!("{error:#}")))?;
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    () = sleep(pause) => {}
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
