//! Bytes from one socket to another within the kernel: splice(2) through a pipe, so that they are never copied to us. A way has a pipe while
//! something is in it and no buffer, so a connection that is idle costs two sockets and nothing else.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::deadline::Deadline;
use super::tunnel::both_ways;

/// What a pipe holds (pipe(7)); the kernel takes less of a larger wish.
const PIPE: usize = 64 * 1024;
/// Pipes that a worker keeps for the next that needs one.
const KEPT: usize = 32;
/// Rounds of one way before the other has its turn, and other connections theirs.
const TURNS: usize = 16;

thread_local! {
    /// Empty ones. A worker is a thread.
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> Result<Self> {
        if let Some(pipe) = FREE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }

    fn keep(self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(self);
            }
        });
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read before, and to be written first; so far `written` of it are.
    early: Vec<u8>,
    written: usize,
    /// With so many bytes in it: more than 0.
    full: Option<(Pipe, usize)>,
    read_closed: bool,
    over: bool,
    moved: u64,
}

/// Carries both ways until both sides have closed, one is broken, or nothing has passed for `idle`. `early` was read from the client before.
/// Returns how many bytes went to the backend, and how many to the client.
pub(super) async fn carry(
    client: &TcpStream,
    backend: &TcpStream,
    early: Vec<u8>,
    (deadline, idle): (&Deadline, Duration),
) -> (u64, u64) {
    let (mut up, mut down) = (Way { early, ..Way::default() }, Way::default());
    both_ways((deadline, Some(idle)), |cx| {
        let sent = up.poll(cx, client, backend);
        let received = down.poll(cx, backend, client);
        Some((sent, received, (up.moved, down.moved)))
    })
    .await;
    (up.moved, down.moved)
}

impl Way {
    fn poll(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) -> Poll<Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            while self.written < self.early.len() {
                ready!(to.poll_write_ready(cx))?;
                let count = match to.try_write(&self.early[self.written..]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    written => written?,
                };
                self.written += count;
                self.moved += count as u64;
            }
            self.early = Vec::new();
            self.written = 0;
            if self.full.is_some() {
                ready!(self.empty(cx, to))?;
            }
            if self.read_closed {
                // The other way stays open.
                SockRef::from(to).shutdown(Shutdown::Write)?;
                self.over = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.fill(cx, from))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<Result<()>> {
        ready!(from.poll_read_ready(cx))?;
        let pipe = Pipe::take()?;
        // It is empty, so whatever blocks is the socket.
        match from.try_io(Interest::READABLE, || between(from, &pipe.write, PIPE)) {
            Ok(0) => {
                self.read_closed = true;
                pipe.keep();
            }
            Ok(count) => self.full = Some((pipe, count)),
            Err(error) => {
                pipe.keep();
                if error.kind() != ErrorKind::WouldBlock {
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn empty(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<Result<()>> {
        while let Some((pipe, held)) = &mut self.full {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || between(&pipe.read, to, *held)) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    *held -= count;
                    self.moved += count as u64;
                    if *held == 0
                        && let Some((pipe, _)) = self.full.take()
                    {
                        pipe.keep();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn between(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> Result<usize> {
    splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE).map_err(Error::from)
}
