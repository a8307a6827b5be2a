//! What a command answers, what the answer pins in memory, and why a command has no answer.

use bytes::Bytes;
use sq_shared::coordinate::Coordinate;

use crate::api::stream::Stream;
use crate::store::{Expected, Listing, Phext, Revision, StoreError};

#[derive(Debug)]
pub(crate) enum Outcome {
    Text(Bytes),
    Scroll {
        text: Bytes,
        /// XXH3-128 of the text: as 32 hexadecimal digits, what libphext's `checksum` gives.
        checksum: u128,
    },
    /// A write was applied.
    Written {
        /// One line.
        text: Bytes,
        /// The number of bytes in that line.
        bytes: u64,
        /// Whether this is the first answer again, to a repeated write.
        is_replay: bool,
        /// The checksum of the scroll after the write; unknown for a replay.
        checksum: Option<u128>,
    },
    Phext {
        text: Stream,
        /// The checksum of that file.
        checksum: u128,
    },
    /// Plain text that may be long.
    TextStream(Stream),
    Json(Stream),
    /// The list of all phexts, made with the store while the client reads it.
    Listing(Listing),
}

/// What an answer keeps in memory until the client has read it, beyond a few pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// The approximate size in bytes; 0 if small.
    pub(crate) bytes: u64,
    /// What is pinned. Several answers that pin the same part keep it only once.
    pub(crate) part: Option<PinnedPart>,
}

/// A revision of a phext, or of one scroll in it.
pub(crate) type PinnedPart = (Revision, Option<Coordinate>);

impl Pinned {
    pub(super) const NOTHING: Self = Self { bytes: 0, part: None };

    pub(super) fn phext(phext: &Phext) -> Self {
        Self { bytes: phext.file_bytes(), part: Some((phext.revision(), None)) }
    }
}

/// Why a valid command has no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer would be far larger than the request justifies.
    #[error("the answer would have {bytes} bytes")]
    AnswerTooLarge { bytes: u64 },
}

impl CommandError {
    pub(crate) fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::AnswerTooLarge { .. } => None,
        }
    }
}

impl Outcome {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// The checksum, if the client has this outcome cached.
    pub(crate) fn cached_checksum(&self, cached: Option<&Expected>) -> Option<u128> {
        let (checksum, is_empty) = match self {
            Self::Scroll { text, checksum } => (*checksum, text.is_empty()),
            Self::Phext { text, checksum } => (*checksum, text.left_bytes() == Some(0)),
            _ => return None,
        };
        cached?.is_met(is_empty, || checksum).then_some(checksum)
    }
}
