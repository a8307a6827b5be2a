//! Lists every phext of a tenant with its size and its scrolls, in order of name. A listing holds one page of names at a
//! time, however many there are.
//!
//! Jobs read the directory and the files of phexts that are not in memory. Listing a phext does not load it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use sq_shared::phext_name::PhextName;
use sq_shared::{layout, limits};

use crate::store::cache::Content;
use crate::store::counts::{Counted, Counts, count};
use crate::store::disk::{Disk, FileName, Identity, file_of};
use crate::store::links::resolve_link;
use crate::store::open_phext::OpenPhext;
use crate::store::recovery::{PhextFiles, RecoveryError};
use crate::store::{CommitPoint, Pending, Store, StoreError};

/// What the names of a page may take in memory. Each page is a pass over the directory: 100,000 names take seven passes
/// when they are of the longest kind, and two when they are short.
pub(super) const PAGE_BYTES: u64 = 4 * 1024 * 1024;

pub(super) const NAME_OVERHEAD_BYTES: u64 = 64;

const PIECE_PHEXTS: usize = 512;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: PhextName,
    /// The length of its file once it is saved.
    pub(crate) bytes: u64,
    /// The number of its scrolls; `None` when it is damaged or cannot be read.
    pub(crate) scrolls: Option<usize>,
}

/// A listing that is under way.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The rest of the page.
    names: VecDeque<PhextName>,
    last: Option<PhextName>,
    /// There is no next page.
    is_last_page: bool,
}

/// Reads the next page of names from the directory.
#[derive(Debug)]
pub(crate) struct PageJob {
    disk: Arc<dyn Disk>,
    page: Page,
}

/// The first names, in order, after those of the last page, as many as fit.
#[derive(Debug)]
pub(crate) struct Page {
    after: Option<PhextName>,
    names: BTreeSet<PhextName>,
    bytes: u64,
    limit_bytes: u64,
    is_last: bool,
}

/// Counts the scrolls of phexts that are not in memory.
#[derive(Debug)]
pub(crate) struct CountJob {
    disk: Arc<dyn Disk>,
    counts: Arc<Counts>,
    quota_bytes: Option<u64>,
    names: Vec<PhextName>,
}

/// Rows of a listing, which may be sent when their commit points are durable.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Unsorted, until [`Piece::into_rows`].
    rows: Vec<Listed>,
    /// What the rows rest on.
    pub(crate) commit_points: Vec<CommitPoint>,
}

impl Listing {
    /// Whether a page of names must be read first.
    pub(crate) fn needs_page(&self) -> bool {
        self.names.is_empty() && !self.is_last_page
    }

    pub(crate) fn is_over(&self) -> bool {
        self.names.is_empty() && self.is_last_page
    }

    pub(crate) fn turn(&mut self, page: Page) {
        self.last = page.names.last().cloned();
        self.is_last_page = page.is_last;
        self.names = page.names.into_iter().collect();
    }
}

impl PageJob {
    /// Does the work, and blocks until the disk has answered.
    pub(crate) fn run(self) -> io::Result<Page> {
        let Self { disk, mut page } = self;
        disk.visit(&mut |name| {
            // Most names are on other pages: those are skipped without a copy.
            if layout::stem(name).is_some_and(|stem| page.may_have(stem))
                && let Some(FileName::Phext(name) | FileName::Journal(name)) = file_of(name)
            {
                page.add(name);
            }
        })?;
        Ok(page)
    }
}

impl Page {
    fn may_have(&self, name: &str) -> bool {
        let is_before = self.after.as_ref().is_some_and(|after| name <= after.as_str());
        !is_before && (self.is_last || self.names.last().is_some_and(|last| name < last.as_str()))
    }

    fn add(&mut self, name: PhextName) {
        if !self.may_have(name.as_str()) {
            return;
        }
        let bytes = memory_of_name(&name);
        if self.names.insert(name) {
            self.bytes += bytes;
        }
        while self.bytes > self.limit_bytes
            && let Some(name) = self.names.pop_last()
        {
            self.bytes -= memory_of_name(&name);
            self.is_last = false;
        }
    }
}

fn memory_of_name(name: &PhextName) -> u64 {
    name.as_str().len() as u64 + NAME_OVERHEAD_BYTES
}

impl CountJob {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds their rows to a piece. Gives the phexts whose journals have edits that their files do not: they must be loaded
    /// ([`Store::list_unsaved`]). Blocks until the disk has answered.
    pub(crate) fn run(self, piece: &mut Piece) -> Vec<PhextName> {
        let Self { disk, counts, quota_bytes, names } = self;
        let mut unsaved = Vec::new();
        for name in names {
            match count_scrolls(&*disk, &counts, &name, quota_bytes) {
                Ok(Some(Counted::Unsaved)) => unsaved.push(name),
                Ok(Some(Counted::Saved { file, scrolls })) => {
                    piece.rows.push(Listed { name, bytes: file.bytes, scrolls: Some(scrolls) });
                }
                Ok(None) => {}
                Err((bytes, error)) => {
                    if let RecoveryError::Io(error) = error {
                        tracing::warn!(phext = %name, %error, "failed to read a phext to list it");
                    }
                    piece.rows.push(Listed { name, bytes, scrolls: None });
                }
            }
        }
        unsaved
    }
}

/// What a phext's files have; `None` when there is no file and no text. An error comes with the length of its file.
fn count_scrolls(
    disk: &dyn Disk,
    counts: &Counts,
    name: &PhextName,
    quota_bytes: Option<u64>,
) -> Result<Option<Counted>, (u64, RecoveryError)> {
    if resolve_link(disk, name).map_err(|error| (0, error))?.is_some() {
        // It may be in memory under its own name, with edits that its file does not have.
        return Ok(Some(Counted::Unsaved));
    }
    let file = disk.identity(&FileName::Phext(name.clone())).map_err(|error| (0, error.into()))?;
    if let Some(file) = file
        && let Some(scrolls) = counts.get(name, &file)
    {
        return Ok(Some(Counted::Saved { file, scrolls }));
    }
    let counted =
        count(disk, name, quota_bytes).map_err(|error| (file.map_or(0, |file| file.bytes), error))?;
    if let Some(Counted::Saved { file, scrolls }) = &counted {
        counts.put(name, file, *scrolls);
    }
    Ok(counted)
}

impl Piece {
    pub(crate) fn into_rows(mut self) -> Vec<Listed> {
        self.rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.rows
    }
}

impl Store {
    /// What a listing takes in memory.
    pub(crate) fn listing_bytes(&self) -> u64 {
        const NAME_BYTES: u64 = limits::PHEXT_NAME_BYTES as u64 + NAME_OVERHEAD_BYTES;
        self.usage
            .phexts()
            .map_or(PAGE_BYTES, |phexts| (phexts as u64).saturating_mul(NAME_BYTES).min(PAGE_BYTES))
    }

    /// The job that reads a listing's next page.
    pub(crate) fn list_page(&self, listing: &Listing) -> Result<PageJob, StoreError> {
        if self.is_in_doubt() {
            return Err(StoreError::InDoubt);
        }
        let after = listing.last.clone();
        let mut page =
            Page { after, names: BTreeSet::new(), bytes: 0, limit_bytes: PAGE_BYTES, is_last: true };
        // A new phext may not have a file yet.
        let names = self.cache.names().filter(|name| name.folder().is_none());
        names.cloned().for_each(|name| page.add(name));
        Ok(PageJob { disk: Arc::clone(&self.disk), page })
    }

    /// The next rows of a listing: those of phexts in memory, and the job for the others.
    pub(crate) fn list_piece(&self, listing: &mut Listing) -> Result<(Piece, CountJob), StoreError> {
        if self.is_in_doubt() {
            return Err(StoreError::InDoubt);
        }
        let (disk, counts) = (Arc::clone(&self.disk), Arc::clone(&self.counts));
        let (mut piece, mut names) = (Piece::default(), Vec::new());
        for name in listing.names.drain(..listing.names.len().min(PIECE_PHEXTS)) {
            match self.list_from_memory(&name) {
                Ok(Some((row, commit_points))) => {
                    piece.rows.extend(row);
                    piece.commit_points.extend(commit_points);
                }
                // The job gets the same error, and reports it.
                Ok(None) | Err(_) => names.push(name),
            }
        }
        Ok((piece, CountJob { disk, counts, quota_bytes: self.usage.quota_bytes, names }))
    }

    /// The row of a phext that is in memory as it is on disk, and what it rests on. One without scrolls and without a file
    /// has no row.
    fn list_from_memory(&self, name: &PhextName) -> io::Result<Option<(Option<Listed>, Vec<CommitPoint>)>> {
        let Some(content) = self.cache.get(name) else { return Ok(None) };
        let file = self.disk.identity(&FileName::Phext(name.clone()))?;
        let row = |bytes, scrolls| Listed { name: name.clone(), bytes, scrolls };
        match content {
            Content::Open(open) if is_listable(open, file) => {
                let (phext, commit_points) = open.durable_phext().into_parts();
                let (bytes, scrolls) = (phext.file_bytes(), phext.scroll_count());
                let row = (file.is_some() || scrolls > 0).then(|| row(bytes, Some(scrolls)));
                Ok(Some((row, commit_points)))
            }
            Content::Damaged(known) => {
                let is_same = known.files == PhextFiles::find(&*self.disk, name)?
                    && known.quota_bytes == self.usage.quota_bytes;
                Ok(is_same.then(|| (Some(row(file.map_or(0, |file| file.bytes), None)), Vec::new())))
            }
            Content::Evicted(evicted) if evicted.file == file => {
                Ok(Some((Some(row(evicted.files.text_bytes, Some(evicted.scrolls))), Vec::new())))
            }
            Content::Open(_) | Content::Evicted(_) => Ok(None),
        }
    }

    /// Lists a phext whose journal has edits that its file does not. It is loaded, because they must become durable first.
    pub(crate) fn list_unsaved(&mut self, name: &PhextName, piece: &mut Piece) -> Result<(), StoreError> {
        let row = |bytes, scrolls| Listed { name: name.clone(), bytes, scrolls };
        match self.load(name) {
            Ok(Pending { value: phext, commit_points }) => {
                let (bytes, scrolls) = (phext.file_bytes(), phext.scroll_count());
                piece.commit_points.extend(commit_points);
                piece.rows.push(row(bytes, Some(scrolls)));
                Ok(())
            }
            Err(StoreError::Damaged(_) | StoreError::Io(_)) => {
                self.list_unread(name, piece);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lists a phext whose scrolls cannot be read now.
    pub(crate) fn list_unread(&self, name: &PhextName, piece: &mut Piece) {
        let file = self.disk.identity(&FileName::Phext(name.clone())).ok().flatten();
        // A link's own length means nothing.
        let bytes = file.filter(|file| file.is_file).map_or(0, |file| file.bytes);
        piece.rows.push(Listed { name: name.clone(), bytes, scrolls: None });
    }
}

/// Whether the phext in memory is the one on disk, or jobs may be about to change the file.
fn is_listable(open: &OpenPhext, file: Option<Identity>) -> bool {
    open.file == file || !open.is_idle()
}

#[cfg(test)]
impl Store {
    pub(super) fn list(&mut self) -> Result<Pending<Vec<Listed>>, StoreError> {
        self.list_in_pages(PAGE_BYTES)
    }

    /// The same, with pages of another size.
    pub(super) fn list_in_pages(&mut self, limit_bytes: u64) -> Result<Pending<Vec<Listed>>, StoreError> {
        let (mut listing, mut rows, mut commit_points) = (Listing::default(), Vec::new(), Vec::new());
        while !listing.is_over() {
            if listing.needs_page() {
                let mut job = self.list_page(&listing)?;
                job.page.limit_bytes = limit_bytes;
                listing.turn(job.run()?);
            }
            let (mut piece, job) = self.list_piece(&mut listing)?;
            for name in job.run(&mut piece) {
                self.list_unsaved(&name, &mut piece)?;
            }
            commit_points.append(&mut piece.commit_points);
            rows.extend(piece.into_rows());
        }
        Ok(Pending { value: rows, commit_points })
    }
}
