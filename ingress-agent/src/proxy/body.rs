//! Bodies, both ways, as closed enums: no boxing, no dynamic dispatch on the way of a byte. They carry frames and know
//! nothing of routes; only the response's record of what was sent travels along, and is written when the body is dropped.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::coding::Coded;
use super::kept::Kept;
use super::pace::Paced;
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
    /// Frames were taken: the request cannot be sent a second time, unless [`Self::begin_again`] says so.
    pub(super) begun: bool,
    /// The next of the kept pieces.
    at: u32,
    kept: Option<Rc<Kept>>,
}

enum Source {
    Empty,
    Client(Incoming),
    Copy(mpsc::Receiver<Frame<Bytes>>),
    /// The kept pieces, so many bytes.
    Again(u64),
}

impl RequestBody {
    const fn new(source: Source, left: u64) -> Self {
        Self { source, left, copy: None, received: 0, begun: false, at: 0, kept: None }
    }

    pub(super) const fn empty() -> Self {
        Self::new(Source::Empty, u64::MAX)
    }

    pub(super) fn client(body: Incoming, most: Option<u64>) -> Self {
        let source = if body.is_end_stream() { Source::Empty } else { Source::Client(body) };
        Self::new(source, most.unwrap_or(u64::MAX))
    }

    /// A second body with the same frames, as long as its reader keeps pace.
    pub(super) fn mirrored(&mut self) -> Self {
        if matches!(self.source, Source::Empty) {
            return Self::empty();
        }
        let (sender, receiver) = mpsc::channel(64);
        self.copy = Some(sender);
        Self::new(Source::Copy(receiver), u64::MAX)
    }

    /// What is taken from now on is kept, if it is not too much.
    pub(super) fn keep(&mut self) {
        self.kept = Kept::new(self.length());
    }

    pub(super) fn kept(&self) -> Option<&Rc<Kept>> {
        self.kept.as_ref()
    }

    /// The same body, of which all was kept.
    pub(super) fn again(kept: &Rc<Kept>) -> Option<Self> {
        let mut body = Self::new(Source::Again(kept.whole()?), u64::MAX);
        body.kept = Some(Rc::clone(kept));
        Some(body)
    }

    /// From its first byte on, if nothing was taken or all of that was kept.
    pub(super) fn begin_again(&mut self) -> bool {
        if self.begun {
            if !self.kept.as_ref().is_some_and(|kept| kept.can_begin_again()) {
                return false;
            }
            (self.begun, self.at) = (false, 0);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    /// As announced by the client.
    pub(super) fn length(&self) -> Option<u64> {
        match (&self.source, &self.kept) {
            (Source::Empty, _) => Some(0),
            (Source::Again(bytes), _) => Some(*bytes),
            // hyper's own figure grows smaller.
            (Source::Client(_), Some(kept)) => kept.announced,
            (Source::Client(body), None) => body.size_hint().exact(),
            (Source::Copy(_), _) => None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.kept.as_ref().and_then(|kept| kept.piece(self.at)) {
            self.at += 1;
            self.begun = true;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let mut frame = match &mut self.source {
            Source::Empty | Source::Again(_) => return Poll::Ready(None),
            Source::Client(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Client))),
                None => {
                    if let Some(kept) = &self.kept {
                        kept.end();
                    }
                    return Poll::Ready(None);
                }
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
            if let Some(kept) = &self.kept {
                kept.keep(data);
                self.at = kept.count();
            }
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
            Source::Client(body) => body.is_end_stream() && self.kept.as_ref().is_none_or(|k| self.at >= k.count()),
            Source::Copy(_) | Source::Again(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Again(bytes) => SizeHint::with_exact(*bytes),
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
    /// Of an answer that has no body, but says how long that of another would be (304).
    Said(u64),
    Coded(Box<Coded>),
    Paced(Box<Paced>),
    /// It ended early; said once what came before is on its way.
    Broken,
}

impl Kind {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty | Self::Said(_) => Poll::Ready(None),
            Self::Coded(coded) => coded.poll_frame(cx),
            Self::Paced(paced) => paced.poll_frame(cx),
            Self::Broken => Poll::Ready(Some(Err(BodyError::Upstream("a response ended early")))),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::H1(exchange) => exchange.poll_frame(cx),
            Self::H2(stream) => stream.poll_frame(cx),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) | Self::Said(_) | Self::Coded(_) | Self::Broken => false,
            Self::Paced(paced) => paced.is_over(),
            Self::H1(exchange) => exchange.is_over(),
            Self::H2(stream) => stream.is_over(),
        }
    }

    pub(super) fn length(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Said(bytes) => SizeHint::with_exact(*bytes),
            Self::Coded(_) | Self::Broken => SizeHint::default(),
            Self::Paced(paced) => paced.length(),
            Self::H1(exchange) => exchange.size_hint(),
            Self::H2(stream) => stream.size_hint(),
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
            Some(Err(error)) if !matches!(this.kind, Kind::Broken) => {
                tracing::debug!(%error, "response body ended early");
                // hyper drops what it has not sent yet when it hears of it: the client may act on what came before.
                this.kind = Kind::Broken;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.kind.length()
    }
}
