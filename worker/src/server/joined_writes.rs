//! A connection that writes a short answer in one piece. hyper passes head and body as two, which costs the kernel more
//! than a copy. (hyper's own option, `writev(false)`, copies long bodies too.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Enough for a usual head, of some 300 bytes, and a short scroll. Copying more would cost as much as it saves.
const JOINED_BYTES: usize = 2048;

/// A connection. It buffers nothing: what the kernel does not accept, hyper writes again.
#[derive(Debug)]
pub(super) struct JoinedWrites<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for JoinedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for JoinedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.0);
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        match pieces {
            [piece] => socket.poll_write(cx, piece),
            _ if bytes > JOINED_BYTES => socket.poll_write_vectored(cx, pieces),
            _ => {
                let mut joined = Vec::with_capacity(bytes);
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                socket.poll_write(cx, &joined)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Accepts up to `takes_bytes` per write, and records the number of pieces.
    struct Socket {
        takes_bytes: usize,
        pieces: Vec<usize>,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.pieces.push(pieces.len());
            let offered: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let count = offered.len().min(self.takes_bytes);
            self.taken.extend_from_slice(&offered[..count]);
            Poll::Ready(Ok(count))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn written(head: &[u8], body: &[u8], takes_bytes: usize) -> (usize, Socket) {
        let mut socket = JoinedWrites(Socket { takes_bytes, pieces: Vec::new(), taken: Vec::new() });
        let count = socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await.unwrap();
        (count, socket.0)
    }

    #[tokio::test]
    async fn a_short_answer_is_written_in_one_piece() {
        for (body_bytes, pieces) in [(0, 1), (40, 1), (JOINED_BYTES - 4, 1), (JOINED_BYTES - 3, 2)] {
            let (count, socket) = written(b"head", &vec![b'x'; body_bytes], usize::MAX).await;
            assert_eq!((count, socket.pieces), (4 + body_bytes, vec![pieces]));
            assert_eq!(socket.taken, [b"head".as_slice(), &vec![b'x'; body_bytes]].concat());
        }
    }

    #[tokio::test]
    async fn bytes_that_the_kernel_refuses_are_not_buffered() {
        for body_bytes in [40, JOINED_BYTES] {
            let (count, socket) = written(b"head", &vec![b'x'; body_bytes], 6).await;
            assert_eq!((count, socket.taken.as_slice()), (6, b"headxx".as_slice()));
        }
    }
}
