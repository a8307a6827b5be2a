//! Long answers, made from a snapshot piece by piece while the client reads them.

use std::fmt::Debug;
use std::io::Write;

use bytes::Bytes;
use sq_shared::coordinate::Coordinate;

use crate::store::{Fragments, Joined, Scroll};

/// The approximate size of a piece. A shorter answer is made whole.
const PIECE_BYTES: usize = 64 * 1024;

/// A source of an answer's bytes.
pub(crate) trait Pieces: Debug + Send {
    /// Appends bytes until there are about `limit`; returns whether there may be more.
    fn fill(&mut self, piece: &mut Vec<u8>, limit: usize) -> bool;
}

/// An answer that is being made.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The first piece, until it is taken.
    first: Option<Bytes>,
    pieces: Box<dyn Pieces>,
    is_over: bool,
    /// How many bytes are still to be taken, if known.
    left_bytes: Option<u64>,
}

impl Stream {
    /// Makes the first piece. `exact_bytes` is the length of the answer, if known.
    pub(crate) fn new(pieces: impl Pieces + 'static, exact_bytes: Option<u64>) -> Self {
        let mut pieces = Box::new(pieces);
        let mut first = Vec::new();
        let is_over = !pieces.fill(&mut first, PIECE_BYTES);
        Self { first: Some(first.into()), pieces, is_over, left_bytes: exact_bytes }
    }

    /// All of it, if the first piece is.
    pub(crate) fn into_whole(self) -> Result<Bytes, Self> {
        if self.is_over { Ok(self.first.unwrap_or_default()) } else { Err(self) }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let mut piece = self.first.take().unwrap_or_default();
        while piece.is_empty() && !self.is_over {
            let mut bytes = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
            self.is_over = !self.pieces.fill(&mut bytes, PIECE_BYTES);
            piece = bytes.into();
        }
        self.left_bytes = self.left_bytes.map(|left| left.saturating_sub(piece.len() as u64));
        Some(piece).filter(|piece| !piece.is_empty())
    }

    /// Whether every piece was taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_over && self.first.is_none()
    }

    /// How many bytes are still to be taken, if known.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        self.left_bytes
    }
}

impl<S: Iterator<Item = (Coordinate, Scroll)> + Debug + Send> Pieces for Joined<S> {
    fn fill(&mut self, piece: &mut Vec<u8>, limit: usize) -> bool {
        Self::fill(self, piece, limit)
    }
}

/// Scrolls as a JSON array of objects with a coordinate and a text.
#[derive(Debug)]
pub(super) struct JsonRows<S> {
    scrolls: S,
    coordinate_field: &'static str,
    /// The byte before the next row.
    separator: u8,
    fragments: Option<Fragments>,
    /// A fragment as a JSON string, with its quotes.
    quoted: Vec<u8>,
}

impl<S: Iterator<Item = (Coordinate, Scroll)>> JsonRows<S> {
    pub(super) fn new(scrolls: S, coordinate_field: &'static str) -> Self {
        Self { scrolls, coordinate_field, separator: b'[', fragments: None, quoted: Vec::new() }
    }

    fn escape(&mut self, piece: &mut Vec<u8>) -> bool {
        let Some(text) = self.fragments.as_mut().and_then(Fragments::next_fragment) else { return false };
        self.quoted.clear();
        // Never fails: a text always serialises, and the writer is in memory.
        let _ = serde_json::to_writer(&mut self.quoted, text);
        let end = self.quoted.len().saturating_sub(1);
        piece.extend_from_slice(self.quoted.get(1..end).unwrap_or_default());
        true
    }
}

impl<S: Iterator<Item = (Coordinate, Scroll)> + Debug + Send> Pieces for JsonRows<S> {
    fn fill(&mut self, piece: &mut Vec<u8>, limit: usize) -> bool {
        while piece.len() < limit {
            if self.escape(piece) {
                continue;
            }
            if self.fragments.take().is_some() {
                piece.extend_from_slice(b"\"}");
            } else if let Some((at, scroll)) = self.scrolls.next() {
                piece.push(self.separator);
                self.separator = b',';
                // Writing to a buffer in memory cannot fail.
                let _ = write!(piece, "{{\"{}\":\"{at}\",\"scroll\":\"", self.coordinate_field);
                self.fragments = Some(scroll.fragments());
            } else {
                piece.extend_from_slice(if self.separator == b'[' { b"[]" } else { b"]" });
                return false;
            }
        }
        true
    }
}

/// One line per scroll: its coordinate and the first line of its text.
#[derive(Debug)]
pub(super) struct Lines<S> {
    scrolls: S,
    fragments: Option<Fragments>,
    is_empty: bool,
}

impl<S> Lines<S> {
    pub(super) fn new(scrolls: S) -> Self {
        Self { scrolls, fragments: None, is_empty: true }
    }

    fn begin(&mut self, at: &Coordinate, scroll: Scroll, piece: &mut Vec<u8>) {
        // Writing to a buffer in memory cannot fail.
        let _ = write!(piece, "* {at}: ");
        self.fragments = Some(scroll.fragments());
        self.is_empty = false;
    }
}

impl<S: Iterator<Item = (Coordinate, Scroll)> + Debug + Send> Pieces for Lines<S> {
    fn fill(&mut self, piece: &mut Vec<u8>, limit: usize) -> bool {
        while piece.len() < limit {
            if let Some(fragments) = &mut self.fragments {
                let fragment = fragments.next_fragment().unwrap_or_default();
                match fragment.split_once('\n') {
                    Some((line, _)) => {
                        piece.extend_from_slice(line.as_bytes());
                        piece.extend_from_slice(b"...\n");
                        self.fragments = None;
                    }
                    None if fragment.is_empty() => {
                        piece.push(b'\n');
                        self.fragments = None;
                    }
                    None => piece.extend_from_slice(fragment.as_bytes()),
                }
            } else if let Some((at, scroll)) = self.scrolls.next() {
                self.begin(&at, scroll, piece);
            } else if self.is_empty {
                // SQ treats an empty phext as one empty scroll at the origin.
                self.begin(&Coordinate::ORIGIN, Scroll::from_static(""), piece);
            } else {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use libphext::phext;
    use proptest::prelude::*;

    use super::*;
    use crate::store::Phext;

    fn collect(pieces: impl Pieces + 'static, exact_bytes: Option<u64>) -> String {
        let mut stream = Stream::new(pieces, exact_bytes);
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next_piece() {
            // JSON may make the last fragment six times as long.
            assert!(piece.len() <= 3 * PIECE_BYTES);
            bytes.extend_from_slice(&piece);
        }
        assert!(stream.is_taken() && stream.left_bytes().is_none_or(|left| left == 0));
        String::from_utf8(bytes).unwrap()
    }

    #[derive(serde::Serialize)]
    struct Row<'a> {
        coord: String,
        scroll: &'a str,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pieces_join_to_the_whole_answer(
            parts in prop::collection::vec(("[\"\\\\\n\t\u{2}\u{1b}\u{7f}a\u{20ac}]{0,8}", 1..9000_usize, 1..3_usize), 0..12),
        ) {
            let text: String =
                parts.iter().map(|(text, times, steps)| text.repeat(*times) + &"\x17".repeat(*steps)).collect();
            let phext = Phext::parse(text.as_bytes()).unwrap();
            prop_assert!(collect(phext.joined(), Some(phext.file_bytes())) == phext.join());
            let rows: Vec<_> = phext.iter().map(|(at, scroll)| Row { coord: at.to_string(), scroll }).collect();
            let json = collect(JsonRows::new(phext.cursor(..), "coord"), None);
            prop_assert!(json == serde_json::to_string(&rows).unwrap());
            let line = |(at, text): (_, &str)| format!("* {at}: {}\n", phext::create_summary(text));
            let mut lines: String = phext.iter().map(line).collect();
            if lines.is_empty() {
                lines = "* 1.1.1/1.1.1/1.1.1: \n".into();
            }
            prop_assert!(collect(Lines::new(phext.cursor(..)), None) == lines);
        }
    }
}
