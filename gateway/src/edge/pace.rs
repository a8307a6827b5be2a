//! How fast a client takes its answers. Who makes the gateway wait and takes too little meanwhile is cut off: it
//! holds a connection, a place among its tenant's requests in flight, and room in the tenant's worker.

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

/// What every answer begins with, whatever it is.
pub(super) const ANSWER_BEGINNING: &[u8] = b"HTTP/1.1 ";

/// A TCP or Unix connection.
pub(super) trait Socket: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + Sync {
    /// How many bytes the other end has taken, if the kernel says so. What the socket took says less: megabytes may
    /// still wait in it for a client that has become slow.
    fn acknowledged_bytes(&self) -> Option<u64>;

    /// Makes the kernel forget what it has not sent, once the socket is closed. It would keep it for minutes, for a
    /// client that does not want it.
    fn reset_on_close(&self);

    /// Whether there may be something to read, an end among it. The kernel is not asked: it tells of news.
    fn has_news(&self) -> bool;

    /// Writes what the kernel has room for now.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends when the kernel knows that the connection is broken: neither end has any use for it.
    fn broken(&self) -> impl Future<Output = ()> + Send;
}

impl Socket for TcpStream {
    fn acknowledged_bytes(&self) -> Option<u64> {
        // 0 until the first acknowledgement, which is true too. A kernel that does not count is an error here.
        get_tcp_info(self.as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked)
    }

    fn reset_on_close(&self) {
        // Without it the client only learns later that it was cut off.
        let _ = set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }

    fn has_news(&self) -> bool {
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

    fn has_news(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    async fn broken(&self) {
        let _ = self.ready(Interest::ERROR).await;
    }
}

/// A connection whose writes fail once the client is too slow.
#[derive(Debug)]
pub(super) struct Paced<S> {
    socket: S,
    read_bytes: u64,
    written_bytes: u64,
    /// How many bytes of the next answer the client has already ([`Paced::write_ahead`]). A session lends its stream only
    /// for reading, hence the atomic.
    ahead_bytes: AtomicUsize,
    /// From the first time that the client made the gateway wait. Most never do.
    window: Option<Box<Window>>,
    is_cut_off: bool,
}

/// The time that a client made the gateway wait, until it is an [`ANSWER_WINDOW`].
#[derive(Debug)]
struct Window {
    waiting_since: Option<Instant>,
    waited: Duration,
    taken_before: u64,
    end: Pin<Box<Sleep>>,
}

impl Window {
    fn new(taken_bytes: u64) -> Self {
        let end = Box::pin(tokio::time::sleep(ANSWER_WINDOW));
        Self { waiting_since: None, waited: Duration::ZERO, taken_before: taken_bytes, end }
    }

    fn wait(&mut self) {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            self.end.as_mut().reset(now + ANSWER_WINDOW.saturating_sub(self.waited));
        }
    }

    fn go_on(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }
}

impl<S: Socket> Paced<S> {
    pub(super) fn new(socket: S) -> Self {
        let ahead_bytes = AtomicUsize::new(0);
        Self { socket, read_bytes: 0, written_bytes: 0, ahead_bytes, window: None, is_cut_off: false }
    }

    /// How many bytes have been read of all that the client has sent.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Whether there may be something to read.
    pub(super) fn has_news(&self) -> bool {
        self.socket.has_news()
    }

    /// Ends when the connection is known to be broken.
    pub(super) async fn broken(&self) {
        self.socket.broken().await;
    }

    /// How many bytes of the next answer the client has already.
    pub(super) fn ahead_bytes(&self) -> usize {
        self.ahead_bytes.load(Ordering::Relaxed)
    }

    /// Sends the next byte of the answer that is still to come, of which the beginning is always the same. Nothing may
    /// have been written that is not flushed.
    pub(super) fn write_ahead(&self) -> io::Result<()> {
        let ahead_bytes = self.ahead_bytes();
        let Some(next) = ANSWER_BEGINNING.get(ahead_bytes..=ahead_bytes) else { return Ok(()) };
        match self.socket.write_now(next) {
            Ok(count) => self.ahead_bytes.store(ahead_bytes + count, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes the end of the connection a reset, so that the client knows that its answer is not whole.
    pub(super) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    fn taken_bytes(&self) -> u64 {
        self.socket.acknowledged_bytes().unwrap_or(self.written_bytes)
    }

    /// Waits for the client, as long as it has patience with it.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.window.take();
        let mut window = window.unwrap_or_else(|| Box::new(Window::new(self.taken_bytes())));
        window.wait();
        while window.end.as_mut().poll(cx).is_ready() {
            let taken_bytes = self.taken_bytes();
            if taken_bytes.saturating_sub(window.taken_before) < ANSWER_WINDOW_BYTES {
                self.is_cut_off = true;
                self.socket.reset_on_close();
                return Poll::Ready(too_slow());
            }
            *window = Window::new(taken_bytes);
            window.wait();
        }
        self.window = Some(window);
        Poll::Pending
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client takes its answer too slowly")
}

impl<S: Socket> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.read_bytes += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut_off {
            return Poll::Ready(Err(too_slow()));
        }
        let ahead_bytes = (*self.ahead_bytes.get_mut()).min(bytes.len());
        let rest = bytes.get(ahead_bytes..).unwrap_or_default();
        if rest.is_empty() {
            *self.ahead_bytes.get_mut() -= ahead_bytes;
            return Poll::Ready(Ok(ahead_bytes));
        }
        let Poll::Ready(written) = Pin::new(&mut self.socket).poll_write(cx, rest) else {
            return self.poll_patience(cx).map(Err);
        };
        if let Ok(count) = written {
            self.written_bytes += count as u64;
            *self.ahead_bytes.get_mut() = 0;
        }
        if let Some(window) = &mut self.window {
            window.go_on();
        }
        Poll::Ready(written.map(|count| ahead_bytes + count))
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

    /// The two ends of a socket that takes so many bytes, and what its client says to have of them.
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

        fn has_news(&self) -> bool {
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
    async fn write_for_half_a_window(paced: &mut Paced<Ends>) -> Option<io::ErrorKind> {
        let written = timeout(ANSWER_WINDOW / 2, paced.write_all(&ANSWER)).await;
        written.ok().map(|written| written.expect_err("there is no room for all of it").kind())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_counts_from_the_first_byte() {
        let taken = Arc::new(AtomicU64::new(0));
        let ends = Ends { acknowledged: Some(Arc::clone(&taken)), ..Ends::default() };
        // The socket takes far more than the client has acknowledged when it makes the gateway wait.
        ends.room.store(ANSWER.len() / 2, Ordering::Relaxed);
        let mut paced = Paced::new(ends.clone());
        assert_eq!(write_for_half_a_window(&mut paced).await, None);
        taken.fetch_add(ANSWER_WINDOW_BYTES, Ordering::Relaxed);
        assert_eq!(write_for_half_a_window(&mut paced).await, None);
        assert_eq!(write_for_half_a_window(&mut paced).await, None, "it took what it must");
        taken.fetch_add(ANSWER_WINDOW_BYTES - 1, Ordering::Relaxed);
        assert!(!ends.is_reset.load(Ordering::Relaxed));
        let later = [write_for_half_a_window(&mut paced).await, write_for_half_a_window(&mut paced).await];
        assert!(later.contains(&Some(io::ErrorKind::TimedOut)), "it took a byte less: {later:?}");
        assert!(ends.is_reset.load(Ordering::Relaxed));
    }

    /// Were it unknown, what is written would count for a while: far more than a client has taken by its first
    /// acknowledgement, so that it then seems to take nothing at all.
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
        let mut paced = Paced::new(ends.clone());
        let must = usize::try_from(ANSWER_WINDOW_BYTES).unwrap();
        assert_eq!(write_for_half_a_window(&mut paced).await, None);
        ends.room.store(must, Ordering::Relaxed);
        assert_eq!(write_for_half_a_window(&mut paced).await, None);
        assert_eq!(write_for_half_a_window(&mut paced).await, None, "it took what it must");
        ends.room.store(must - 1, Ordering::Relaxed);
        let later = [write_for_half_a_window(&mut paced).await, write_for_half_a_window(&mut paced).await];
        assert!(later.contains(&Some(io::ErrorKind::TimedOut)), "it took a byte less: {later:?}");
    }

    #[tokio::test]
    async fn an_answer_whose_beginning_is_sent_goes_on_where_that_ends() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        for (ahead, room_each) in [(0, 64), (1, 64), (4, 1), (4, 3), (9, 64), (12, 2)] {
            let ends = Ends::default();
            let mut paced = Paced::new(ends.clone());
            paced.write_ahead().unwrap();
            assert_eq!(paced.ahead_bytes(), 0, "there was no room");
            for _ in 0..ahead {
                ends.room.store(1, Ordering::Relaxed);
                paced.write_ahead().unwrap();
            }
            ends.room.store(usize::MAX, Ordering::Relaxed);
            assert_eq!(*ends.got.lock().unwrap(), ANSWER[..ahead.min(ANSWER_BEGINNING.len())]);
            for piece in ANSWER.chunks(room_each) {
                paced.write_all(piece).await.unwrap();
            }
            assert_eq!(*ends.got.lock().unwrap(), ANSWER, "{ahead} bytes ahead, then {room_each} at a time");
        }
    }
}
