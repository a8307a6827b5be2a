//! A client's connection as pingora takes it, with a small buffer for writing: a head and a short body leave
//! in one packet. (pingora's own listeners do the same, and keep the way to it to themselves.)

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};

use super::pace::{Paced, Socket};

/// Room for an answer's head and a short scroll. What is longer goes out past the buffer.
const WRITE_BUFFER_BYTES: usize = 2048;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    socket: BufWriter<Paced<S>>,
    fd: RawFd,
}

impl<S: Socket + AsRawFd> ClientStream<S> {
    /// Takes an accepted socket over.
    pub(super) fn new(socket: S) -> Self {
        let fd = socket.as_raw_fd();
        Self { socket: BufWriter::with_capacity(WRITE_BUFFER_BYTES, Paced::new(socket)), fd }
    }
}

impl<S: Socket> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: Socket> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: Socket> Shutdown for ClientStream<S> {
    async fn shutdown(&mut self) {
        // The client may have gone first.
        let _ = AsyncWriteExt::shutdown(&mut self.socket).await;
    }
}

impl<S: Socket> UniqueID for ClientStream<S> {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl<S: Socket> Ssl for ClientStream<S> {}

#[async_trait]
impl<S: Socket> Peek for ClientStream<S> {}

impl<S: Socket> GetTimingDigest for ClientStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S: Socket> GetProxyDigest for ClientStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S: Socket> GetSocketDigest for ClientStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
