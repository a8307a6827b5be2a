//! The text of one scroll, which outlives changes of the phext.

use std::ops::Range;
use std::sync::Arc;

use crate::store::phext::page::Page;

const FRAGMENT_BYTES: usize = 16 * 1024;

/// Owns the text of a scroll without a copy. It keeps the scroll's page alive: up to 16 KiB beside the text.
#[derive(Debug, Clone)]
pub struct Scroll(Backing);

#[derive(Debug, Clone)]
enum Backing {
    Page(Arc<Page>, Range<usize>),
    Static(&'static str),
}

impl Scroll {
    pub(super) fn from_page(page: Arc<Page>, range: Range<usize>) -> Self {
        Self(Backing::Page(page, range))
    }

    /// A text that is used instead of a scroll's.
    pub fn from_static(text: &'static str) -> Self {
        Self(Backing::Static(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Backing::Page(page, range) => page.text().get(range.clone()).unwrap_or_default(),
            Backing::Static(text) => text,
        }
    }

    /// The text in pieces.
    pub fn fragments(self) -> Fragments {
        Fragments { scroll: self, offset: 0 }
    }
}

impl AsRef<[u8]> for Scroll {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// Reads a scroll in pieces.
#[derive(Debug)]
pub struct Fragments {
    scroll: Scroll,
    offset: usize,
}

impl Fragments {
    /// The next piece, cut at a character boundary; `None` at the end.
    pub fn next_fragment(&mut self) -> Option<&str> {
        let rest = self.scroll.as_str().get(self.offset..).filter(|rest| !rest.is_empty())?;
        let fragment = rest.get(..rest.floor_char_boundary(FRAGMENT_BYTES))?;
        self.offset += fragment.len();
        Some(fragment)
    }
}
