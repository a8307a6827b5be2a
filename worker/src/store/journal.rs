//! The journal of a phext: a file of records behind a header, only ever appended to.
//!
//! A new generation is a new file that is renamed over the old one, so a header is always whole.

use std::io;
use std::sync::Arc;

use crate::store::disk::{DiskFile, is_unwritable};
use crate::store::record::{FileDigest, Format, Generation, LARGEST_SEQUENCE, Reader, seal, unseal};

mod scan;
mod search;
mod window;

pub(super) use scan::{JournalEnd, replay, scan};

const fn magic(format: Format) -> [u8; 8] {
    match format {
        Format::Plain => *b"SQJRNL1\n",
        Format::Masked => *b"SQJRNL2\n",
    }
}

/// Magic, generation, base (sequence, whether there is a file, its digest), number of carried-over keys, checksum.
const HEADER_BYTES: usize = 8 + 8 + 8 + 1 + 8 + 16 + 4 + 4;

/// What a generation starts from: a file, and the last sequence that is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) sequence: u64,
    /// `None` when there was no file.
    pub(super) digest: Option<FileDigest>,
}

/// A journal that is open for appending.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) generation: Generation,
    /// Where the next record goes.
    pub(super) bytes: u64,
}

/// What a journal's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: Generation,
    pub(super) base: Base,
    /// How many records at the beginning are keys of the old generation.
    pub(super) carried: u32,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalDamage {
    /// It does not begin with a valid header.
    #[error("its header is damaged")]
    Header,
    /// A durable record cannot be read, or is invalid.
    #[error("the record at byte {offset} is damaged, and others follow it")]
    Record {
        /// Where it begins.
        offset: u64,
    },
    /// A sequence is so large that it is forged, and leaves no numbers for later records.
    #[error("a record has a number that was made up")]
    Sequence,
    /// A link, a folder or a device.
    #[error("it is not a plain file")]
    NotAFile,
}

/// Why records were not appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The journal is unchanged.
    Refused(io::Error),
    /// Half a record may be at its end.
    Torn(io::Error),
}

impl AppendError {
    /// For a journal that is useless when it is not complete.
    pub(super) fn into_io(self) -> io::Error {
        let (Self::Refused(error) | Self::Torn(error)) = self;
        error
    }
}

impl Journal {
    /// Starts a generation in an empty file.
    pub(super) fn create(file: Arc<dyn DiskFile>, base: &Base, carried: u32) -> io::Result<Self> {
        let id = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let generation = Generation { id, format: Format::Masked };
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&magic(generation.format));
        header.extend_from_slice(&id.to_le_bytes());
        header.extend_from_slice(&base.sequence.to_le_bytes());
        header.push(u8::from(base.digest.is_some()));
        let digest = base.digest.unwrap_or(FileDigest { bytes: 0, xxh3: 0 });
        header.extend_from_slice(&digest.bytes.to_le_bytes());
        header.extend_from_slice(&digest.xxh3.to_le_bytes());
        header.extend_from_slice(&carried.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        file.write_all_at(&header, 0)?;
        Ok(Self { file, generation, bytes: HEADER_BYTES as u64 })
    }

    /// Appends records as [`encode`](crate::store::record::encode) makes them. They are durable once the file has been
    /// synced.
    ///
    /// # Errors
    /// The system refuses: none of them is in the journal, or ([`AppendError::Torn`]) it is unknown which are.
    pub(super) fn append(&mut self, records: &mut [u8]) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        seal(self.generation, records);
        let written = self.file.write_all_at(records, self.bytes);
        // Another journal may have to take them.
        unseal(self.generation, records);
        match written {
            Ok(()) => {
                self.bytes += records.len() as u64;
                Ok(())
            }
            // If nothing could be written, there is nothing to cut off.
            Err(error) if is_unwritable(&error) && self.is_untouched() => Err(AppendError::Refused(error)),
            Err(error) => match self.cut_off() {
                Ok(()) => Err(AppendError::Refused(error)),
                Err(error) => Err(AppendError::Torn(error)),
            },
        }
    }

    fn is_untouched(&self) -> bool {
        self.file.identity().is_ok_and(|identity| identity.bytes <= self.bytes)
    }

    /// Cuts off what is behind the last valid record, and syncs that: a refused record must not come back after a power
    /// cut.
    fn cut_off(&self) -> io::Result<()> {
        self.file.set_bytes(self.bytes)?;
        self.file.sync_data()
    }
}

pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Result<Header, JournalDamage>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(file, &mut bytes, 0)?;
    Ok((read == HEADER_BYTES).then(|| parse_header(&bytes)).flatten().ok_or(JournalDamage::Header))
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let (covered, _) = bytes.split_at_checked(HEADER_BYTES - 4)?;
    let mut reader = Reader(bytes);
    let found = reader.array::<8>()?;
    let format = [Format::Plain, Format::Masked].into_iter().find(|format| magic(*format) == found)?;
    let (id, sequence) = (reader.u64()?, reader.u64()?);
    let has_file = reader.array::<1>()?;
    let digest = FileDigest { bytes: reader.u64()?, xxh3: reader.u128()? };
    let carried = reader.u32()?;
    let is_good = sequence <= LARGEST_SEQUENCE && reader.u32()? == crc32c::crc32c(covered);
    let digest = (has_file == [1]).then_some(digest);
    let generation = Generation { id, format };
    is_good.then_some(Header { generation, base: Base { sequence, digest }, carried })
}

pub(super) const fn first_record() -> u64 {
    HEADER_BYTES as u64
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
