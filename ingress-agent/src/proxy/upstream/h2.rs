//! HTTP/2 with prior knowledge to backends that asked for it (`kubernetes.io/h2c`, gRPC): one connection a backend and
//! worker, shared by its requests. Trailers pass both ways.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::io::{CompiledUpstream, tcp, tls};
use super::{Answer, Failure, within};
use crate::model::route::Timeouts;
use crate::proxy::body::{BodyError, Kind, RequestBody};
use crate::proxy::deadline::Deadline;
use crate::proxy::local_tasks::LocalTasks;
use crate::proxy::pools::{Backend, Lease};
use crate::proxy::request::Outgoing;

/// A connection that requests share.
pub(in crate::proxy) type Shared = SendRequest<RequestBody>;

/// Flow-control windows towards us: large enough for a fast backend on a LAN, small enough for many streams.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

pub(super) async fn sender(
    backend: &Rc<Backend>,
    upstream: Option<&CompiledUpstream>,
    deadline: &Deadline,
    connect: Duration,
) -> Result<Shared, Failure> {
    let known = backend.h2.borrow().clone();
    if let Some(known) = known
        && !known.is_closed()
    {
        return Ok(known);
    }
    deadline.arm(Some(connect));
    let io = match upstream.filter(|u| u.source.tls.is_some()) {
        Some(upstream) => within(deadline, tls(backend.address, Some(upstream))).await?,
        None => within(deadline, tcp(backend.address)).await?,
    };
    let mut builder = Builder::new(LocalTasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let shaken = within(deadline, async { builder.handshake(TokioIo::new(io)).await.map_err(std::io::Error::other) });
    let (sender, connection) = shaken.await?;
    backend.connected();
    let kept = Rc::downgrade(backend);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to a backend ended");
        }
        // Forget it unless a newer one stands there.
        if let Some(backend) = kept.upgrade() {
            let mut shared = backend.h2.borrow_mut();
            if shared.as_ref().is_some_and(SendRequest::is_closed) {
                *shared = None;
            }
        }
    });
    *backend.h2.borrow_mut() = Some(sender.clone());
    Ok(sender)
}

pub(super) async fn exchange(
    mut sender: Shared,
    outgoing: &Outgoing<'_>,
    body: RequestBody,
    deadline: Deadline,
    timeouts: Timeouts,
    lease: Lease,
) -> Result<Answer, Failure> {
    let request = outgoing.http2(body).ok_or(Failure::BadResponse("the request has no HTTP/2 form"))?;
    deadline.arm(timeouts.read);
    let response = {
        let mut future = std::pin::pin!(sender.send_request(request));
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(reason(&error))),
            Poll::Pending if deadline.over(cx) => {
                Poll::Ready(Err(if deadline.total_over() { Failure::RequestTimeout } else { Failure::ReadTimeout }))
            }
            Poll::Pending => Poll::Pending,
        })
        .await?
    };
    let (parts, body) = response.into_parts();
    let kind = if body.is_end_stream() {
        Kind::Empty
    } else {
        Kind::H2(Box::new(Stream { body, deadline, timeouts, over: false, _lease: lease }))
    };
    Ok(Answer { status: parts.status, headers: parts.headers, kind, tunnel: None })
}

/// The client's body may be the cause: hyper wraps its error.
fn reason(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        match inner.downcast_ref::<BodyError>() {
            Some(BodyError::TooLarge) => return Failure::TooLarge,
            Some(BodyError::Client) => return Failure::Client,
            _ => source = inner.source(),
        }
    }
    Failure::Reset
}

/// A response's body.
pub(in crate::proxy) struct Stream {
    body: Incoming,
    deadline: Deadline,
    timeouts: Timeouts,
    over: bool,
    _lease: Lease,
}

impl Stream {
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.deadline.arm(self.timeouts.read);
            let failed = |_| BodyError::Upstream("the backend reset a response");
            self.over = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(failed)));
        }
        if self.deadline.over(cx) {
            return Poll::Ready(Some(Err(BodyError::Upstream("the backend was too slow within a response"))));
        }
        Poll::Pending
    }

    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
