//! The socket to a worker. Until the head of an answer is complete, it reads no more than the size limit of heads: pingora's
//! session alone would buffer a mebibyte per connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use pingora::protocols::l4::ext::get_tcp_info;
use rustix::net::sockopt::set_socket_linger;
use sq_shared::limits::ANSWER_HEAD_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::stream::SocketStream;

/// Outside a head, the reader limits what it reads.
const UNBOUNDED: usize = usize::MAX;

#[derive(Debug)]
struct WorkerSocket {
    socket: TcpStream,
    /// How many more bytes may be read before the head is complete. Atomic, because a session lends its stream only by shared
    /// reference.
    head_bytes_left: AtomicUsize,
}

/// Wraps a worker's socket for pingora's session.
pub(super) fn stream(socket: TcpStream) -> Stream {
    let fd = socket.as_raw_fd();
    Box::new(SocketStream::new(WorkerSocket { socket, head_bytes_left: AtomicUsize::new(UNBOUNDED) }, fd))
}

/// The next read starts the head of an answer.
pub(super) fn begin_head(stream: &Stream) {
    set_head_bytes_left(stream, ANSWER_HEAD_BYTES);
}

/// The head is complete.
pub(super) fn end_head(stream: &Stream) {
    set_head_bytes_left(stream, UNBOUNDED);
}

/// Whether reading failed because the head was not complete after [`ANSWER_HEAD_BYTES`].
pub(super) fn has_exhausted_head(stream: &Stream) -> bool {
    worker_of(stream).is_some_and(|worker| worker.head_bytes_left.load(Ordering::Relaxed) == 0)
}

/// Makes the kernel drop unsent bytes when the connection is closed. It would keep them for minutes, for a worker that does not
/// read them. A worker that has read everything sees an ordinary close.
pub(super) fn forget_unsent(stream: &Stream) {
    let Some(WorkerSocket { socket, .. }) = worker_of(stream) else { return };
    if get_tcp_info(socket.as_raw_fd()).is_ok_and(|info| info.tcpi_notsent_bytes > 0) {
        // If this fails, the memory is only held for longer.
        let _ = set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
    }
}

fn set_head_bytes_left(stream: &Stream, bytes: usize) {
    if let Some(worker) = worker_of(stream) {
        worker.head_bytes_left.store(bytes, Ordering::Relaxed);
    }
}

fn worker_of(stream: &Stream) -> Option<&WorkerSocket> {
    (**stream).as_any().downcast_ref::<SocketStream<WorkerSocket>>().map(SocketStream::transport)
}

impl AsyncRead for WorkerSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = *self.head_bytes_left.get_mut();
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "head too large")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if left != UNBOUNDED {
            // One read may exceed the limit. The exchange counts to the byte.
            *self.head_bytes_left.get_mut() = left.saturating_sub(buffer.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WorkerSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
