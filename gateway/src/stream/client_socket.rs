//! A client's socket, with a minimum rate at which the client must take its answers. A slower client is cut off: it holds a
//! connection, one of its tenant's requests in flight, and memory in the tenant's worker.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::l4::ext::get_tcp_info;
use rustix::net::sockopt::set_socket_linger;
use sq_shared::limits::{ANSWER_WINDOW, ANSWER_WINDOW_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

/// The first bytes of every answer.
const ANSWER_BEGINNING: &[u8] = b"HTTP/1.1 ";

pub(crate) trait Socket: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + Sync {
    /// How many bytes the client has acknowledged, if the kernel counts them. The bytes written say less: megabytes of
    /// them may still be queued in the socket for a client that has become slow.
    fn acknowledged_bytes(&self) -> Option<u64>;

    /// Makes the kernel drop unsent bytes when the socket is closed. It would keep them for minutes, for a client that
    /// does not read them.
    fn reset_on_close(&self);

    /// Whether there may be something to read, such as the end of the client's sending side. This costs no system call:
    /// the runtime has noted it.
    fn may_have_input(&self) -> bool;

    /// Writes what fits into the socket's send buffer now.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Completes when the kernel reports the connection broken in both directions.
    fn broken(&self) -> impl Future<Output = ()> + Send;
}

impl Socket for TcpStream {
    fn acknowledged_bytes(&self) -> Option<u64> {
        // 0 until the first acknowledgement. An error means that the kernel does not count.
        get_tcp_info(self.as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked)
    }

    fn reset_on_close(&self) {
        // If this fails, the client only learns later that it was cut off.
        let _ = set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }

    fn may_have_input(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    async fn broken(&self) {
        let _ = self.ready(Interest::ERROR).await;
    }
}

impl Socket for UnixStream {
    fn acknowledged_bytes(&self) -> Option<u64> {
        None
    }

    fn reset_on_close(&self) {}

    fn may_have_input(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    async fn broken(&self) {
        let _ = self.ready(Interest::ERROR).await;
    }
}

/// A socket whose writes fail once its client is too slow.
#[derive(Debug)]
pub(super) struct ClientSocket<S> {
    pub(super) socket: S,
    pub(super) bytes_read: u64,
    bytes_written: u64,
    /// How many bytes of the next answer were sent by [`ClientSocket::write_ahead`]. Atomic, because a session lends its
    /// stream only by shared reference.
    bytes_ahead: AtomicUsize,
    /// `None` until the client first makes the gateway wait, which most never do.
    window: Option<Box<Window>>,
    is_cut_off: bool,
}

/// Adds up the time that the client makes the gateway wait, to one [`ANSWER_WINDOW`].
#[derive(Debug)]
struct Window {
    waiting_since: Option<Instant>,
    waited: Duration,
    taken_at_start: u64,
    end: Pin<Box<Sleep>>,
}

impl Window {
    fn new(bytes_taken: u64) -> Self {
        let end = Box::pin(tokio::time::sleep(ANSWER_WINDOW));
        Self { waiting_since: None, waited: Duration::ZERO, taken_at_start: bytes_taken, end }
    }

    fn resume(&mut self) {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            self.end.as_mut().reset(now + ANSWER_WINDOW.saturating_sub(self.waited));
        }
    }

    fn pause(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }
}

impl<S: Socket> ClientSocket<S> {
    pub(super) fn new(socket: S) -> Self {
        let bytes_ahead = AtomicUsize::new(0);
        Self { socket, bytes_read: 0, bytes_written: 0, bytes_ahead, window: None, is_cut_off: false }
    }

    /// How many bytes of the next answer have already been sent.
    pub(super) fn bytes_ahead(&self) -> usize {
        self.bytes_ahead.load(Ordering::Relaxed)
    }

    /// Sends the next byte of [`ANSWER_BEGINNING`] before the answer itself is there. Everything written before must be
    /// flushed.
    pub(super) fn write_ahead(&self) -> io::Result<()> {
        let bytes_ahead = self.bytes_ahead();
        let Some(next) = ANSWER_BEGINNING.get(bytes_ahead..=bytes_ahead) else { return Ok(()) };
        match self.socket.write_now(next) {
            Ok(count) => self.bytes_ahead.store(bytes_ahead + count, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn bytes_taken(&self) -> u64 {
        self.socket.acknowledged_bytes().unwrap_or(self.bytes_written)
    }

    /// Waits for the client to take more, and fails once a window has passed in which it took too little.
    fn poll_minimum_rate(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.window.take();
        let mut window = window.unwrap_or_else(|| Box::new(Window::new(self.bytes_taken())));
        window.resume();
        while window.end.as_mut().poll(cx).is_ready() {
            let bytes_taken = self.bytes_taken();
            if bytes_taken.saturating_sub(window.taken_at_start) < ANSWER_WINDOW_BYTES {
                self.is_cut_off = true;
                self.socket.reset_on_close();
                return Poll::Ready(too_slow());
            }
            *window = Window::new(bytes_taken);
            window.resume();
        }
        self.window = Some(window);
        Poll::Pending
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "client reads its answer too slowly")
}

impl<S: Socket> AsyncRead for ClientSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.bytes_read += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for ClientSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut_off {
            return Poll::Ready(Err(too_slow()));
        }
        let bytes_ahead = (*self.bytes_ahead.get_mut()).min(bytes.len());
        let rest = bytes.get(bytes_ahead..).unwrap_or_default();
        if rest.is_empty() {
            *self.bytes_ahead.get_mut() -= bytes_ahead;
            return Poll::Ready(Ok(bytes_ahead));
        }
        let Poll::Ready(written) = Pin::new(&mut self.socket).poll_write(cx, rest) else {
            return self.poll_minimum_rate(cx).map(Err);
        };
        if let Ok(count) = written {
            self.bytes_written += count as u64;
            *self.bytes_ahead.get_mut() = 0;
        }
        if let Some(window) = &mut self.window {
            window.pause();
        }
        Poll::Ready(written.map(|count| bytes_ahead + count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::{Arc, LazyLock, Mutex};

    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;

    static ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; 1 << 20]);

    /// A socket with a send buffer of this size, and what its client has acknowledged.
    #[derive(Debug, Clone, Default)]
    struct Ends {
        room: Arc<AtomicUsize>,
        acknowledged: Option<Arc<AtomicU64>>,
        is_reset: Arc<AtomicBool>,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl Socket for Ends {
        fn acknowledged_bytes(&self) -> Option<u64> {
            self.acknowledged.as_ref().map(|bytes| bytes.load(Ordering::Relaxed))
        }

        fn reset_on_close(&self) {
            self.is_reset.store(true, Ordering::Relaxed);
        }

        fn may_have_input(&self) -> bool {
            false
        }

        fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.room.load(Ordering::Relaxed).min(bytes.len());
            self.room.fetch_sub(count, Ordering::Relaxed);
            self.got.lock().unwrap().extend_from_slice(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        async fn broken(&self) {
            std::future::pending().await
        }
    }

    impl AsyncRead for Ends {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Ends {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.write_now(bytes).map_or(Poll::Pending, |count| Poll::Ready(Ok(count)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes for half a window; the error with which it ended before.
    async fn write_for_half_a_window(client: &mut ClientSocket<Ends>) -> Option<io::ErrorKind> {
        let written = timeout(ANSWER_WINDOW / 2, client.write_all(&ANSWER)).await;
        written.ok().map(|written| written.expect_err("there is no room for all of it").kind())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_counts_from_the_first_byte() {
        let taken = Arc::new(AtomicU64::new(0));
        let ends = Ends { acknowledged: Some(Arc::clone(&taken)), ..Ends::default() };
        // The socket takes far more than the client has acknowledged when it makes the gateway wait.
        ends.room.store(ANSWER.len() / 2, Ordering::Relaxed);
        let mut client = ClientSocket::new(ends.clone());
        assert_eq!(write_for_half_a_window(&mut client).await, None);
        taken.fetch_add(ANSWER_WINDOW_BYTES, Ordering::Relaxed);
        assert_eq!(write_for_half_a_window(&mut client).await, None);
        assert_eq!(write_for_half_a_window(&mut client).await, None, "it took what it must");
        taken.fetch_add(ANSWER_WINDOW_BYTES - 1, Ordering::Relaxed);
        assert!(!ends.is_reset.load(Ordering::Relaxed));
        let later = [write_for_half_a_window(&mut client).await, write_for_half_a_window(&mut client).await];
        assert!(later.contains(&Some(io::ErrorKind::TimedOut)), "it took a byte less: {later:?}");
        assert!(ends.is_reset.load(Ordering::Relaxed));
    }

    /// If it were unknown, the bytes written would count at first: far more than a client has taken by its first
    /// acknowledgement, after which it would seem to take nothing.
    #[tokio::test]
    async fn before_the_first_acknowledgement_it_is_none_and_not_unknown() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert_eq!(socket.acknowledged_bytes(), Some(0));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_acknowledged_what_is_written_counts() {
        let ends = Ends::default();
        let mut client = ClientSocket::new(ends.clone());
        let must = usize::try_from(ANSWER_WINDOW_BYTES).unwrap();
        assert_eq!(write_for_half_a_window(&mut client).await, None);
        ends.room.store(must, Ordering::Relaxed);
        assert_eq!(write_for_half_a_window(&mut client).await, None);
        assert_eq!(write_for_half_a_window(&mut client).await, None, "it took what it must");
        ends.room.store(must - 1, Ordering::Relaxed);
        let later = [write_for_half_a_window(&mut client).await, write_for_half_a_window(&mut client).await];
        assert!(later.contains(&Some(io::ErrorKind::TimedOut)), "it took a byte less: {later:?}");
    }

    #[tokio::test]
    async fn an_answer_whose_beginning_is_sent_goes_on_where_that_ends() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        for (ahead, room_each) in [(0, 64), (1, 64), (4, 1), (4, 3), (9, 64), (12, 2)] {
            let ends = Ends::default();
            let mut client = ClientSocket::new(ends.clone());
            client.write_ahead().unwrap();
            assert_eq!(client.bytes_ahead(), 0, "there was no room");
            for _ in 0..ahead {
                ends.room.store(1, Ordering::Relaxed);
                client.write_ahead().unwrap();
            }
            ends.room.store(usize::MAX, Ordering::Relaxed);
            assert_eq!(*ends.got.lock().unwrap(), ANSWER[..ahead.min(ANSWER_BEGINNING.len())]);
            for piece in ANSWER.chunks(room_each) {
                client.write_all(piece).await.unwrap();
            }
            assert_eq!(*ends.got.lock().unwrap(), ANSWER, "{ahead} bytes ahead, then {room_each} at a time");
        }
    }
}
