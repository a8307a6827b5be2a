//! The body of an answer: whole, or made piece by piece as the client reads it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::api::stream::Stream;
use crate::server::activity::Busy;
use crate::server::listing::ListingBody;
use crate::server::memory_budget::Reservation;

/// Where the bytes of an answer come from.
pub(super) enum Content {
    Whole(Bytes),
    Stream(Stream),
    Listing(ListingBody),
}

impl Content {
    /// The length in bytes, if known.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Stream(stream) => stream.left_bytes(),
            Self::Listing(_) => None,
        }
    }
}

/// Held until an answer is written or its connection has failed.
struct Held {
    _memory: Arc<Reservation>,
    _busy: Busy,
}

/// Some bytes of an answer. hyper drops the body once it has read it all, but these only once the kernel has them.
struct HeldBytes {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) struct AnswerBody {
    content: Content,
    held: Arc<Held>,
}

impl AnswerBody {
    pub(super) fn new(content: Content, memory: Arc<Reservation>, busy: Busy) -> Self {
        Self { content, held: Arc::new(Held { _memory: memory, _busy: busy }) }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        let bytes = match &mut body.content {
            Content::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            Content::Stream(stream) => stream.next_piece().map(Ok),
            Content::Listing(listing) => ready!(listing.poll_piece(context)),
        };
        let held = |bytes| Bytes::from_owner(HeldBytes { bytes, _held: Arc::clone(&body.held) });
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(held(bytes?)))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Stream(stream) => stream.is_taken(),
            Content::Listing(listing) => listing.is_taken(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.content.bytes().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
