//! The request's way out: its head as it stands in `connection.out`, then the body as it comes, framed by length or in chunks
//! (RFC 9112 §6). Never holds more than one piece of the body, and never reads from the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::Connection;
use crate::proxy::body::{BodyError, RequestBody};
use crate::proxy::small_write;

pub(super) struct Sending {
    pub(super) body: RequestBody,
    pub(super) chunked: bool,
    pub(super) left: u64,
    pub(super) written: usize,
    pub(super) chunk: Bytes,
    /// The line break after a chunk.
    pub(super) tail: &'static [u8],
    pub(super) complete: bool,
    pub(super) done: bool,
}

pub(super) enum SendError {
    Body(BodyError),
    Io(io::Error),
}

impl Sending {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Poll<Result<(), SendError>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut waiting = false;
            // A body that is there already travels with the head.
            if !self.complete && self.chunk.is_empty() && self.tail.is_empty() {
                match self.body.poll(cx) {
                    Poll::Ready(frame) => self.take(frame, &mut connection.out).map_err(SendError::Body)?,
                    Poll::Pending => waiting = true,
                }
            }
            while self.written < connection.out.len() || !self.chunk.is_empty() || !self.tail.is_empty() {
                let slices =
                    [IoSlice::new(&connection.out[self.written..]), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
                let used = if self.chunk.is_empty() && self.tail.is_empty() { 1 } else { 3 };
                let io = Pin::new(&mut connection.io);
                let count = if used == 1 {
                    ready!(io.poll_write(cx, &connection.out[self.written..]))
                } else {
                    ready!(small_write::poll_write(io, cx, &slices))
                };
                let count = count.map_err(SendError::Io)?;
                if count == 0 {
                    return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
                }
                self.advance(count, connection.out.len());
            }
            connection.out.clear();
            self.written = 0;
            if self.complete {
                ready!(Pin::new(&mut connection.io).poll_flush(cx)).map_err(SendError::Io)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if waiting {
                // What was written must leave the TLS buffers although more will follow.
                let _ = Pin::new(&mut connection.io).poll_flush(cx).map_err(SendError::Io)?;
                return Poll::Pending;
            }
        }
    }

    fn advance(&mut self, mut count: usize, head: usize) {
        let part = count.min(head - self.written);
        self.written += part;
        count -= part;
        let part = count.min(self.chunk.len());
        let _ = self.chunk.split_to(part);
        count -= part;
        self.tail = &self.tail[count..];
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>, out: &mut Vec<u8>) -> Result<(), BodyError> {
        use std::io::Write as _;
        match frame {
            None => {
                if self.chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                } else if self.left > 0 {
                    return Err(BodyError::Client);
                }
                self.complete = true;
            }
            Some(frame) => match frame?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    if self.chunked {
                        // Writing to a Vec cannot fail.
                        let _ = write!(out, "{:x}\r\n", data.len());
                        self.tail = b"\r\n";
                    } else {
                        self.left = self.left.checked_sub(data.len() as u64).ok_or(BodyError::Client)?;
                        self.complete = self.left == 0;
                    }
                    self.chunk = data;
                }
                Err(frame) => {
                    if let (true, Ok(trailers)) = (self.chunked, frame.into_trailers()) {
                        out.extend_from_slice(b"0\r\n");
                        for (name, value) in &trailers {
                            out.extend_from_slice(name.as_str().as_bytes());
                            out.extend_from_slice(b": ");
                            out.extend_from_slice(value.as_bytes());
                            out.extend_from_slice(b"\r\n");
                        }
                        out.extend_from_slice(b"\r\n");
                        self.complete = true;
                    }
                }
            },
        }
        Ok(())
    }
}
