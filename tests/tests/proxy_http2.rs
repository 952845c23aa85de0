//! HTTP/2 from clients (by ALPN and with prior knowledge) and to backends (h2c): frames, trailers, flow control, GOAWAY.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ingress_agent::model::route::Tls;
use ingress_agent::model::snapshot::AppProtocol;
use ingress_tests::http::backend::Backend;
use ingress_tests::http::site::{Served, Site, certificate, pool, prefix, route};
use ingress_tests::http::tls::client_config;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn over<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn secure(to: SocketAddr, name: &str) -> SendRequest<Full<Bytes>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(to).await.expect("the proxy listens");
    let stream = TlsConnector::from(client_config(&[b"h2", b"http/1.1"])).connect(name, stream).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    over(stream).await
}

fn request(method: &str, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::new(body.into())).expect("a request")
}

/// A gRPC-like backend: echoes frames, ends with trailers, wants `te: trailers`.
async fn grpc(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            let te = request.headers().get("te").map(|v| v.as_bytes().to_vec());
            let body = request.into_body();
            let echoed = async_echo(body);
            Ok::<_, Infallible>(
                Response::builder()
                    .header("x-te", te.unwrap_or_default())
                    .body(StreamBody::new(echoed))
                    .expect("a response"),
            )
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

type Frames = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

fn async_echo(body: Incoming) -> Frames {
    Box::pin(futures_util::stream::unfold(Some(body), |state| async move {
        let mut body = state?;
        if let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            return Some((Ok(Frame::data(data)), Some(body)));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        Some((Ok(Frame::trailers(trailers)), None))
    }))
}

#[test]
fn http2_reaches_http1_backends() {
    let backend = Backend::echo();
    let served = Served::new(&Site::to(backend.address).certificate(certificate("shop", &["shop.example"])));
    runtime().block_on(async {
        let clear = over(TcpStream::connect(served.http()).await.expect("the proxy listens")).await;
        let secure = secure(served.https(), "shop.example").await;
        for (mut sender, scheme) in [(clear, "http"), (secure, "https")] {
            let large = "x".repeat(200_000);
            let sent = request("POST", &format!("{scheme}://shop.example/a?b=c"), large.clone());
            let response = sender.send_request(sent).await.expect("a response");
            assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert!(body.ends_with(large.as_bytes()));
            let got = backend.last();
            assert_eq!(got.line(), "POST /a?b=c HTTP/1.1");
            assert_eq!((got.fields("host"), got.field("x-forwarded-proto")), (vec!["shop.example"], Some(scheme)));
            assert_eq!(got.field("content-length"), Some("200000"));
            let gotten = sender.send_request(request("GET", &format!("{scheme}://shop.example/none"), "")).await;
            assert_eq!(gotten.expect("a response").status(), 200);
            assert_eq!(backend.last().fields("content-length"), <[&str; 0]>::default());
        }
    });
}

#[test]
fn many_streams_share_one_connection() {
    let backend = Backend::echo();
    let served = Served::new(&Site::to(backend.address));
    runtime().block_on(async {
        let sender = over(TcpStream::connect(served.http()).await.expect("the proxy listens")).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..300 {
            let mut sender = sender.clone();
            tasks.spawn(async move {
                let response =
                    sender.send_request(request("GET", &format!("http://a/{number}"), "")).await.expect("a response");
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                assert!(body.starts_with(format!("GET /{number} ").as_bytes()));
            });
        }
        tasks.join_all().await;
    });
    assert_eq!(served.proxy().metrics().connections, 1);
}

#[test]
fn grpc_passes_with_trailers_both_ways() {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
    let address = listener.local_addr().expect("its address");
    runtime.spawn(grpc(listener));
    let mut h2c = pool("grpc", &[address]);
    h2c.app_protocol = AppProtocol::H2c;
    let site = Site::default().pool(h2c).any(vec![route(prefix(""), "grpc")]);
    let served = Served::new(&site);
    runtime.block_on(async {
        let mut sender = over(TcpStream::connect(served.http()).await.expect("the proxy listens")).await;
        for _ in 0..20 {
            let mut sent = request("POST", "http://a/pkg.Service/Echo", "\0\0\0\0\x05hello");
            sent.headers_mut().insert("te", "trailers".parse().expect("a value"));
            sent.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            let response = sender.send_request(sent).await.expect("a response");
            assert_eq!(response.headers()["x-te"], "trailers");
            let collected = response.into_body().collect().await.expect("a body");
            assert_eq!(
                collected.trailers().and_then(|t| t.get("grpc-status")).map(http::HeaderValue::as_bytes),
                Some(&b"0"[..])
            );
            assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x05hello"[..]);
        }
    });
}

#[test]
fn a_connection_meant_for_another_certificate_is_misdirected() {
    let backend = Backend::named("x");
    let both = certificate("both", &["a.example", "b.example"]);
    let site = Site::to(backend.address).certificate(both).certificate(certificate("other", &["other.example"]));
    let served = Served::new(&site);
    runtime().block_on(async {
        let mut sender = secure(served.https(), "a.example").await;
        for (host, status) in [("a.example", 200), ("b.example", 200), ("unknown.example", 200), ("other.example", 421)]
        {
            let response =
                sender.send_request(request("GET", &format!("https://{host}/"), "")).await.expect("a response");
            assert_eq!(response.status(), status, "{host}");
        }
    });
}

#[test]
fn goaway_lets_streams_finish() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let backend = Backend::answering(move |_, stream| {
        let _ = held.lock().expect("the only lock").recv_timeout(Duration::from_secs(10));
        ingress_tests::http::backend::reply(stream, "200 OK", "", b"finished");
        ingress_tests::http::backend::Then::Keep
    });
    let mut site = Site::to(backend.address);
    site.tls = Some(Tls::default());
    let mut served = Served::new(&site);
    let client = runtime();
    let (mut sender, response) = client.block_on(async {
        let mut sender = secure(served.https(), "a.example").await;
        let response = tokio::spawn(sender.send_request(request("GET", "https://a.example/", "")));
        while backend.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (sender, response)
    });
    let proxy = served.proxy.take().expect("the proxy");
    let draining = std::thread::spawn(move || runtime().block_on(proxy.drain(Duration::from_secs(20))));
    client.block_on(async {
        // The listener is closed before connections are told, in one step of the worker.
        while TcpStream::connect(served.https()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        release.send(()).expect("the backend waits");
        let response = response.await.expect("the task").expect("a response after GOAWAY");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"finished");
        let refused = sender.send_request(request("GET", "https://a.example/new", "")).await;
        assert!(refused.is_err(), "no new stream after GOAWAY");
    });
    draining.join().expect("drained");
}
