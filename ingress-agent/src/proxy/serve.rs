//! From an accepted socket to the end of its connection: TLS, the choice of protocol, hyper's server, and the tunnel that
//! an upgraded connection becomes. Requests are answered elsewhere.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};

use super::client::{Client, ClientIo, Order};
use super::compile::{CompiledListener, CompiledPassthrough, CompiledTls};
use super::forward;
use super::hello::{self, Hello};
use super::listen::ListeningSocket;
use super::local_tasks::LocalTasks;
use super::stream;
use super::tunnel;
use super::worker::Worker;

/// hyper's buffers a connection; requests' heads are held to less by the framing judge, which settings may let take more.
const BUFFER_MOST: usize = 128 * 1024;
/// Fields a request may have. nginx counts only bytes; golden case 128 has 152.
const FIELDS_MOST: usize = 256;

pub(super) async fn accept(worker: Rc<Worker>, address: SocketAddr, listener: ListeningSocket, stop: Rc<Notify>) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = stop.notified() => {
                // What the kernel has already accepted for us would be reset with the socket: take it.
                while let Some(Ok((stream, peer))) = poll_fn(|cx| Poll::Ready(match listener.poll_accept(cx) {
                    Poll::Ready(accepted) => Some(accepted),
                    Poll::Pending => None,
                })).await {
                    tokio::task::spawn_local(connection(Rc::clone(&worker), address, stream, peer));
                }
                return;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::task::spawn_local(connection(Rc::clone(&worker), address, stream, peer));
            }
            Err(error) => {
                // accept(2): errors of the one connection are passed on here; those of the process (EMFILE) need a pause.
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)) {
                    tracing::error!(%address, %error, "cannot accept; raise the limit of open files");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection(worker: Rc<Worker>, address: SocketAddr, stream: TcpStream, peer: SocketAddr) {
    let generation = worker.generation.get();
    let (listener, told) = {
        let routing = worker.routing.borrow();
        (routing.listeners.get(&address).cloned(), routing.streams.get(&address).cloned())
    };
    let Some(compiled) = listener else {
        if let Some(told) = told {
            stream::serve(worker, told, stream, peer).await;
        }
        return;
    };
    let mut ip = peer.ip().to_canonical();
    let headed = compiled.settings.proxy_protocol.is_some();
    if let Some(wanted) = &compiled.settings.proxy_protocol {
        let told = tokio::time::timeout(wanted.timeout, super::stream::before(&stream)).await;
        let Ok(Ok(said)) = told else {
            worker.counters.proxy_header_failures.add(1);
            tracing::debug!(%peer, %address, "refused: no PROXY header");
            return;
        };
        if let Some(ends) = said.filter(|_| wanted.from.is_empty() || wanted.from.iter().any(|r| r.contains(&ip))) {
            ip = ends.source.ip().to_canonical();
        }
    }
    if !compiled.secure {
        let client = Client::new(Rc::clone(&worker), (ip, headed), address, (generation, compiled), None, Vec::new());
        return plain(Rc::new(client), stream).await;
    }
    let Some(tls) = compiled.tls.clone() else { return };
    let stream = match tokio::time::timeout(worker.limits.header, secured(&compiled, &tls, stream)).await {
        Ok(Ok(Secured::Here(stream))) => stream,
        Ok(Ok(Secured::There(to, stream, early))) => return stream::pass(worker, &to, stream, early).await,
        Ok(Err(_)) | Err(_) => {
            worker.counters.handshake_failures.add(1);
            return;
        }
    };
    worker.counters.handshakes.add(1);
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let name = session.server_name().map(Box::from);
    let shown = session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let who = (ip, headed);
    let client = Rc::new(Client::new(Rc::clone(&worker), who, address, (generation, compiled), name, shown));
    if http2 { serve_http2(client, *stream).await } else { serve_http1(client, *stream).await }
}

/// Where TLS ends.
enum Secured {
    Here(Box<TlsStream<TcpStream>>),
    /// In the backend, which gets what the client has said so far, and the rest.
    There(Arc<CompiledPassthrough>, TcpStream, Vec<u8>),
}

async fn secured(listener: &CompiledListener, tls: &CompiledTls, mut stream: TcpStream) -> std::io::Result<Secured> {
    if listener.passed.is_empty() {
        return Ok(Secured::Here(Box::new(shaken(tls, stream).await?)));
    }
    let Hello { accepted, bytes } = hello::read(&mut stream).await?;
    let to = accepted.client_hello().server_name().and_then(|name| listener.passed.get(name)).map(Arc::clone);
    if let (Some(to), Some(bytes)) = (to, bytes) {
        return Ok(Secured::There(to, stream, bytes));
    }
    let stream = finish(tls, StartHandshake::from_parts(accepted, stream)).await?;
    Ok(Secured::Here(Box::new(stream)))
}

async fn shaken(tls: &CompiledTls, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    if let Some(config) = tls.of_all() {
        return TlsAcceptor::from(Arc::clone(config)).accept(stream).await;
    }
    finish(tls, LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?).await
}

async fn finish(tls: &CompiledTls, start: StartHandshake<TcpStream>) -> std::io::Result<TlsStream<TcpStream>> {
    let config = Arc::clone(tls.config(start.client_hello().server_name()));
    start.into_stream(config).await
}

/// Clear text: HTTP/2 with prior knowledge begins with a preface that no HTTP/1 request begins with (RFC 9113 §3.3).
async fn plain(client: Rc<Client>, stream: TcpStream) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
    let mut start = [0; PREFACE.len()];
    let peeked = tokio::time::timeout(client.worker.limits.header, stream.peek(&mut start)).await;
    match peeked {
        // Fewer bytes than this could still become PUT or PROPFIND; HTTP/2 clients send their preface in one piece.
        Ok(Ok(count)) if count >= 4 && start[..count] == PREFACE[..count] => serve_http2(client, stream).await,
        Ok(Ok(0) | Err(_)) | Err(_) => {}
        Ok(Ok(_)) => serve_http1(client, stream).await,
    }
}

/// Leaves when dropped, however the connection ends.
struct Presence(Rc<Client>, u64);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.worker.leave(self.1);
    }
}

async fn serve_http1<T: AsyncRead + AsyncWrite + Unpin>(client: Rc<Client>, stream: T) {
    let _presence = Presence(Rc::clone(&client), client.worker.enter(&client));
    let service = service_fn(|request| forward::answer(Rc::clone(&client), request));
    let io = ClientIo::new(stream, Rc::clone(&client), true);
    let mut connection = http1::Builder::new()
        .max_buf_size(BUFFER_MOST.max(client.compiled().settings.head.most() + 8192))
        .max_headers(FIELDS_MOST)
        // Time limits are ours: a round a second instead of a timer a request.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut finishing = false;
    let ended = poll_fn(|cx| {
        match client.order(cx) {
            Order::Abort => return Poll::Ready(None),
            Order::Finish if !finishing => {
                finishing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ => {}
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    if let Some(Err(error)) = &ended {
        tracing::debug!(peer = %client.peer, %error, "connection ended");
    }
    let tunnel = client.tunnel.borrow_mut().take();
    if let (Some((upstream, lease)), Some(Ok(()))) = (tunnel, ended) {
        let parts = connection.into_parts();
        tunnel::run(&client, parts.io.inner, &parts.read_buf, upstream, lease).await;
    }
}

async fn serve_http2<T: AsyncRead + AsyncWrite + Unpin + 'static>(client: Rc<Client>, stream: T) {
    let _presence = Presence(Rc::clone(&client), client.worker.enter(&client));
    let served = Rc::clone(&client);
    let service = service_fn(move |request| forward::answer(Rc::clone(&served), request));
    let io = ClientIo::new(stream, Rc::clone(&client), false);
    let mut builder = http2::Builder::new(LocalTasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(client.compiled().settings.streams)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(32 * 1024)
        .max_send_buf_size(256 * 1024)
        // CVE-2023-44487: streams that are reset at once cost the client its connection.
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(128)
        // Finds peers that vanished; whether an idle connection may stay is decided by the worker's round.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut finishing = false;
    let ended = poll_fn(|cx| {
        match client.order(cx) {
            Order::Abort => return Poll::Ready(Ok(())),
            // GOAWAY says which streams are answered yet, so no request is lost (RFC 9113 §6.8).
            Order::Last | Order::Finish if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(peer = %client.peer, %error, "HTTP/2 connection ended");
    }
}
