//! `limit-rate`: a body that is sent no faster than so many bytes a second. nginx's reckoning: what may be sent grows once a second, and the first
//! second's is there at once.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{Body, BodyError, Kind};
use crate::model::policy::SendRate;

pub(super) struct Paced {
    inner: Kind,
    rate: SendRate,
    began: Instant,
    sent: u64,
    /// What came and may not be sent yet.
    held: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
}

pub(super) fn pace(rate: SendRate, body: &mut Body) {
    if body.kind.is_over() {
        return;
    }
    let inner = std::mem::replace(&mut body.kind, Kind::Empty);
    let (began, held) = (Instant::now(), Bytes::new());
    body.kind = Kind::Paced(Box::new(Paced { inner, rate, began, sent: 0, held, pause: None }));
}

impl Paced {
    pub(super) fn is_over(&self) -> bool {
        self.held.is_empty() && self.inner.is_over()
    }

    pub(super) fn length(&self) -> SizeHint {
        let left = self.inner.length().exact();
        left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + self.held.len() as u64))
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.held.is_empty() {
                match ready!(self.inner.poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.held = data,
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    },
                    other => return Poll::Ready(other),
                }
                continue;
            }
            let seconds = self.began.elapsed().as_secs() + 1;
            let may = self.rate.rate.saturating_mul(seconds).saturating_add(self.rate.after).saturating_sub(self.sent);
            let take = usize::try_from(may).unwrap_or(usize::MAX).min(self.held.len());
            if take > 0 {
                self.sent += take as u64;
                return Poll::Ready(Some(Ok(Frame::data(self.held.split_to(take)))));
            }
            self.pause = Some(Box::pin(sleep_until(self.began + Duration::from_secs(seconds))));
        }
    }
}
