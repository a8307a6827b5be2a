//! The stream below pingora's sessions, for clients and workers. (pingora's own streams read the clock at each write, and
//! have a read buffer of 64 KiB each.)

pub(crate) mod client;
mod client_socket;
pub(crate) mod idle;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What a [`SocketStream`] reads from and writes to.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Debug + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Debug + Unpin + Send + Sync> Transport for T {}

/// A connection as pingora's sessions take it.
#[derive(Debug)]
pub(crate) struct SocketStream<T> {
    pub(crate) transport: T,
    fd: RawFd,
    /// How many more bytes may be read, if not [`UNBOUNDED`]; one read may exceed it. Atomic, because a session lends its stream only
    /// by shared reference.
    pub(crate) read_limit: AtomicUsize,
}

/// No limit of what is read.
pub(crate) const UNBOUNDED: usize = usize::MAX;

impl<T: Transport> SocketStream<T> {
    pub(crate) fn new(transport: T, fd: RawFd) -> Self {
        Self { transport, fd, read_limit: AtomicUsize::new(UNBOUNDED) }
    }
}

impl<T: Transport> AsyncRead for SocketStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let limit = *self.read_limit.get_mut();
        if limit == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "head too large")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        if limit != UNBOUNDED {
            *self.read_limit.get_mut() = limit.saturating_sub(buffer.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for SocketStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

#[async_trait]
impl<T: Transport> Shutdown for SocketStream<T> {
    async fn shutdown(&mut self) {
        // The other end may have gone first.
        let _ = AsyncWriteExt::shutdown(&mut self.transport).await;
    }
}

impl<T: Transport> UniqueID for SocketStream<T> {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl<T: Transport> Ssl for SocketStream<T> {}

#[async_trait]
impl<T: Transport> Peek for SocketStream<T> {}

impl<T: Transport> GetTimingDigest for SocketStream<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for SocketStream<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<T: Transport> GetSocketDigest for SocketStream<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
