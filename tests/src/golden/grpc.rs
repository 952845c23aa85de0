//! The gRPC backends of the recordings: HTTP/2, one message with the echo, a status in the trailers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::echo::{Log, echo, from_latin1, hex};

/// Serves on a thread of its own until the process ends.
pub fn listen(
    name: &'static str,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    log: Log,
) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(name, stream, tls.clone(), log.clone()));
            }
        });
    });
    Ok(())
}

async fn connection(name: &'static str, stream: TcpStream, tls: Option<Arc<ServerConfig>>, log: Log) {
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let serve = |session: Option<Value>| {
        service_fn(move |request: Request<Incoming>| answer(name, request, session.clone(), log.clone()))
    };
    // A connection that breaks is the proxy's affair.
    let _ = match tls {
        None => builder.serve_connection(TokioIo::new(stream), serve(None)).await,
        Some(config) => {
            let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
            let session = json!({"sni": stream.get_ref().1.server_name().unwrap_or_default(), "client_cn": ""});
            builder.serve_connection(TokioIo::new(stream), serve(Some(session))).await
        }
    };
}

type Frames = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    tls: Option<Value>,
    log: Log,
) -> Result<Response<StreamBody<Frames>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let authority = parts.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    let mut fields: Vec<Value> =
        parts.headers.iter().map(|(k, v)| json!([k.as_str(), from_latin1(v.as_bytes())])).collect();
    fields.sort_by_key(ToString::to_string);
    fields.insert(0, json!([":authority", authority]));
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    let mut seen = json!({"backend": name, "method": parts.method.as_str(), "target": target, "proto": "HTTP/2.0",
        "headers": fields, "body_len": body.len()});
    if !body.is_empty() {
        seen["body_sha256"] = hex(digest(&SHA256, &body).as_ref()).into();
    }
    if let Some(tls) = tls {
        seen["tls"] = tls;
    }
    log.add(seen.clone());
    let asked = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(delay) = asked("x-echo-delay").and_then(|d| d.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let text = echo(&seen);
    let mut message = vec![0];
    message.extend((text.len() as u32).to_be_bytes());
    message.extend(text);
    let mut trailers = HeaderMap::new();
    let status = asked("x-echo-grpc-status").unwrap_or("0");
    trailers.insert("grpc-status", HeaderValue::from_str(status).unwrap_or(HeaderValue::from_static("2")));
    trailers.insert("grpc-message", HeaderValue::from_static("m"));
    let frames = [Ok(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let body: Frames = Box::pin(futures_util::stream::iter(frames));
    let mut response = Response::new(StreamBody::new(body));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("x-backend", HeaderValue::from_static(name));
    headers.insert("trailer", HeaderValue::from_static("Grpc-Status, Grpc-Message"));
    Ok(response)
}
