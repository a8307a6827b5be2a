//! The text of a phext in memory: its scrolls in coordinate order, and the length of its file.

use std::io::{self, Write};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imbl::OrdMap;
use sq_shared::coordinate::Coordinate;

use crate::store::breaks;
use crate::store::phext::cursor::Cursor;
use crate::store::phext::joined::Joined;
use crate::store::phext::page::Page;
use crate::store::phext::parser::PhextParser;
use crate::store::phext::scroll::Scroll;

mod builder;
pub(super) mod cursor;
pub(super) mod joined;
mod page;
pub(super) mod parser;
pub(super) mod scroll;
#[cfg(test)]
mod tests;

const WRITE_BYTES: usize = 64 * 1024;

/// Pages by their first scroll, in a map whose clones share nodes: a change copies a few of them, however many pages there
/// are.
type Pages = OrdMap<Coordinate, Arc<Page>>;

/// The scrolls of a phext. Empty scrolls are not kept.
///
/// A clone is a snapshot. It costs next to nothing, and shares each page until that changes.
#[derive(Debug, Clone, Default)]
pub struct Phext {
    pages: Pages,
    file_bytes: u64,
    scroll_count: usize,
    /// The memory of the pages, as [`Page::memory_bytes`] counts.
    memory_bytes: u64,
    revision: Revision,
}

/// Identifies the contents of a phext: equal revisions mean equal contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Revision(u64);

/// A change of one scroll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Adds the text at the end.
    Append(String),
    /// Replaces the text.
    Replace(String),
    /// Empties the scroll.
    Remove,
}

impl Edit {
    /// The text that is written; empty when there is none.
    pub fn text(&self) -> &str {
        match self {
            Self::Append(text) | Self::Replace(text) => text,
            Self::Remove => "",
        }
    }
}

/// Why a file is not a valid phext.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextDamage {
    /// The file has bytes that are not UTF-8.
    #[error("it is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// The number of valid bytes before it.
        offset: usize,
    },
    /// A scroll is beyond the largest coordinate.
    #[error("the scroll at byte {offset} lies beyond 4294967295 in one of the nine parts of its coordinate")]
    BeyondLimit {
        /// Where its text begins.
        offset: usize,
    },
    /// A link, a folder or a device.
    #[error("it is not a plain file")]
    NotAFile,
}

impl Phext {
    /// Cuts the bytes of a file into scrolls.
    ///
    /// # Errors
    /// The bytes are not UTF-8, or a scroll is beyond the largest coordinate.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextDamage> {
        let mut parser = PhextParser::default();
        parser.push(bytes)?;
        parser.finish()
    }

    /// The text at a coordinate, empty when there is none.
    pub fn scroll(&self, at: &Coordinate) -> &str {
        self.page_of(at).map_or("", |page| page.scroll(at))
    }

    /// The text at a coordinate, owned without a copy.
    pub fn scroll_handle(&self, at: &Coordinate) -> Scroll {
        let found = self.page_of(at).and_then(|page| {
            let (_, range) = page.bounds(page.find(at).ok()?)?;
            Some(Scroll::from_page(Arc::clone(page), range))
        });
        found.unwrap_or_else(|| Scroll::from_static(""))
    }

    /// The scrolls in coordinate order.
    pub fn iter(&self) -> impl Iterator<Item = (&Coordinate, &str)> + Clone {
        self.pages.iter().flat_map(|(_, page)| page.scrolls_from(0))
    }

    /// The scrolls of a range, in coordinate order. A range that ends before it begins is empty.
    pub fn range(&self, range: impl RangeBounds<Coordinate>) -> impl Iterator<Item = (&Coordinate, &str)> {
        let (start, end) = (range.start_bound().cloned(), range.end_bound().cloned());
        self.pages_from(start)
            .flat_map(move |(_, page)| page.scrolls_from(page.index_of_start(start)))
            .take_while(move |(at, _)| starts_before(at, &end))
    }

    /// The scrolls of a snapshot, each owning its text.
    pub fn cursor(&self, range: impl RangeBounds<Coordinate>) -> Cursor {
        Cursor::new(self.clone(), range)
    }

    /// The number of scrolls.
    pub fn scroll_count(&self) -> usize {
        self.scroll_count
    }

    /// The length of the file of these scrolls.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The memory that it takes. Pages that it shares with snapshots count; pages that only snapshots have do not.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Identifies the present contents.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The whole phext as bytes, a buffer at a time.
    pub fn joined(&self) -> Joined<Cursor> {
        Joined::new(self.cursor(..))
    }

    /// Writes the whole phext in pieces of about 64 KiB.
    ///
    /// # Errors
    /// The sink's error.
    pub fn write_to(&self, sink: &mut impl Write) -> io::Result<()> {
        let mut joined = self.joined();
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let has_more = joined.fill(&mut buffer, WRITE_BYTES);
            sink.write_all(&buffer)?;
            if !has_more {
                return Ok(());
            }
        }
    }

    /// The whole phext as text.
    pub fn join(&self) -> String {
        let mut bytes = Vec::new();
        self.joined().fill(&mut bytes, usize::MAX);
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether an edit would change nothing.
    pub(super) fn is_unchanged_by(&self, at: &Coordinate, edit: &Edit) -> bool {
        match edit {
            Edit::Append(text) => text.is_empty(),
            Edit::Replace(text) => self.scroll(at) == text,
            Edit::Remove => self.scroll(at).is_empty(),
        }
    }

    /// The length of the file after an edit, computed without allocating.
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

    /// How many more breaks the file has with a scroll at this coordinate.
    fn detour(&self, at: &Coordinate) -> u64 {
        let before = self.predecessor(at).unwrap_or(Coordinate::ORIGIN);
        let arrive = breaks::breaks_between(&before, at);
        match self.range((Bound::Excluded(*at), Bound::Unbounded)).next() {
            Some((after, _)) => {
                arrive + breaks::breaks_between(at, after) - breaks::breaks_between(&before, after)
            }
            None => arrive,
        }
    }

    /// The last scroll before a coordinate. A page begins with its key, so the page found has it.
    fn predecessor(&self, at: &Coordinate) -> Option<Coordinate> {
        let (_, page) = self.pages.range(..*at).next_back()?;
        let index = page.find(at).unwrap_or_else(|index| index);
        page.bounds(index.checked_sub(1)?).map(|(before, _)| before)
    }

    pub(super) fn apply(&mut self, at: Coordinate, edit: &Edit) {
        if self.is_unchanged_by(&at, edit) {
            return;
        }
        let old = self.scroll(&at).len() as u64;
        let new = new_bytes(old, edit);
        self.file_bytes = self.file_bytes_after(&at, edit);
        self.scroll_count = self.scroll_count + usize::from(old == 0) - usize::from(new == 0);
        self.revision = Revision::new();
        let mut page = self.take_page_for(&at);
        if page.has_room_for(&at, edit) {
            Arc::make_mut(&mut page).apply(at, edit);
            self.put_page(page);
        } else {
            for part in page.split(at, edit) {
                self.put_page(Arc::new(part));
            }
        }
    }

    /// Removes the page that a scroll belongs to; an empty one when there is none.
    fn take_page_for(&mut self, at: &Coordinate) -> Arc<Page> {
        let first = || self.pages.get_min().map(|(key, page)| (key, page));
        let fitting = self.pages.get_prev(at).or_else(first);
        let fitting = fitting.filter(|(_, page)| !page.is_one_large_scroll() || page.find(at).is_ok());
        let Some(key) = fitting.map(|(key, _)| *key) else { return Arc::default() };
        let Some(page) = self.pages.remove(&key) else { return Arc::default() };
        self.memory_bytes -= page.memory_bytes();
        page
    }

    /// Inserts a page, unless it is empty.
    fn put_page(&mut self, page: Arc<Page>) {
        if let Some(first) = page.first() {
            self.memory_bytes += page.memory_bytes();
            self.pages.insert(first, page);
        }
    }

    fn page_of(&self, at: &Coordinate) -> Option<&Arc<Page>> {
        self.pages.get_prev(at).map(|(_, page)| page)
    }

    /// The pages that may have scrolls of a range with this start.
    fn pages_from(&self, start: Bound<Coordinate>) -> impl Iterator<Item = (&Coordinate, &Arc<Page>)> {
        let first = match start {
            Bound::Included(at) | Bound::Excluded(at) => self.pages.get_prev(&at),
            Bound::Unbounded => None,
        };
        self.pages.range((first.map_or(Bound::Unbounded, |(key, _)| Bound::Included(*key)), Bound::Unbounded))
    }
}

impl Revision {
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Whether a coordinate comes before the end of a range.
fn starts_before(at: &Coordinate, end: &Bound<Coordinate>) -> bool {
    match end {
        Bound::Included(end) => at <= end,
        Bound::Excluded(end) => at < end,
        Bound::Unbounded => true,
    }
}

/// The length of a scroll after an edit, from its length before.
fn new_bytes(old: u64, edit: &Edit) -> u64 {
    match edit {
        Edit::Append(text) => old + text.len() as u64,
        Edit::Replace(text) => text.len() as u64,
        Edit::Remove => 0,
    }
}
