//! The socket to a worker. Until the head of an answer is complete, it reads no more than the size limit of heads: pingora's
//! session alone would buffer a mebibyte per connection.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::protocols::Stream;
use pingora::protocols::l4::ext::get_tcp_info;
use rustix::net::sockopt::set_socket_linger;
use sq_shared::limits::ANSWER_HEAD_BYTES;
use tokio::net::TcpStream;

use crate::stream::{SocketStream, UNBOUNDED};

/// Wraps a worker's socket for pingora's session.
pub(super) fn stream(socket: TcpStream) -> Stream {
    let fd = socket.as_raw_fd();
    Box::new(SocketStream::new(socket, fd))
}

/// The next read starts the head of an answer.
pub(super) fn begin_head(stream: &Stream) {
    set_read_limit(stream, ANSWER_HEAD_BYTES);
}

/// The head is complete; after it, the reader limits what it reads.
pub(super) fn end_head(stream: &Stream) {
    set_read_limit(stream, UNBOUNDED);
}

/// Whether reading failed because the head was not complete after [`ANSWER_HEAD_BYTES`].
pub(super) fn has_exhausted_head(stream: &Stream) -> bool {
    worker_of(stream).is_some_and(|worker| worker.read_limit.load(Ordering::Relaxed) == 0)
}

/// Makes the kernel drop unsent bytes when the connection is closed. It would keep them for minutes, for a worker that does not
/// read them. A worker that has read everything sees an ordinary close.
pub(super) fn forget_unsent(stream: &Stream) {
    let Some(SocketStream { transport: socket, .. }) = worker_of(stream) else { return };
    if get_tcp_info(socket.as_raw_fd()).is_ok_and(|info| info.tcpi_notsent_bytes > 0) {
        // If this fails, the memory is only held for longer.
        let _ = set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
    }
}

fn set_read_limit(stream: &Stream, bytes: usize) {
    if let Some(worker) = worker_of(stream) {
        worker.read_limit.store(bytes, Ordering::Relaxed);
    }
}

fn worker_of(stream: &Stream) -> Option<&SocketStream<TcpStream>> {
    (**stream).as_any().downcast_ref()
}
