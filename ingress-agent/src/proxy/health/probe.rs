//! One check of one endpoint, on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use crate::model::policy::{HealthCheck, Probe, Upstream};
use crate::model::snapshot::AppProtocol;
use crate::proxy::local_tasks::LocalTasks;
use crate::proxy::upstream::io::{CompiledUpstream, UpstreamIo, tcp, tls};

const AGENT: &str = concat!("sluicegate-health/", env!("CARGO_PKG_VERSION"));
/// Of an answer's body this much is read, so that a server that is well does not see its connection reset.
const BODY_MOST: usize = 64 << 10;

/// How the endpoint is spoken to.
pub(super) struct Speech {
    protocol: AppProtocol,
    /// `None` in clear text, or in TLS as its Service says.
    upstream: Option<Arc<CompiledUpstream>>,
    secure: bool,
}

impl Speech {
    /// As requests speak to it; gRPC is HTTP/2 whatever they speak.
    pub(super) fn new(check: &HealthCheck, protocol: AppProtocol, upstream: Option<&Arc<CompiledUpstream>>) -> Self {
        let own = upstream.and_then(|u| u.source.tls.clone());
        let secure = protocol == AppProtocol::Https || own.is_some();
        let grpc = matches!(check.probe, Probe::Grpc { .. });
        if grpc && secure && protocol != AppProtocol::H2c {
            let source = Upstream { protocol: AppProtocol::H2c, tls: Some(own.unwrap_or_default()) };
            let upstream = Some(Arc::new(CompiledUpstream::new(&Arc::new(source))));
            return Self { protocol: AppProtocol::H2c, upstream, secure };
        }
        let protocol = if grpc { AppProtocol::H2c } else { protocol };
        Self { protocol, upstream: upstream.cloned(), secure }
    }

    async fn connect(&self, target: SocketAddr) -> Result<UpstreamIo, String> {
        let connected = if self.secure { tls(target, self.upstream.as_deref()).await } else { tcp(target).await };
        connected.map_err(|error| error.to_string())
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Ends with what it serves.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `Err` says why the endpoint is not well, in a few words.
pub(super) async fn probe(check: &HealthCheck, target: SocketAddr, speech: &Speech) -> Result<(), String> {
    match &check.probe {
        Probe::Tcp => tcp(target).await.map(drop).map_err(|error| error.to_string()),
        Probe::Http { path, host, statuses } => {
            let host = host.clone().unwrap_or_else(|| target.to_string());
            let request = Request::get(path).body(Full::default()).map_err(|error| error.to_string())?;
            let (response, _task) = ask(request, &host, target, speech).await?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await
                && read < BODY_MOST
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            let expected = statuses.iter().any(|(first, last)| (*first..=*last).contains(&status));
            if expected { Ok(()) } else { Err(format!("it answered {status}")) }
        }
        Probe::Grpc { service } => {
            let request = Request::post("/grpc.health.v1.Health/Check")
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .body(Full::new(question(service)))
                .map_err(|error| error.to_string())?;
            let (response, _task) = ask(request, &target.to_string(), target, speech).await?;
            serving(response).await
        }
    }
}

/// The answer's head, and the task that brings its body.
async fn ask(
    mut request: Request<Full<Bytes>>,
    host: &str,
    target: SocketAddr,
    speech: &Speech,
) -> Result<(Response<Incoming>, Task), String> {
    let said = |error: hyper::Error| {
        // hyper's own words are general; the cause, where there is one, is not.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    request.headers_mut().insert(header::USER_AGENT, http::HeaderValue::from_static(AGENT));
    let io = TokioIo::new(speech.connect(target).await?);
    if speech.protocol == AppProtocol::H2c {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let uri = Uri::builder().scheme(speech.scheme()).authority(host).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http2::handshake(LocalTasks, io).await.map_err(said)?;
        let task = Task(tokio::task::spawn_local(async { drop(connection.await) }));
        return Ok((sender.send_request(request).await.map_err(said)?, task));
    }
    let host = http::HeaderValue::from_str(host).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(io).await.map_err(said)?;
    let task = Task(tokio::task::spawn_local(async { drop(connection.await) }));
    Ok((sender.send_request(request).await.map_err(said)?, task))
}

/// A `HealthCheckRequest` in gRPC's framing: not compressed, four bytes of length, the message. Field 1 is the service.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 7);
    // A name has at most 100 bytes (the parser's bound), so that each length is one byte.
    let name = &service.as_bytes()[..service.len().min(100)];
    let length = if name.is_empty() { 0 } else { name.len() as u8 + 2 };
    message.extend_from_slice(&[0, 0, 0, 0, length]);
    if length > 0 {
        message.extend_from_slice(&[0x0a, name.len() as u8]);
        message.extend_from_slice(name);
    }
    message.into()
}

/// grpc/health/v1/health.proto: field 1 of the answer is the status, of which 1 is SERVING.
async fn serving(response: Response<Incoming>) -> Result<(), String> {
    if !response.status().is_success() {
        return Err(format!("it answered {} to a gRPC call", response.status().as_u16()));
    }
    failed(response.headers())?;
    let mut body = response.into_body();
    let mut message = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if message.len() + data.len() <= BODY_MOST => message.extend_from_slice(&data),
            Ok(_) => return Err("its gRPC answer is too long".to_owned()),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    failed(&trailers)?;
                }
            }
        }
    }
    match message.as_slice() {
        [0, 0, 0, 0, 2, 0x08, 1, ..] => Ok(()),
        [0, 0, 0, 0, 2, 0x08, 2, ..] => Err("it says NOT_SERVING".to_owned()),
        [0, 0, 0, 0, 2, 0x08, 3, ..] => Err("it says SERVICE_UNKNOWN".to_owned()),
        [0, 0, 0, 0, 0, ..] => Err("it says UNKNOWN".to_owned()),
        _ => Err("it answered something else than a HealthCheckResponse".to_owned()),
    }
}

fn failed(fields: &HeaderMap) -> Result<(), String> {
    let Some(status) = fields.get("grpc-status").filter(|status| status.as_bytes() != b"0") else { return Ok(()) };
    Err(match status.as_bytes() {
        b"5" => "its gRPC health service does not know that service (NOT_FOUND)".to_owned(),
        b"12" => "it has no gRPC health service (UNIMPLEMENTED)".to_owned(),
        _ => format!("gRPC status {}", status.to_str().unwrap_or("that is no number")),
    })
}
