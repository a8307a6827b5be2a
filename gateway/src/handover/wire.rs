//! What two gateways say to each other at a hand-over: a line of JSON at a time, each with the version of its form, and
//! with the first the descriptors (unix(7), `SCM_RIGHTS`).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::listen::{FileId, Role};

/// The form of what is said. A gateway that hears another number says so, and the old one serves on.
const VERSION: u32 = 1;

/// Most descriptors of an offer: twice as many as there are, for a version to come.
const MOST_SOCKETS: usize = 4;

/// Longest line: an offer has two addresses, of which a path takes 108 bytes at most.
const MOST_BYTES: usize = 4096;

/// The old process has these sockets, in the order of their descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    version: u32,
    pub(super) sockets: Vec<Offered>,
}

/// A socket of an offer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) role: Role,
    /// For whoever reads along; the descriptor itself says where it listens.
    pub(super) address: String,
    /// Of a socket file, which one.
    pub(super) file: Option<FileId>,
}

/// The new process serves, on these sockets of the offer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Accepted {
    version: u32,
    pub(super) taken: Vec<Role>,
}

/// The last word of the old process: whether the sockets are the other's now. Each way of going on is said; a silence
/// that ends is the end of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LastWord {
    version: u32,
    /// If not, this process serves on, and the other one leaves.
    pub(super) released: bool,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Default for Offer {
    fn default() -> Self {
        Self { version: VERSION, sockets: Vec::new() }
    }
}

impl Accepted {
    pub(super) fn of(taken: &[Role]) -> Self {
        Self { version: VERSION, taken: taken.to_owned() }
    }
}

impl LastWord {
    pub(super) fn of(released: bool) -> Self {
        Self { version: VERSION, released }
    }
}

/// Says something, and sends descriptors with it.
///
/// # Errors
/// The other side is gone.
pub(super) async fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    // The empty buffer of a connection takes a line whole.
    let sent = stream.async_io(Interest::WRITABLE, || send_once(stream.as_fd(), &line, descriptors)).await?;
    if sent == line.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

fn send_once(socket: BorrowedFd<'_>, line: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Waits for a line, and for the descriptors that come with it.
///
/// # Errors
/// The other side is gone, or speaks of something else.
pub(super) async fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    while !line.ends_with(b"\n") {
        let mut receive_more = || receive_once(stream.as_fd(), &mut line, &mut descriptors);
        if stream.async_io(Interest::READABLE, &mut receive_more).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.len() > MOST_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    let Versioned { version } = serde_json::from_slice(&line)?;
    if version != VERSION {
        let error =
            format!("it speaks version {version} of the hand-over, and this program version {VERSION}");
        return Err(io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok((serde_json::from_slice(&line)?, descriptors))
}

fn receive_once(
    socket: BorrowedFd<'_>,
    line: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut bytes = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    line.extend(bytes.iter().take(received));
    Ok(received)
}
