//! A phext in memory: its scrolls in coordinate order, and how many bytes they take as a file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::RangeInclusive;

use sq_shared::coordinate::Coordinate;

use crate::store::breaks::{self, Runs};

/// What a scroll costs in memory beside its text: the coordinate, the string's three words, and its
/// share of the tree's nodes and of the allocator's headers.
const SCROLL_OVERHEAD_BYTES: u64 = 112;

/// The scrolls of a phext. An empty scroll is the same as none, and is not kept.
#[derive(Debug, Default)]
pub struct Phext {
    scrolls: BTreeMap<Coordinate, String>,
    /// What the file of these scrolls has.
    file_bytes: u64,
    text_bytes: u64,
}

/// A change of one scroll.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Adds the text at the end.
    Append(String),
    /// Puts the text in place of what was there.
    Replace(String),
    /// Empties the scroll.
    Remove,
}

/// What takes an edit back, when it could not be made durable.
#[derive(Debug)]
pub(super) struct Undo {
    file_bytes: u64,
    text_bytes: u64,
    scroll: UndoScroll,
}

#[derive(Debug)]
enum UndoScroll {
    Truncate(usize),
    Restore(String),
}

/// Why a file is not a phext that we can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file has bytes that are not UTF-8.
    #[error("it is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// How many bytes before it are good.
        offset: usize,
    },
    /// A scroll stands beyond the largest coordinate.
    #[error("a scroll in it lies beyond 99999 in one of the nine parts")]
    BeyondLimit,
    /// A link, a folder or a device.
    #[error("it is not a plain file")]
    NotAFile,
}

impl Phext {
    /// Cuts the bytes of a file into scrolls.
    ///
    /// # Errors
    /// The bytes are not UTF-8, or a scroll stands where no coordinate is.
    pub fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let text = simdutf8::compat::from_utf8(bytes)
            .map_err(|error| Damage::NotUtf8 { offset: error.valid_up_to() })?;
        let mut scrolls = BTreeMap::new();
        for run in Runs::new(text).filter(|run| !run.text.is_empty()) {
            let at = Coordinate::from_parts(run.parts).ok_or(Damage::BeyondLimit)?;
            scrolls.insert(at, run.text.to_owned());
        }
        let mut phext = Self { scrolls, file_bytes: 0, text_bytes: 0 };
        phext.file_bytes = breaks::joined_bytes(phext.iter());
        phext.text_bytes = phext.scrolls.values().map(|text| text.len() as u64).sum();
        Ok(phext)
    }

    /// The text at a coordinate, empty when there is none.
    pub fn scroll(&self, at: &Coordinate) -> &str {
        self.scrolls.get(at).map_or("", String::as_str)
    }

    /// The scrolls in coordinate order.
    pub fn iter(&self) -> impl Iterator<Item = (&Coordinate, &str)> + Clone {
        self.scrolls.iter().map(|(at, text)| (at, text.as_str()))
    }

    /// The scrolls of a range, in coordinate order.
    pub fn range(&self, range: RangeInclusive<Coordinate>) -> impl Iterator<Item = (&Coordinate, &str)> {
        self.scrolls.range(range).map(|(at, text)| (at, text.as_str()))
    }

    /// How many scrolls have a text.
    pub fn scroll_count(&self) -> usize {
        self.scrolls.len()
    }

    /// How many bytes the file of these scrolls has.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// How many bytes the scrolls have, without the breaks between them.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// About how much memory it takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.text_bytes + SCROLL_OVERHEAD_BYTES * self.scrolls.len() as u64
    }

    /// The whole phext as text.
    pub fn join(&self) -> String {
        breaks::join_to_string(self.iter())
    }

    /// Writes the whole phext.
    pub(super) fn write_to(&self, file: &mut impl Write) -> io::Result<()> {
        breaks::join(self.iter(), |piece| file.write_all(piece.as_bytes()))
    }

    /// Whether an edit would leave everything as it is.
    pub(super) fn is_unchanged_by(&self, at: &Coordinate, edit: &Edit) -> bool {
        match edit {
            Edit::Append(text) => text.is_empty(),
            Edit::Replace(text) => self.scroll(at) == text,
            Edit::Remove => self.scroll(at).is_empty(),
        }
    }

    /// How many bytes the file would have after an edit; nothing is allocated to find out.
    pub(super) fn file_bytes_after(&self, at: &Coordinate, edit: &Edit) -> u64 {
        let old = self.scroll(at).len() as u64;
        let new = new_bytes(old, edit);
        let texts = self.file_bytes - old + new;
        match (old == 0, new == 0) {
            (true, false) => texts + self.detour(at),
            (false, true) => texts - self.detour(at),
            _ => texts,
        }
    }

    /// How many breaks more it takes to stop at a coordinate on the way between its neighbours.
    fn detour(&self, at: &Coordinate) -> u64 {
        let before = self.scrolls.range(..at).next_back().map_or(Coordinate::ORIGIN, |(before, _)| *before);
        let arrive = breaks::breaks_between(&before, at);
        match self.scrolls.range(at..).find(|(after, _)| *after != at) {
            Some((after, _)) => {
                arrive + breaks::breaks_between(at, after) - breaks::breaks_between(&before, after)
            }
            None => arrive,
        }
    }

    /// Makes an edit, and gives what takes it back.
    pub(super) fn apply(&mut self, at: Coordinate, edit: Edit) -> Undo {
        let (file_bytes, text_bytes) = (self.file_bytes, self.text_bytes);
        let old = self.scroll(&at).len() as u64;
        self.file_bytes = self.file_bytes_after(&at, &edit);
        self.text_bytes = text_bytes - old + new_bytes(old, &edit);
        let scroll = match edit {
            Edit::Append(text) => self.append(at, &text),
            Edit::Replace(text) => UndoScroll::Restore(self.put(at, text)),
            Edit::Remove => UndoScroll::Restore(self.put(at, String::new())),
        };
        Undo { file_bytes, text_bytes, scroll }
    }

    /// Takes the last edit back.
    pub(super) fn undo(&mut self, at: Coordinate, undo: Undo) {
        match undo.scroll {
            UndoScroll::Restore(text) => {
                self.put(at, text);
            }
            UndoScroll::Truncate(0) => {
                self.scrolls.remove(&at);
            }
            UndoScroll::Truncate(bytes) => {
                if let Some(scroll) = self.scrolls.get_mut(&at) {
                    scroll.truncate(bytes);
                }
            }
        }
        self.file_bytes = undo.file_bytes;
        self.text_bytes = undo.text_bytes;
    }

    fn append(&mut self, at: Coordinate, text: &str) -> UndoScroll {
        let scroll = self.scrolls.entry(at).or_default();
        let bytes = scroll.len();
        scroll.push_str(text);
        if scroll.is_empty() {
            self.scrolls.remove(&at);
        }
        UndoScroll::Truncate(bytes)
    }

    fn put(&mut self, at: Coordinate, text: String) -> String {
        let old = if text.is_empty() { self.scrolls.remove(&at) } else { self.scrolls.insert(at, text) };
        old.unwrap_or_default()
    }
}

/// How many bytes a scroll of `old` bytes has after an edit.
fn new_bytes(old: u64, edit: &Edit) -> u64 {
    match edit {
        Edit::Append(text) => old + text.len() as u64,
        Edit::Replace(text) => text.len() as u64,
        Edit::Remove => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edits() -> impl Strategy<Value = (Coordinate, Edit)> {
        let parts = prop::array::uniform9(prop_oneof![6 => Just(1_u32), 2 => 2..4_u32, 1 => 1..300_u32]);
        let at = parts.prop_map(|parts| Coordinate::from_parts(parts).unwrap());
        let edit = prop_oneof![
            "[a-z\u{e4}]{0,4}".prop_map(Edit::Append),
            "[a-z\u{e4}]{0,4}".prop_map(Edit::Replace),
            Just(Edit::Remove),
        ];
        (at, edit)
    }

    fn assert_sizes(phext: &Phext) {
        assert_eq!(phext.file_bytes, phext.join().len() as u64);
        assert_eq!(phext.text_bytes, phext.iter().map(|(_, text)| text.len() as u64).sum::<u64>());
    }

    proptest! {
        #[test]
        fn the_counted_size_is_the_written_one_and_undo_restores(edits in prop::collection::vec(edits(), 1..25)) {
            let mut phext = Phext::default();
            for (at, edit) in edits {
                let before = phext.join();
                let expected = phext.file_bytes_after(&at, &edit);
                let unchanged = phext.is_unchanged_by(&at, &edit);
                let undo = phext.apply(at, edit.clone());
                assert_sizes(&phext);
                prop_assert_eq!(phext.file_bytes(), expected);
                prop_assert_eq!(phext.join() == before, unchanged);
                phext.undo(at, undo);
                assert_sizes(&phext);
                prop_assert_eq!(phext.join(), before);
                phext.apply(at, edit);
                prop_assert_eq!(Phext::parse(phext.join().as_bytes()).unwrap().scrolls, phext.scrolls.clone());
            }
        }
    }

    #[test]
    fn a_scroll_at_the_limit_and_one_past() {
        let breaks = |count| format!("{}a", "\x17".repeat(count)).into_bytes();
        assert_eq!(Phext::parse(&breaks(99_998)).unwrap().scroll_count(), 1);
        assert_eq!(Phext::parse(&breaks(99_999)).unwrap_err(), Damage::BeyondLimit);
        assert_eq!(Phext::parse(b"ab\xff").unwrap_err(), Damage::NotUtf8 { offset: 2 });
        assert_eq!(Phext::parse(&vec![0x17; 200_000]).unwrap().scroll_count(), 0);
    }
}
