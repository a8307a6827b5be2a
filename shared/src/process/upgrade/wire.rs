//! A connection of an upgrade. A message is a line of JSON, with descriptors beside its first bytes (unix(7), `SCM_RIGHTS`).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The most descriptors that one call sends: `SCM_MAX_FD` of the kernel, unix(7).
const DESCRIPTORS_PER_CALL: usize = 253;

/// Longest line: 500 workers, each with a path as long as the system takes, with every byte escaped.
const LINE_BYTES: usize = 16 << 20;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection to the other process.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// What came behind the last line, and the descriptors beside it.
    unread: (Vec<u8>, Vec<OwnedFd>),
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Default::default() }
    }

    /// Sends a message. Its line must have more bytes than the descriptors need calls: each call takes one.
    ///
    /// # Errors
    /// The other process has closed the connection, or no longer reads.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        for batch in descriptors.chunks(DESCRIPTORS_PER_CALL) {
            let (first, behind) = rest.split_at_checked(1).ok_or(ErrorKind::InvalidInput)?;
            self.send_once(first, batch).await?;
            rest = behind;
        }
        while !rest.is_empty() {
            let sent = self.send_once(rest, &[]).await?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    async fn send_once(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_CALL))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(ErrorKind::InvalidInput.into());
            }
            Ok(sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.stream.async_io(Interest::WRITABLE, send).await
    }

    /// Waits for a message: its line, and the descriptors. May be given up and called again.
    ///
    /// # Errors
    /// The connection ends before the line does, or this process may not have so many descriptors.
    pub(super) async fn receive(&mut self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let Self { stream, unread } = self;
        loop {
            let (bytes, descriptors) = &mut *unread;
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let behind = bytes.split_off(end + 1);
                return Ok((std::mem::replace(bytes, behind), std::mem::take(descriptors)));
            }
            if bytes.len() > LINE_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
            let receive = || receive_once(stream.as_fd(), bytes, descriptors);
            if stream.async_io(Interest::READABLE, receive).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Receives nothing more than what has come already. What the other process sends later fails there.
    pub(super) fn stop_receiving(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Read)?)
    }
}

fn receive_once(
    socket: BorrowedFd<'_>,
    line: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut bytes = vec![0; READ_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_CALL))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("too many descriptors for this process: raise its limit of open files"));
    }
    line.extend(bytes.iter().take(received.bytes));
    Ok(received.bytes)
}
