//! HTTPS for the API server, and plain HTTP for probes and Prometheus. Whoever is in the cluster's network may connect, so
//! everything is bounded: heads, bodies, times, connections, and how many large bodies are held at once.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::certificate::Served;
use super::health::Health;
use super::index::Index;
use super::judge::{Rules, judge};
use super::review::{answer, read};

const HANDSHAKE: Duration = Duration::from_secs(5);
/// For a head, and for an idle connection to be used again: longer than Go's 90 s, so that the API server is never the second to
/// find out.
const HEAD: Duration = Duration::from_mins(2);
/// The API server has stopped waiting by then.
const BODY: Duration = Duration::from_secs(5);
const LARGEST_HEAD: usize = 16 << 10;
/// The API server takes objects of 3 MiB, and an update sends two of them.
const LARGEST_BODY: usize = 7 << 20;
/// Larger bodies wait for one of [`LARGE_AT_ONCE`].
const SMALL_BODY: u64 = 256 << 10;
const LARGE_AT_ONCE: usize = 4;
const CONNECTIONS: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: RwLock<Index>,
    pub(super) rules: Rules,
    pub(super) served: Arc<Served>,
    pub(super) health: Arc<Health>,
    large: Semaphore,
}

impl Shared {
    pub(super) fn new(rules: Rules, served: Arc<Served>, health: Arc<Health>) -> Self {
        Self { index: RwLock::default(), rules, served, health, large: Semaphore::new(LARGE_AT_ONCE) }
    }
}

pub(super) async fn reviews(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.context("set TLS up")?.with_no_client_auth().with_cert_resolver(shared.served.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accept(listener, |stream, slot| {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, shared, slot, true).await,
                Ok(Err(e)) => debug!("TLS handshake: {e}"),
                Err(_) => debug!("TLS handshake: too slow"),
            }
        });
    })
    .await;
    Ok(())
}

pub(super) async fn admin(listener: TcpListener, shared: Arc<Shared>) {
    accept(listener, |stream, slot| {
        tokio::spawn(connection(stream, Arc::clone(&shared), slot, false));
    })
    .await;
}

/// For ever.
async fn accept(listener: TcpListener, each: impl Fn(TcpStream, OwnedSemaphorePermit)) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one small packet, and somebody waits for it.
                let _ = stream.set_nodelay(true);
                each(stream, slot);
            }
            Err(e) => {
                debug!("accept: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection<S>(stream: S, shared: Arc<Shared>, _slot: OwnedSemaphorePermit, reviews: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = if reviews { review(request, &shared).await } else { window(&request, &shared) };
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = served.await {
        debug!("connection: {e}");
    }
}

async fn review(request: Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    if request.uri().path() != "/validate" {
        return text(StatusCode::NOT_FOUND, "not found; reviews are asked for at /validate\n");
    }
    if request.method() != Method::POST {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        refused.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("POST"));
        return refused;
    }
    let small = request.body().size_hint().upper().is_some_and(|size| size <= SMALL_BODY);
    let limit = async {
        let permit = if small { None } else { Some(shared.large.acquire().await) };
        (Limited::new(request.into_body(), LARGEST_BODY).collect().await, permit)
    };
    let (body, permit) = match timeout(BODY, limit).await {
        Ok((Ok(body), permit)) => (body.to_bytes(), permit),
        Ok((Err(e), _)) if e.downcast_ref::<LengthLimitError>().is_some() => {
            shared.health.refused();
            return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {LARGEST_BODY} bytes\n"));
        }
        Ok((Err(e), _)) => return text(StatusCode::BAD_REQUEST, format!("the body ended early: {e}\n")),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    };
    // Not on the thread that serves: somebody's megabyte must not hold up the others.
    let of = Arc::clone(shared);
    let judged = tokio::task::spawn_blocking(move || judged(&body, &of)).await;
    drop(permit);
    judged.unwrap_or_else(|e| text(StatusCode::INTERNAL_SERVER_ERROR, format!("the review failed: {e}\n")))
}

fn judged(body: &Bytes, shared: &Shared) -> Answer {
    let began = Instant::now();
    let request = match read(body) {
        Ok(request) => request,
        Err(reason) => {
            shared.health.refused();
            return text(StatusCode::BAD_REQUEST, reason + "\n");
        }
    };
    let verdict = {
        let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
        judge(&request, &index, &shared.rules)
    };
    let said = match (verdict.denials.is_empty(), verdict.warnings.is_empty()) {
        (false, _) => "denied",
        (true, false) => "warned",
        (true, true) => "admitted",
    };
    let answer = typed(StatusCode::OK, "application/json", answer(&request.uid, &verdict));
    shared.health.answered(&request.kind.kind, said, began.elapsed());
    answer
}

/// The human's window, and the kubelet's.
fn window(request: &Request<Incoming>, shared: &Shared) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, "sluicegate webhook\n/livez\n/readyz\n/metrics\n"),
        // That it answers at all is the point: reviews run on the same runtime.
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let reasons = shared.health.reasons();
            let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let head = if reasons.is_empty() { vec!["ok".to_owned()] } else { reasons };
            let mut lines = head;
            for note in shared.health.notes() {
                if !lines.contains(&note) {
                    lines.push(note);
                }
            }
            text(status, lines.join("\n") + "\n")
        }
        "/metrics" => match shared.health.metrics(&shared.served) {
            Ok(body) => {
                typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body.into())
            }
            Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {e}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}

/// A listener; `[::]` is every address, also where the kernel has no IPv6.
pub(super) async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(e) if address.ip().is_unspecified() && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|e: io::Error| anyhow::anyhow!("bind {address} ({option}): {e}"))
}
