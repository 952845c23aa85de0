//! A backend of the demo and of the benchmarks: it says its name over TCP, UDP and HTTP, so that a client sees who
//! answered. It listens on every address of its namespace and knows nothing of the load balancer. SIGTERM ends it as a pod
//! should end: it takes nothing new, finishes what it has, and says so to clients that would ask again.

use std::net::{Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ingress_tests::{load, websocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// After SIGTERM, an HTTP connection on which nobody has asked for so long is closed.
const LINGER: Duration = Duration::from_secs(2);

/// Says who it is over TCP, UDP and HTTP.
#[derive(Parser)]
struct Arguments {
    name: String,
    /// HTTP/1.1, with WebSocket echo on any path that asks for it.
    #[arg(long, default_value_t = 8080)]
    http: u16,
    /// A line `NAME CLIENT` on connect, then an echo.
    #[arg(long, default_value_t = 9000)]
    tcp: u16,
    /// `NAME CLIENT` in answer to every datagram.
    #[arg(long, default_value_t = 9001)]
    udp: u16,
    /// Swallows everything, and answers the end with the number of bytes.
    #[arg(long, default_value_t = 9002)]
    sink: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    load::allow_many_files();
    let name: &'static str = arguments.name.leak();
    let http = listen(arguments.http)?;
    let tcp = listen(arguments.tcp)?;
    let sink = listen(arguments.sink)?;
    let udp = UdpSocket::bind(any(arguments.udp)).await.context("bind the UDP port")?;
    let (end, ending) = watch::channel(false);
    // Each connection has a sender: the receiver hears when all are gone.
    let (connected, mut connections) = mpsc::channel::<()>(1);
    let http_ending = ending.clone();
    let serve = move |stream, _| serve_http(name, stream, http_ending.clone());
    tokio::spawn(accept(http, serve, ending.clone(), connected.clone()));
    tokio::spawn(accept(tcp, move |stream, client| echo(name, client, stream), ending.clone(), connected.clone()));
    tokio::spawn(accept(sink, |stream, _| swallow(stream), ending, connected));
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut datagram = vec![0; 65_536];
    let mut terminated = false;
    loop {
        tokio::select! {
            // An ICMP error for an earlier answer is reported here; it concerns one client.
            received = udp.recv_from(&mut datagram) => {
                let Ok((_, client)) = received else { continue };
                let _ = udp.send_to(format!("{name} {}", bare(client)).as_bytes(), client).await;
            }
            _ = terminate.recv(), if !terminated => {
                terminated = true;
                end.send_replace(true);
            }
            _ = connections.recv(), if terminated => return Ok(()),
        }
    }
}

fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// An IPv4 client on a dual-stack socket, as a person writes it.
fn bare(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(any(port)).with_context(|| format!("bind TCP port {port}"))?;
    socket.listen(4096).with_context(|| format!("listen on TCP port {port}"))
}

/// Until the end is near; then the port is closed, and what was accepted goes on.
async fn accept<F, W>(listener: TcpListener, serve: F, mut ending: watch::Receiver<bool>, connected: mpsc::Sender<()>)
where
    F: Fn(TcpStream, SocketAddr) -> W,
    W: Future<Output = std::io::Result<()>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        if let Ok((stream, client)) = accepted {
            let _ = stream.set_nodelay(true);
            let (served, connected) = (serve(stream, client), connected.clone());
            tokio::spawn(async move {
                // What breaks one connection is the client's to notice.
                let _ = served.await;
                drop(connected);
            });
        }
    }
}

async fn echo(name: &str, client: SocketAddr, mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(format!("{name} {}\n", bare(client)).as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

async fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.write_all(format!("{total}\n").as_bytes()).await,
            length => total += length as u64,
        }
    }
}

async fn serve_http(name: &'static str, stream: TcpStream, mut ending: watch::Receiver<bool>) -> std::io::Result<()> {
    let near = ending.clone();
    let service = service_fn(move |request| {
        let mut response = answer(name, request);
        // RFC 9112 §9.6: the client learns with an answer that it must not ask here again, and so no request of it is lost to
        // a connection that closes just then.
        if *near.borrow() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        async { anyhow::Ok(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let idle = async {
        let _ = ending.wait_for(|ending| *ending).await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        done = &mut connection => return done.map_err(std::io::Error::other),
        () = idle => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(std::io::Error::other)
}

/// A line about who answered what, or `/bytes/N`, or a WebSocket.
fn answer(name: &str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) {
        let accept = websocket::accept(&String::from_utf8_lossy(key.as_bytes()));
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(stream) = upgrade.await {
                let _ = websocket::echo(&mut TokioIo::new(stream)).await;
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        return response;
    }
    let path = request.uri().path();
    if let Some(length) = path.strip_prefix("/bytes/").and_then(|length| length.parse::<usize>().ok()) {
        return Response::new(Full::from(vec![b'x'; length.min(1 << 26)]));
    }
    let header = |key: &str| request.headers().get(key).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let client = header("x-forwarded-for");
    let line = format!("{name} {} {path} for {client}\n", header(HOST.as_str()));
    Response::new(Full::from(line))
}
