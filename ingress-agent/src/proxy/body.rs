//! Bodies, both ways, as closed enums: no boxing, no dynamic dispatch on the way of a byte. They carry frames and know
//! nothing of routes; only the response's record of what was sent travels along, and is written when the body is dropped.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::record::Record;
use super::upstream::h1::Exchange;
use super::upstream::h2::Stream;

/// Why a body ended early.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client's side: gone, or it broke the framing.
    Client,
    /// Longer than the route allows.
    TooLarge,
    /// The backend's side.
    Upstream(&'static str),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("the client's body ended early"),
            Self::TooLarge => f.write_str("the request's body is too large"),
            Self::Upstream(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BodyError {}

/// RFC 9110 §6.5.1: trailers must not frame, route or authenticate; these are dropped instead of merged by somebody else.
pub(super) fn sanitise(trailers: &mut HeaderMap) {
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::EXPECT,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
    ] {
        trailers.remove(name);
    }
}

/// What goes to a backend.
pub(super) struct RequestBody {
    source: Source,
    /// Bytes that may still come.
    left: u64,
    /// A mirror's copy, given up when it cannot keep pace.
    copy: Option<mpsc::Sender<Frame<Bytes>>>,
    pub(super) received: u64,
    /// Frames were taken: the request cannot be sent a second time.
    pub(super) begun: bool,
}

enum Source {
    Empty,
    Client(Incoming),
    Copy(mpsc::Receiver<Frame<Bytes>>),
}

impl RequestBody {
    pub(super) const fn empty() -> Self {
        Self { source: Source::Empty, left: u64::MAX, copy: None, received: 0, begun: false }
    }

    pub(super) fn client(body: Incoming, most: Option<u64>) -> Self {
        let source = if body.is_end_stream() { Source::Empty } else { Source::Client(body) };
        Self { source, left: most.unwrap_or(u64::MAX), copy: None, received: 0, begun: false }
    }

    /// A second body with the same frames, as long as its reader keeps pace.
    pub(super) fn mirrored(&mut self) -> Self {
        if matches!(self.source, Source::Empty) {
            return Self::empty();
        }
        let (sender, receiver) = mpsc::channel(64);
        self.copy = Some(sender);
        Self { source: Source::Copy(receiver), left: u64::MAX, copy: None, received: 0, begun: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    /// As announced by the client.
    pub(super) fn length(&self) -> Option<u64> {
        match &self.source {
            Source::Empty => Some(0),
            Source::Client(body) => body.size_hint().exact(),
            Source::Copy(_) => None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = match &mut self.source {
            Source::Empty => return Poll::Ready(None),
            Source::Client(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Client))),
                None => return Poll::Ready(None),
            },
            Source::Copy(receiver) => match ready!(receiver.poll_recv(cx)) {
                Some(frame) => frame,
                None => return Poll::Ready(None),
            },
        };
        self.begun = true;
        if let Some(trailers) = frame.trailers_mut() {
            sanitise(trailers);
        }
        if let Some(data) = frame.data_ref() {
            let size = data.len() as u64;
            if size > self.left {
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
            self.left -= size;
            self.received += size;
        }
        if let Some(copy) = &self.copy {
            let second = match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => Some(Frame::data(data.clone())),
                (None, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
                (None, None) => None,
            };
            if second.is_some_and(|second| copy.try_send(second).is_err()) {
                self.copy = None;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// For hyper's HTTP/2 client.
impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Client(body) => body.is_end_stream(),
            Source::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Client(body) => body.size_hint(),
            Source::Copy(_) => SizeHint::default(),
        }
    }
}

/// What goes to the client.
pub(super) struct Body {
    pub(super) kind: Kind,
    pub(super) record: Record,
}

pub(super) enum Kind {
    Empty,
    Full(Bytes),
    H1(Box<Exchange>),
    H2(Box<Stream>),
}

impl Kind {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::H1(exchange) => exchange.poll_frame(cx),
            Self::H2(stream) => stream.poll_frame(cx),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        this.record.asked();
        let frame = ready!(this.kind.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.record.gave(data.len());
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "response body ended early"),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::H1(exchange) => exchange.is_over(),
            Kind::H2(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::H1(exchange) => exchange.size_hint(),
            Kind::H2(stream) => stream.size_hint(),
        }
    }
}
