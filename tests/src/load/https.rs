//! HTTPS and WebSocket clients that trust one authority and connect to one address, whatever the name resolves to.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Outcome, PATIENCE, Stop, now_ms};
use crate::websocket::{self, Opcode};

/// Requests on one connection before the next is opened: both connection set-up and keep-alive are exercised.
const REQUESTS_A_CONNECTION: usize = 10;

/// Where to, and what for.
#[derive(Clone)]
pub struct Site {
    to: SocketAddr,
    host: String,
    path: String,
    connector: TlsConnector,
}

impl Site {
    /// `authority` is a PEM file.
    pub fn new(to: SocketAddr, host: &str, path: &str, authority: &Path) -> Result<Self> {
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
        Ok(Self { to, host: host.to_owned(), path: path.to_owned(), connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn open(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone()).context("the host as a server name")?;
        self.connector.connect(name, stream).await.context("TLS")
    }

    fn request(&self) -> http::request::Builder {
        Request::get(&self.path).header(HOST, &self.host)
    }
}

/// A connection that answers requests one after another.
pub struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    site: Site,
}

impl Connection {
    pub async fn open(site: &Site) -> Result<Self> {
        let stream = timeout(PATIENCE, site.open()).await.context("connecting took too long")??;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self { sender, site: site.clone() })
    }

    /// The body of a successful answer.
    pub async fn get(&mut self) -> Result<String> {
        let whole = async {
            self.sender.ready().await.context("the connection was closed")?;
            let response =
                self.sender.send_request(self.site.request().body(Empty::new())?).await.context("request")?;
            text(response).await
        };
        timeout(PATIENCE, whole).await.context("a request took too long")?
    }
}

async fn text(response: Response<Incoming>) -> Result<String> {
    let status = response.status();
    let body = response.into_body().collect().await.context("body")?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    ensure!(status.is_success(), "{status}: {}", body.trim());
    Ok(body)
}

/// Requests from several workers until stopped.
pub async fn load(site: &Site, workers: usize, stop: Stop) -> Outcome {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (site, stop) = (site.clone(), stop.clone());
        tasks.spawn(async move {
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
                for _ in 0..REQUESTS_A_CONNECTION {
                    let began = now_ms();
                    let result = connection.get().await;
                    let broken = result.is_err();
                    outcome.note(began, result);
                    if broken {
                        break;
                    }
                }
            }
            outcome
        });
    }
    let mut all = Outcome::default();
    for outcome in tasks.join_all().await {
        all.ok += outcome.ok;
        all.failures.extend(outcome.failures);
    }
    all
}

/// Upgrades, sends messages of several sizes and checks their echoes; returns how many.
pub async fn websocket(site: &Site) -> Result<usize> {
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
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.context("upgrade")?);
    let sizes = [1, 125, 126, 4_000, 70_000, 300_000];
    for size in sizes {
        let text = vec![b'w'; size];
        websocket::write(&mut stream, Opcode::Text, &text, Some([0x12, 0x34, 0x56, 0x78])).await?;
        let echo = timeout(PATIENCE, websocket::read(&mut stream)).await.context("no echo")??;
        ensure!(echo.opcode == Opcode::Text && echo.payload == text, "the echo of {size} bytes differs");
    }
    websocket::write(&mut stream, Opcode::Close, &[3, 232], Some([0; 4])).await?;
    Ok(sizes.len())
}
