//! TCP through the proxy, for ports whose clients or backends speak the PROXY protocol, and for TLS that a backend ends: reads the header,
//! connects to a backend as requests do, says who the client is, and copies bytes. Knows nothing of what is spoken behind the header.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::compile::{CompiledPassthrough, CompiledStream};
use super::deadline::Deadline;
use super::metrics::UpstreamError;
use super::pools::{Lease, PoolId};
use super::proxy_header::{self, Ends, Header};
use super::splice;
use super::worker::Worker;
use crate::model::route::Balance;
use crate::model::snapshot::PoolName;

/// For the header from the moment of connecting: nginx's `proxy_protocol_timeout`.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For one backend to take the connection: as for requests (`proxy-connect-timeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte either way: ingress-nginx's `proxy-stream-timeout`.
const IDLE: Duration = Duration::from_mins(10);
/// Bytes that are read at once before the copying begins.
const PIECE: usize = 512;
/// Backends that are tried: ingress-nginx's `proxy-stream-next-upstream-tries`.
const TRIES: usize = 3;

/// Counts a connection for as long as it lives, however it ends.
struct Presence(Rc<Worker>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.stream_ended();
    }
}

pub(super) async fn serve(worker: Rc<Worker>, told: Arc<CompiledStream>, mut client: TcpStream, peer: SocketAddr) {
    worker.stream_began();
    let _presence = Presence(Rc::clone(&worker));
    let stream = &told.source;
    let own = SocketAddr::new(stream.vip, stream.port);
    let mut ends = Ends { source: SocketAddr::new(peer.ip().to_canonical(), peer.port()), destination: own };
    let mut early = Vec::new();
    if stream.proxy_protocol.received {
        match tokio::time::timeout(HEADER_TIMEOUT, header(&mut client, &mut early)).await {
            Ok(Ok(said)) => ends = said.unwrap_or(ends),
            Ok(Err(error)) => {
                worker.counters.proxy_header_failures.add(1);
                tracing::debug!(%peer, %own, %error, "refused: no PROXY header");
                return;
            }
            Err(_) => {
                worker.counters.proxy_header_failures.add(1);
                tracing::debug!(%peer, %own, "refused: no PROXY header in time");
                return;
            }
        }
    }
    let to = Target { pool: told.pool, name: &stream.pool, balance: stream.balance };
    let Some((mut backend, _lease)) = connect(&worker, &to).await else { return };
    if stream.proxy_protocol.sent {
        // A fresh connection has room for so little.
        if let Err(error) = backend.write_all(&proxy_header::write(&ends)).await {
            worker.counters.errors[UpstreamError::Reset as usize].add(1);
            tracing::debug!(pool = %stream.pool, %error, "backend closed at once");
            return;
        }
    }
    carry(&worker, client, backend, early).await;
}

/// A connection for whose TLS another is meant; `early` is what the client has said so far.
pub(super) async fn pass(worker: Rc<Worker>, told: &CompiledPassthrough, client: TcpStream, early: Vec<u8>) {
    worker.stream_began();
    worker.counters.passed_through.add(1);
    let _presence = Presence(Rc::clone(&worker));
    let to = Target { pool: told.pool, name: &told.source.pool, balance: told.source.balance };
    let Some((backend, _lease)) = connect(&worker, &to).await else { return };
    carry(&worker, client, backend, early).await;
}

/// Nothing can be said in band, so it lasts until the drain's time is over, when the worker ends.
async fn carry(worker: &Rc<Worker>, client: TcpStream, backend: TcpStream, early: Vec<u8>) {
    let deadline = Deadline::new(&worker.deadlines);
    let (up, down) = splice::carry(&client, &backend, early, (&deadline, IDLE)).await;
    worker.counters.bytes_in.add(up);
    worker.counters.bytes_out.add(down);
}

/// What the header says; `early` is then what came after it.
async fn header(client: &mut TcpStream, early: &mut Vec<u8>) -> Result<Option<Ends>, Error> {
    loop {
        match proxy_header::read(early) {
            Header::Complete(length, ends) => {
                early.drain(..length);
                return Ok(ends);
            }
            Header::Invalid => return Err(Error::new(ErrorKind::InvalidData, "it does not begin with one")),
            Header::Incomplete => {}
        }
        // A header that is incomplete is shorter than its bound, so this ends.
        early.reserve(PIECE);
        if client.read_buf(early).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Takes the header off a connection and leaves what comes behind it, which is TLS's or HTTP's to read.
pub(super) async fn before(stream: &TcpStream) -> std::io::Result<Option<Ends>> {
    let mut seen = vec![0; proxy_header::MOST];
    loop {
        let count = stream.peek(&mut seen).await?;
        match proxy_header::read(&seen[..count]) {
            Header::Complete(length, ends) => {
                let mut left = length;
                while left > 0 {
                    stream.readable().await?;
                    match stream.try_read(&mut seen[..left]) {
                        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                        Ok(taken) => left -= taken,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                return Ok(ends);
            }
            Header::Invalid => return Err(ErrorKind::InvalidData.into()),
            Header::Incomplete if count == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            // A header comes in one piece but for accidents; peeking does not wait for more than there is.
            Header::Incomplete => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Whom a connection is for.
struct Target<'a> {
    pool: PoolId,
    name: &'a PoolName,
    balance: Balance,
}

/// A connection to a backend of the pool, whose turn it is; to another where that one refuses.
async fn connect(worker: &Rc<Worker>, to: &Target<'_>) -> Option<(TcpStream, Lease)> {
    let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
    let failed = |kind: UpstreamError| {
        worker.counters.errors[kind as usize].add(1);
        tracing::debug!(pool = %to.name, ?kind, "no backend for a connection");
    };
    loop {
        let pool = worker.pool(to.pool);
        let picked = pool.as_ref().and_then(|pool| pool.pick(to.balance, &tried, || worker.random()));
        let (Some(pool), Some(backend)) = (pool, picked) else {
            failed(UpstreamError::NoBackend);
            return None;
        };
        let lease = Lease::new(Rc::clone(&backend));
        let kind = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend.address)).await {
            Ok(Ok(stream)) => {
                backend.connected();
                // It only costs delay where it fails.
                let _ = stream.set_nodelay(true);
                return Some((stream, lease));
            }
            Ok(Err(_)) => UpstreamError::Connect,
            Err(_) => UpstreamError::ConnectTimeout,
        };
        if let Some(until) = pool.failed(&backend) {
            worker.ejected(&pool, &backend, until);
        }
        tried.push(backend.address);
        if tried.len() >= TRIES || tried.len() >= pool.backends().len() {
            failed(kind);
            return None;
        }
        worker.counters.retries.add(1);
    }
}
