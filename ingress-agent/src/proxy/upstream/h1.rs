//! HTTP/1.1 to a backend, on a connection of this worker. The request's task drives the connection itself: no task, no
//! channel and no wake-up lies between a response's bytes and the client. hyper's client is not used here because each of
//! those cost more than the codec.

mod sending;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use sending::{SendError, Sending};

use super::Failure;
use super::io::UpstreamIo;
use super::response::{Chunks, Head, Length, Piece, parse};
use crate::model::route::Timeouts;
use crate::proxy::body::{BodyError, Kind, RequestBody};
use crate::proxy::deadline::Deadline;
use crate::proxy::pools::Lease;

/// Bytes asked of the kernel at once begin with [`Connection::READ_LEAST`] and grow to this while reads fill it.
const READ_MOST: usize = 128 * 1024;

pub(in crate::proxy) struct Connection {
    pub(in crate::proxy) io: UpstreamIo,
    pub(in crate::proxy) read: BytesMut,
    /// The request's head and the framing of its chunks.
    pub(in crate::proxy) out: Vec<u8>,
    read_size: usize,
    pub(in crate::proxy) requests: u32,
    pub(in crate::proxy) idle_since: Instant,
    /// When it was opened.
    pub(in crate::proxy) since: Instant,
}

impl Connection {
    pub(in crate::proxy) const READ_LEAST: usize = 8 * 1024;

    pub(super) fn new(io: UpstreamIo) -> Self {
        let now = Instant::now();
        Self {
            io,
            read: BytesMut::new(),
            out: Vec::with_capacity(1024),
            read_size: Self::READ_LEAST,
            requests: 0,
            idle_since: now,
            since: now,
        }
    }

    /// For the sweep of idle connections, which also ends a burst.
    pub(in crate::proxy) fn looks_closed(&mut self) -> bool {
        self.read_size = Self::READ_LEAST;
        self.io.peer_closed()
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.io.peer_closed()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.read_size);
        let spare = self.read.spare_capacity_mut();
        let room = spare.len();
        let mut buffer = ReadBuf::uninit(spare);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        // SAFETY: `poll_read` has initialised the first `count` bytes of the spare capacity, which follow the length.
        unsafe { self.read.set_len(self.read.len() + count) };
        if count == room {
            self.read_size = (self.read_size * 2).min(READ_MOST);
        }
        Poll::Ready(Ok(count))
    }
}

/// One request and its response on one connection.
pub(in crate::proxy) struct Exchange {
    /// `None` once the connection was given back or taken away for a tunnel.
    connection: Option<Box<Connection>>,
    sending: Sending,
    receiving: Receiving,
    keep_alive: bool,
    deadline: Deadline,
    timeouts: Timeouts,
    lease: Lease,
}

enum Receiving {
    Head,
    Exactly(u64),
    Chunked(Chunks),
    UntilClose,
    Over,
}

/// What a failed attempt leaves behind for the next one.
pub(in crate::proxy) struct Failed {
    pub(in crate::proxy) failure: Failure,
    pub(in crate::proxy) body: RequestBody,
    pub(in crate::proxy) deadline: Deadline,
}

impl Exchange {
    /// The request's head stands in `connection.out`.
    pub(super) fn new(
        connection: Box<Connection>,
        body: RequestBody,
        deadline: Deadline,
        timeouts: Timeouts,
        lease: Lease,
    ) -> Self {
        let length = body.length();
        let complete = body.is_empty();
        Self {
            connection: Some(connection),
            sending: Sending {
                chunked: length.is_none(),
                left: length.unwrap_or(0),
                body,
                written: 0,
                chunk: Bytes::new(),
                tail: b"",
                complete,
                done: false,
            },
            receiving: Receiving::Head,
            keep_alive: false,
            deadline,
            timeouts,
            lease,
        }
    }

    /// Sends and waits for the head of the final response. Interim responses are dropped: hyper cannot forward them, and
    /// `100 Continue` was given by us (RFC 9110 §15.2 lets a proxy that asked for none drop them).
    pub(super) async fn head(mut self, method: &Method) -> Result<(Head, Self), Failed> {
        self.deadline.arm(self.timeouts.send);
        let mut armed_read = false;
        let result = std::future::poll_fn(|cx| self.poll_head(cx, method, &mut armed_read)).await;
        match result {
            Ok(head) => Ok((head, self)),
            Err(failure) => Err(Failed { failure, body: self.sending.body, deadline: self.deadline }),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        armed_read: &mut bool,
    ) -> Poll<Result<Head, Failure>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Failure::Reset)) };
        let mut broken = None;
        match self.sending.poll(cx, connection) {
            Poll::Ready(Ok(())) => {
                if !*armed_read {
                    *armed_read = true;
                    self.deadline.arm(self.timeouts.read);
                }
            }
            Poll::Ready(Err(SendError::Body(error))) => {
                return Poll::Ready(Err(match error {
                    BodyError::TooLarge => Failure::TooLarge,
                    BodyError::Client | BodyError::Upstream(_) => Failure::Client,
                }));
            }
            // The backend may have answered before it closed (an early 413): look for that first.
            Poll::Ready(Err(SendError::Io(error))) => broken = Some(error),
            Poll::Pending => {}
        }
        loop {
            if !connection.read.is_empty() {
                match parse(&mut connection.read, method) {
                    Ok(Some(head))
                        if head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS =>
                    {
                        continue;
                    }
                    Ok(Some(head)) => {
                        self.receiving = match head.length {
                            Length::Exactly(0) => Receiving::Over,
                            Length::Exactly(size) => Receiving::Exactly(size),
                            Length::Chunked => Receiving::Chunked(Chunks::Size),
                            Length::UntilClose => Receiving::UntilClose,
                        };
                        self.keep_alive = head.keep_alive && broken.is_none();
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                    Err(refused) => return Poll::Ready(Err(Failure::BadResponse(refused.0))),
                }
            }
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    let partial = !connection.read.is_empty();
                    return Poll::Ready(Err(if partial {
                        Failure::BadResponse("the response ended within its head")
                    } else {
                        Failure::Reset
                    }));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Reset)),
                Poll::Pending if broken.is_some() => return Poll::Ready(Err(Failure::Reset)),
                Poll::Pending => break,
            }
        }
        if self.deadline.over(cx) {
            return Poll::Ready(Err(if self.deadline.total_over() {
                Failure::RequestTimeout
            } else if self.sending.done {
                Failure::ReadTimeout
            } else {
                Failure::SendTimeout
            }));
        }
        Poll::Pending
    }

    /// The response's body. Where all of it has come with the head, the connection goes back to the pool at once.
    pub(super) fn into_body(mut self) -> Kind {
        match &mut self.receiving {
            Receiving::Over => {
                self.finish();
                return Kind::Empty;
            }
            Receiving::Exactly(size) if self.sending.done => {
                if let Some(connection) = &mut self.connection
                    && connection.read.len() as u64 >= *size
                {
                    let whole = connection.read.split_to(*size as usize).freeze();
                    self.receiving = Receiving::Over;
                    self.finish();
                    return Kind::Full(whole);
                }
            }
            _ => {}
        }
        self.deadline.arm(self.timeouts.read);
        Kind::H1(Box::new(self))
    }

    /// For a tunnel: the connection with what was read beyond the head, and the lease that keeps counting it.
    pub(super) fn into_tunnel(self) -> Option<(Box<Connection>, Lease)> {
        Some((self.connection?, self.lease))
    }

    pub(in crate::proxy) fn is_over(&self) -> bool {
        matches!(self.receiving, Receiving::Over)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.receiving {
            Receiving::Exactly(left) => SizeHint::with_exact(left),
            Receiving::Over => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if !self.sending.done
            && let Poll::Ready(Err(_)) = self.sending.poll(cx, connection)
        {
            // The response may still be whole; only the connection is spoilt.
            self.keep_alive = false;
            self.sending.done = true;
        }
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            let frame = match &mut self.receiving {
                Receiving::Head | Receiving::Over => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Receiving::Exactly(left) if !connection.read.is_empty() => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(connection.read.len());
                    *left -= take as u64;
                    let over = *left == 0;
                    let data = connection.read.split_to(take).freeze();
                    if over {
                        self.receiving = Receiving::Over;
                        self.finish();
                    }
                    Some(Frame::data(data))
                }
                Receiving::UntilClose if !connection.read.is_empty() => {
                    Some(Frame::data(connection.read.split().freeze()))
                }
                Receiving::Chunked(chunks) => match chunks.next(&mut connection.read) {
                    Ok(Piece::Data(data)) => Some(Frame::data(data)),
                    Ok(Piece::End(trailers)) => {
                        self.receiving = Receiving::Over;
                        self.finish();
                        match trailers {
                            Some(trailers) => Some(Frame::trailers(trailers)),
                            None => return Poll::Ready(None),
                        }
                    }
                    Ok(Piece::More) => None,
                    Err(refused) => return Poll::Ready(Some(Err(BodyError::Upstream(refused.0)))),
                },
                Receiving::Exactly(_) | Receiving::UntilClose => None,
            };
            if let Some(frame) = frame {
                self.deadline.renew(self.timeouts.read);
                return Poll::Ready(Some(Ok(frame)));
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) if matches!(self.receiving, Receiving::UntilClose) => {
                    self.receiving = Receiving::Over;
                    self.keep_alive = false;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    return Poll::Ready(Some(Err(BodyError::Upstream("the backend closed within a response"))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if self.deadline.over(cx) => {
                    return Poll::Ready(Some(Err(BodyError::Upstream("the backend was too slow within a response"))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The response is complete: keep the connection if nothing speaks against it.
    fn finish(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.keep_alive && self.sending.done && connection.read.is_empty() {
            connection.requests += 1;
            connection.idle_since = self.deadline.instant();
            self.lease.0.keep_idle(connection);
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.sending.body.received
    }
}
