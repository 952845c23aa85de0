//! HTTP/1.1 for the window, on TCP and on a Unix socket. Requests are small, few and possibly hostile: head, time and
//! number are bounded, bodies are never read, and no input ends more than its own connection.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

use super::query::{Order, Query, Question, Readiness, Readings};
use super::status::Status;
use super::{ask, dump, metrics};

const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_HEAD: usize = 16 << 10;
/// A whole connection, its answer to a slow reader included.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
const CONNECTIONS: usize = 64;
/// The control thread is alive if it answers within this time; applying a first, huge snapshot takes seconds.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts to accept, when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "\
sluicegate
/livez             the agent's control thread turns
/readyz            programs attached, generation applied, listeners up (503 with the reasons otherwise)
/metrics           Prometheus
/debug/snapshot    what was planned, as JSON, without private keys
/debug/rejections  what was not taken, and why
/api/status        what `sluicegate status` shows, as JSON
/api/vip/ORDER     POST, on the Unix socket only: move?vip=ADDR&node=NAME, drain, undrain
/api/limits/release  POST, on the Unix socket only: ?client=ADDR
/api/explain       ?what=tcp&what=CLIENT:PORT&what=VIP:PORT, or ?what=URL&method=GET&header=NAME:VALUE&client=ADDR
";

type Answer = Response<Full<Bytes>>;

pub(super) async fn tcp(listener: TcpListener, queries: mpsc::Sender<Query>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, queries.clone(), false, slot))),
            Err(e) => {
                debug!("accept: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

pub(super) async fn unix(listener: UnixListener, queries: mpsc::Sender<Query>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, queries.clone(), true, slot))),
            Err(e) => {
                debug!("accept: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// `trusted`: whoever speaks is root, and may give orders.
async fn connection<S>(stream: S, queries: mpsc::Sender<Query>, trusted: bool, _slot: tokio::sync::OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let queries = queries.clone();
        async move { Ok::<_, Infallible>(answer(&request, &queries, trusted).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(e)) = tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        debug!("admin connection: {e}");
    }
}

async fn answer(request: &Request<Incoming>, queries: &mpsc::Sender<Query>, trusted: bool) -> Answer {
    if trusted && request.method() == Method::POST {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
        let done = match path.strip_prefix("/api/vip/") {
            Some(name) => Some(order(name, query, queries).await),
            None if path == "/api/limits/release" => Some(release(query, queries).await),
            None => None,
        };
        if let Some(done) = done {
            return done.unwrap_or_else(|| text(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n"));
        }
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let asked = match request.uri().path() {
        "/" => return text(StatusCode::OK, INDEX),
        "/livez" => livez(queries).await,
        "/readyz" => readyz(request, queries).await,
        "/metrics" => scrape(queries).await,
        "/debug/snapshot" => readings(queries).await.map(|r| json(StatusCode::OK, &dump::snapshot(&r.snapshot))),
        "/debug/rejections" => readings(queries).await.map(|r| json(StatusCode::OK, &dump::rejections(&r.snapshot))),
        "/api/status" => readings(queries).await.map(|r| json(StatusCode::OK, &Status::of(&r))),
        "/api/explain" => explain(request.uri().query().unwrap_or(""), queries).await,
        _ => return text(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
    };
    asked.unwrap_or_else(|| text(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n"))
}

/// Asks the control thread; `None` when it is gone.
async fn ask_control<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
    let (place, answer) = oneshot::channel();
    queries.send(query(place)).await.ok()?;
    answer.await.ok()
}

async fn readings(queries: &mpsc::Sender<Query>) -> Option<Box<Readings>> {
    ask_control(queries, Query::Readings).await
}

async fn livez(queries: &mpsc::Sender<Query>) -> Option<Answer> {
    match tokio::time::timeout(ALIVE_TIMEOUT, ask_control(queries, Query::Alive)).await {
        Ok(alive) => alive.map(|()| text(StatusCode::OK, "ok\n")),
        Err(_) => Some(text(StatusCode::INTERNAL_SERVER_ERROR, "the control thread does not answer\n")),
    }
}

async fn readyz(request: &Request<Incoming>, queries: &mpsc::Sender<Query>) -> Option<Answer> {
    let Readiness { reasons, notes } = ask_control(queries, Query::Readiness).await?;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_json {
        return Some(json(
            status,
            &serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons, "notes": notes }),
        ));
    }
    let head = if reasons.is_empty() { vec!["ok".to_owned()] } else { reasons };
    let lines: Vec<_> = head.into_iter().chain(notes).collect();
    Some(text(status, lines.join("\n") + "\n"))
}

async fn scrape(queries: &mpsc::Sender<Query>) -> Option<Answer> {
    let readings = readings(queries).await?;
    Some(match metrics::render(readings) {
        Ok(body) => typed(StatusCode::OK, metrics::CONTENT_TYPE, body),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {e}\n")),
    })
}

async fn explain(query: &str, queries: &mpsc::Sender<Query>) -> Option<Answer> {
    let (mut what, mut headers, mut method, mut client) = (Vec::new(), Vec::new(), "GET".to_owned(), None);
    for (name, value) in ask::decode_pairs(query) {
        match name.as_str() {
            "what" => what.push(value),
            "header" => headers.push(value),
            "method" => method = value,
            "client" => client = Some(value),
            other => return Some(text(StatusCode::BAD_REQUEST, format!("{other}: is no parameter of explain\n"))),
        }
    }
    let question = match Question::parse(&what, &method, &headers, client.as_deref()) {
        Ok(question) => question,
        Err(mistakes) => return Some(text(StatusCode::BAD_REQUEST, mistakes.join("\n") + "\n")),
    };
    let explanation = ask_control(queries, |place| Query::Explain(Box::new(question), place)).await?;
    Some(json(StatusCode::OK, &explanation))
}

async fn order(name: &str, query: &str, queries: &mpsc::Sender<Query>) -> Option<Answer> {
    let order = match Order::parse(name, &ask::decode_pairs(query)) {
        Ok(order) => order,
        Err(mistake) => return Some(text(StatusCode::BAD_REQUEST, mistake + "\n")),
    };
    Some(obeyed(ask_control(queries, |place| Query::Order(order, place)).await?))
}

async fn release(query: &str, queries: &mpsc::Sender<Query>) -> Option<Answer> {
    let pairs = ask::decode_pairs(query);
    let client = pairs.iter().find(|(name, _)| name == "client").map_or("", |(_, value)| value);
    let Ok(address) = client.parse::<IpAddr>() else {
        return Some(text(StatusCode::BAD_REQUEST, format!("{client}: is not an IP address\n")));
    };
    Some(obeyed(ask_control(queries, |place| Query::Release(address.to_canonical(), place)).await?))
}

fn obeyed(result: Result<String, String>) -> Answer {
    match result {
        Ok(answer) => text(StatusCode::OK, answer + "\n"),
        Err(why) => text(StatusCode::CONFLICT, why + "\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => typed(status, "application/json", body),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write JSON: {e}\n")),
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    answer
}
