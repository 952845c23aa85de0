//! What an upgraded connection becomes: bytes copied both ways until both sides have closed, or nothing has passed for
//! the route's read limit. Knows nothing of what is spoken.

use std::future::poll_fn;
use std::io::Result;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::{Client, Order};
use super::deadline::Deadline;
use super::pools::Lease;
use super::upstream::h1::Connection;

const BUFFER: usize = 16 * 1024;

/// One direction.
struct Way {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    read_closed: bool,
    over: bool,
    unflushed: bool,
    moved: u64,
}

pub(super) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    client: &Rc<Client>,
    mut downstream: T,
    early: &Bytes,
    mut upstream: Box<Connection>,
    _lease: Lease,
) {
    let idle: Option<Duration> = client.tunnel_idle.get();
    let deadline = Deadline::new(&client.worker.deadlines);
    let mut up = Way::new(early);
    let mut down = Way::new(&upstream.read.split());
    // HTTP is over, so "finish" cannot be said in band: a tunnel lasts until the drain's time is over.
    both_ways((&deadline, idle), |cx| {
        if client.order(cx) == Order::Abort {
            return None;
        }
        let sent = up.poll(cx, &mut downstream, &mut upstream.io);
        let received = down.poll(cx, &mut upstream.io, &mut downstream);
        Some((sent, received, (up.moved, down.moved)))
    })
    .await;
    client.worker.counters.bytes_in.add(up.moved);
    client.worker.counters.bytes_out.add(down.moved);
}

/// Polls both ways until both are over, one is broken, nothing has moved for `idle`, or `poll` gives `None`. It tells how far each way is, and
/// how many bytes each has moved.
pub(super) async fn both_ways(
    (deadline, idle): (&Deadline, Option<Duration>),
    mut poll: impl FnMut(&mut Context<'_>) -> Option<(Poll<Result<()>>, Poll<Result<()>>, (u64, u64))>,
) {
    deadline.arm(idle);
    let mut before = (0, 0);
    poll_fn(|cx| {
        let Some((sent, received, moved)) = poll(cx) else { return Poll::Ready(()) };
        match (sent, received) {
            // Broken one way, or over both ways.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) | (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                return Poll::Ready(());
            }
            _ => {}
        }
        if moved != before {
            before = moved;
            deadline.arm(idle);
        }
        if deadline.over(cx) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Way {
    /// `early` was read before the tunnel began.
    fn new(early: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER.max(early.len())].into_boxed_slice();
        buffer[..early.len()].copy_from_slice(early);
        Self { buffer, start: 0, end: early.len(), read_closed: false, over: false, unflushed: false, moved: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.start < self.end {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]))?;
                if count == 0 {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                self.start += count;
                self.moved += count as u64;
                self.unflushed = true;
            }
            if self.read_closed {
                // A half-closed tunnel stays open the other way.
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.over = true;
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Ready(result) => {
                    result?;
                    self.start = 0;
                    self.end = read.filled().len();
                    self.read_closed = self.end == 0;
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
