//! The socket to a worker. Until the head of an answer is whole, it reads no more than heads may have: pingora's session alone
//! would take a mebibyte on each connection.

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

/// Outside a head, reads are bounded by those who read.
const UNBOUNDED: usize = usize::MAX;

/// A TCP connection to a worker.
#[derive(Debug)]
struct WorkerSocket {
    socket: TcpStream,
    /// How much more may be read until the head is whole. A session lends its stream only for reading, hence the atomic.
    head_room: AtomicUsize,
}

/// A worker's connection as sessions take it.
pub(super) fn stream(socket: TcpStream) -> Stream {
    let fd = socket.as_raw_fd();
    Box::new(SocketStream::new(WorkerSocket { socket, head_room: AtomicUsize::new(UNBOUNDED) }, fd))
}

/// What comes from now on is the head of an answer.
pub(super) fn begin_head(stream: &Stream) {
    set_head_room(stream, ANSWER_HEAD_BYTES);
}

/// The head is whole.
pub(super) fn end_head(stream: &Stream) {
    set_head_room(stream, UNBOUNDED);
}

/// Whether reading failed because the head was not whole after [`ANSWER_HEAD_BYTES`].
pub(super) fn has_used_up_head_room(stream: &Stream) -> bool {
    of(stream).is_some_and(|worker| worker.head_room.load(Ordering::Relaxed) == 0)
}

/// Makes the kernel forget what the worker has no room for, once the connection is closed: it would keep it for minutes. A
/// worker that has room sees an ordinary close.
pub(super) fn forget_unsent(stream: &Stream) {
    let Some(WorkerSocket { socket, .. }) = of(stream) else { return };
    if get_tcp_info(socket.as_raw_fd()).is_ok_and(|info| info.tcpi_notsent_bytes > 0) {
        // Without it the memory is only held for longer.
        let _ = set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
    }
}

fn set_head_room(stream: &Stream, bytes: usize) {
    if let Some(worker) = of(stream) {
        worker.head_room.store(bytes, Ordering::Relaxed);
    }
}

fn of(stream: &Stream) -> Option<&WorkerSocket> {
    (**stream).as_any().downcast_ref::<SocketStream<WorkerSocket>>().map(SocketStream::transport)
}

impl AsyncRead for WorkerSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = *self.head_room.get_mut();
        if room == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the head has no end")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if room != UNBOUNDED {
            // One read may bring more than there is room for; who parses it counts to the byte.
            *self.head_room.get_mut() = room.saturating_sub(buffer.filled().len() - before);
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
