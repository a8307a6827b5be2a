//! Parses a phext from the bytes of its file, piece by piece: memory never holds the file beside its scrolls.

use std::sync::Arc;

use sq_shared::coordinate::Coordinate;

use crate::store::breaks;
use crate::store::phext::builder::PageBuilder;
use crate::store::phext::page::PAGE_BYTES;
use crate::store::phext::{Phext, Revision, TextDamage};

const CHARACTER_BYTES: usize = 4;

/// A phext that is being read.
#[derive(Debug)]
pub(in crate::store) struct PhextParser {
    phext: Phext,
    /// Without it the scrolls are only counted.
    builder: Option<PageBuilder>,
    /// The coordinate of the next text. It may be out of range as long as no text follows.
    parts: [u64; 9],
    /// The last scroll with a text, and whether the next text belongs to it.
    here: Coordinate,
    is_inside: bool,
    /// The first bytes of an incomplete character.
    character: Vec<u8>,
    /// The number of valid bytes, without those in `character`.
    offset: usize,
}

impl Default for PhextParser {
    fn default() -> Self {
        Self {
            phext: Phext { revision: Revision::new(), ..Phext::default() },
            builder: Some(PageBuilder::new(PAGE_BYTES)),
            parts: [1; 9],
            here: Coordinate::ORIGIN,
            is_inside: false,
            character: Vec::with_capacity(CHARACTER_BYTES),
            offset: 0,
        }
    }
}

impl PhextParser {
    /// Counts the scrolls, and keeps none.
    pub(in crate::store) fn counting() -> Self {
        Self { builder: None, ..Self::default() }
    }

    /// Begins at another place.
    #[cfg(test)]
    pub(super) fn at(parts: [u64; 9]) -> Self {
        Self { parts, ..Self::default() }
    }

    /// Parses the next bytes.
    ///
    /// # Errors
    /// The bytes are not UTF-8, or a scroll is beyond the largest coordinate. Then the parser cannot be used
    /// again.
    pub(in crate::store) fn push(&mut self, bytes: &[u8]) -> Result<(), TextDamage> {
        let bytes = self.complete_character(bytes)?;
        let whole = bytes.len() - cut_character_bytes(bytes);
        let (whole, cut) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
        let text = simdutf8::compat::from_utf8(whole)
            .map_err(|error| TextDamage::NotUtf8 { offset: self.offset + error.valid_up_to() })?;
        self.take(text)?;
        self.character.extend_from_slice(cut);
        Ok(())
    }

    /// Ends the phext.
    ///
    /// # Errors
    /// The last character is incomplete.
    pub(in crate::store) fn finish(mut self) -> Result<Phext, TextDamage> {
        if !self.character.is_empty() {
            return Err(TextDamage::NotUtf8 { offset: self.offset });
        }
        if let Some(page) = self.builder.as_mut().and_then(PageBuilder::finish) {
            self.phext.put_page(Arc::new(page));
        }
        Ok(self.phext)
    }

    /// Completes the incomplete character, and gives the bytes after it.
    fn complete_character<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], TextDamage> {
        let mut rest = bytes;
        while !self.character.is_empty() {
            let Some((byte, behind)) = rest.split_first() else { break };
            self.character.push(*byte);
            rest = behind;
            let character = std::mem::take(&mut self.character);
            match std::str::from_utf8(&character) {
                Ok(text) => self.take(text)?,
                Err(error) if error.error_len().is_none() => self.character = character,
                Err(_) => return Err(TextDamage::NotUtf8 { offset: self.offset }),
            }
        }
        Ok(rest)
    }

    /// Cuts a text at its breaks.
    fn take(&mut self, text: &str) -> Result<(), TextDamage> {
        let mut rest = text;
        while let Some((run, behind)) = breaks::first_break(rest).and_then(|end| rest.split_at_checked(end)) {
            self.add(run, self.offset + text.len() - rest.len())?;
            let Some((level, count)) = breaks::leading_breaks(behind) else { break };
            breaks::cross(&mut self.parts, level, count);
            self.is_inside = false;
            rest = behind.get(count..).unwrap_or_default();
        }
        self.add(rest, self.offset + text.len() - rest.len())?;
        self.offset += text.len();
        Ok(())
    }

    /// Adds a text to the present scroll. The offset is for the error.
    fn add(&mut self, text: &str, offset: usize) -> Result<(), TextDamage> {
        if text.is_empty() {
            return Ok(());
        }
        if !self.is_inside {
            let parts = self.parts.map(|part| u32::try_from(part).unwrap_or(0));
            let at = Coordinate::from_parts(parts).ok_or(TextDamage::BeyondLimit { offset })?;
            if let Some(page) = self.builder.as_mut().and_then(|builder| builder.begin(at)) {
                self.phext.put_page(Arc::new(page));
            }
            self.phext.scroll_count += 1;
            self.phext.file_bytes += breaks::breaks_between(&self.here, &at);
            self.here = at;
            self.is_inside = true;
        }
        self.phext.file_bytes += text.len() as u64;
        if let Some(page) = self.builder.as_mut().and_then(|builder| builder.push(text)) {
            self.phext.put_page(Arc::new(page));
        }
        Ok(())
    }
}

/// How many bytes at the end belong to an incomplete character.
fn cut_character_bytes(bytes: &[u8]) -> usize {
    let last = bytes.iter().rev().take(CHARACTER_BYTES - 1);
    let lead = last.enumerate().find(|(_, byte)| **byte & 0xc0 != 0x80);
    let Some((behind, lead)) = lead else { return 0 };
    let length = match lead {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    if behind + 1 < length { behind + 1 } else { 0 }
}
