//! A page: neighbouring scrolls in one allocation. A phext of many short scrolls takes little more memory than its file,
//! and snapshots share all pages that have not changed.

use std::ops::{Bound, Range};

use sq_shared::coordinate::Coordinate;

use crate::store::phext::Edit;
use crate::store::phext::builder::PageBuilder;

/// The most that texts and entries of a page with more than one scroll take. With larger pages each write copies more, with
/// smaller ones the overhead is larger.
pub(super) const PAGE_BYTES: usize = 16 * 1024;

pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

/// The memory of a page beside its texts and entries: itself, its counts, its place in a tree of half-full nodes, and the
/// allocator's overhead for three blocks.
const OVERHEAD_BYTES: usize = 240;

/// What a page may have allocated in excess, beside an eighth of its text.
const SLACK_BYTES: usize = 256;

/// Scrolls in coordinate order, none of them empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// The texts one after the other, without breaks.
    text: String,
    entries: Vec<Entry>,
}

/// Where a scroll is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) at: Coordinate,
    /// The offset of its text, which ends where the next one begins. Only the last scroll of a page may exceed the limit of
    /// a page, so this is always small.
    start: u32,
}

impl Entry {
    pub(super) fn new(at: Coordinate, start: usize) -> Self {
        Self { at, start: u32::try_from(start).unwrap_or(u32::MAX) }
    }

    pub(super) fn start(&self) -> usize {
        self.start as usize
    }
}

impl Page {
    pub(super) fn new(text: String, entries: Vec<Entry>) -> Self {
        Self { text, entries }
    }

    /// The coordinate of its first scroll; `None` when it is empty.
    pub(super) fn first(&self) -> Option<Coordinate> {
        self.entries.first().map(|entry| entry.at)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.text.capacity() + self.entries.capacity() * ENTRY_BYTES + OVERHEAD_BYTES) as u64
    }

    /// Whether it is one scroll that fills a page or more. No other scroll is added to it, because its text would have to
    /// be copied.
    pub(super) fn is_one_large_scroll(&self) -> bool {
        self.entries.len() == 1 && self.text.len() + ENTRY_BYTES > PAGE_BYTES
    }

    /// The index of a scroll, or the index that it would have.
    pub(super) fn find(&self, at: &Coordinate) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.at.cmp(at))
    }

    /// Where the text of a scroll is.
    pub(super) fn bounds(&self, index: usize) -> Option<(Coordinate, Range<usize>)> {
        let entry = self.entries.get(index)?;
        let end = self.entries.get(index + 1).map_or(self.text.len(), Entry::start);
        Some((entry.at, entry.start()..end))
    }

    /// The index of the first scroll of a range with this start.
    pub(super) fn index_of_start(&self, start: Bound<Coordinate>) -> usize {
        self.entries.partition_point(|entry| match start {
            Bound::Included(start) => entry.at < start,
            Bound::Excluded(start) => entry.at <= start,
            Bound::Unbounded => false,
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The scrolls from an index on.
    pub(super) fn scrolls_from(&self, first: usize) -> impl Iterator<Item = (&Coordinate, &str)> + Clone {
        let entries = self.entries.get(first..).unwrap_or_default();
        let ends = entries.iter().skip(1).map(Entry::start).chain([self.text.len()]);
        entries
            .iter()
            .zip(ends)
            .map(|(entry, end)| (&entry.at, self.text.get(entry.start()..end).unwrap_or_default()))
    }

    /// The text at a coordinate, empty when there is none.
    pub(super) fn scroll(&self, at: &Coordinate) -> &str {
        let found = self.find(at).ok().and_then(|index| self.bounds(index));
        found.and_then(|(_, range)| self.text.get(range)).unwrap_or_default()
    }

    /// Whether an edit can be made in place; otherwise the page becomes too large.
    pub(super) fn has_room_for(&self, at: &Coordinate, edit: &Edit) -> bool {
        let found = self.find(at);
        let old = found.map_or(0, |_| self.scroll(at).len());
        let (kept, added) = match edit {
            Edit::Append(text) => (old, text.len()),
            Edit::Replace(text) => (0, text.len()),
            Edit::Remove => (0, 0),
        };
        let scrolls = self.entries.len() + usize::from(found.is_err());
        scrolls == 1 || self.text.len() - old + kept + added + scrolls * ENTRY_BYTES <= PAGE_BYTES
    }

    pub(super) fn apply(&mut self, at: Coordinate, edit: &Edit) {
        match (self.find(&at), edit) {
            (Ok(index), Edit::Append(text)) => self.put(index, text, true),
            (Ok(index), Edit::Replace(text)) if !text.is_empty() => self.put(index, text, false),
            (Ok(index), Edit::Replace(_) | Edit::Remove) => self.remove(index),
            (Err(index), Edit::Append(text) | Edit::Replace(text)) if !text.is_empty() => {
                self.insert(index, at, text);
            }
            (Err(_), _) => {}
        }
        self.give_back();
    }

    /// The same scrolls after an edit, on as many pages as they need, none of them full.
    pub(super) fn split(&self, at: Coordinate, edit: &Edit) -> Vec<Self> {
        let (added, keeps_old) = match edit {
            Edit::Append(text) => (text.as_str(), true),
            Edit::Replace(text) => (text.as_str(), false),
            Edit::Remove => ("", false),
        };
        let total = self.text.len() + added.len() + (self.entries.len() + 1) * ENTRY_BYTES;
        // The first page gets the larger part: a client that writes scrolls in order does not come back to it.
        let mut builder = PageBuilder::new((total / 8 * 5).min(PAGE_BYTES));
        let mut pages = Vec::new();
        let (before, from) = match self.find(&at) {
            Ok(index) => (index, index + 1),
            Err(index) => (index, index),
        };
        let mut add = |at: Coordinate, texts: [&str; 2]| {
            if texts.iter().any(|text| !text.is_empty()) {
                pages.extend(builder.begin(at));
                pages.extend(texts.into_iter().filter_map(|text| builder.push(text)));
            }
        };
        for (at, text) in self.scrolls_from(0).take(before) {
            add(*at, [text, ""]);
        }
        add(at, [if keeps_old { self.scroll(&at) } else { "" }, added]);
        for (at, text) in self.scrolls_from(from) {
            add(*at, [text, ""]);
        }
        pages.extend(builder.finish());
        pages
    }

    fn put(&mut self, index: usize, new: &str, is_appended: bool) {
        let Some((_, range)) = self.bounds(index) else { return };
        let range = if is_appended { range.end..range.end } else { range };
        grow(&mut self.text, new.len().saturating_sub(range.len()));
        self.move_entries(index + 1, range.len(), new.len());
        self.text.replace_range(range, new);
    }

    fn insert(&mut self, index: usize, at: Coordinate, new: &str) {
        let start = self.entries.get(index).map_or(self.text.len(), Entry::start);
        grow(&mut self.text, new.len());
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(1 + self.entries.len() / 8);
        }
        self.move_entries(index, 0, new.len());
        self.text.insert_str(start, new);
        self.entries.insert(index, Entry::new(at, start));
    }

    fn remove(&mut self, index: usize) {
        let Some((_, range)) = self.bounds(index) else { return };
        self.move_entries(index + 1, range.len(), 0);
        self.text.replace_range(range, "");
        self.entries.remove(index);
    }

    /// Moves entries after `old` bytes before them have become `new` bytes.
    fn move_entries(&mut self, from: usize, old: usize, new: usize) {
        for entry in self.entries.iter_mut().skip(from) {
            *entry = Entry::new(entry.at, entry.start() - old + new);
        }
    }

    /// Frees memory when there is much more than the scrolls need, but never after a scroll has grown.
    fn give_back(&mut self) {
        let len = self.text.len();
        if self.text.capacity() > len + len / 8 + SLACK_BYTES {
            self.text.shrink_to_fit();
        }
        let count = self.entries.len();
        if self.entries.capacity() > count + count / 8 + SLACK_BYTES / ENTRY_BYTES {
            self.entries.shrink_to_fit();
        }
    }
}

/// Reserves memory for more text. It grows by an eighth: a growing scroll is copied a few times in all, and never takes
/// twice its length.
pub(super) fn grow(text: &mut String, more: usize) {
    if text.len() + more > text.capacity() {
        text.reserve_exact(more + text.len() / 8);
    }
}
