//! Several short buffers leave in one plain write: copying some hundred bytes costs a sixth of what writev(2) costs beyond send(2), which
//! is a thirtieth of a write on loopback. Longer ones go out as they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::AsyncWrite;

/// A response's head with a small body.
const SHORT: usize = 2048;

/// As `poll_write_vectored`: how many bytes of the buffers, taken in their order, were written.
pub(super) fn poll_write<W: AsyncWrite>(
    writer: Pin<&mut W>,
    cx: &mut Context<'_>,
    buffers: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if buffers.iter().map(|buffer| buffer.len()).sum::<usize>() > SHORT {
        return writer.poll_write_vectored(cx, buffers);
    }
    let mut together: SmallVec<[u8; SHORT]> = SmallVec::new();
    for buffer in buffers {
        together.extend_from_slice(buffer);
    }
    writer.poll_write(cx, &together)
}
