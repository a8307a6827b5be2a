//! The journal of a phext: a file of records behind a header, only ever appended to.
//!
//! A new generation is a new file that takes the old one's name; so a header is always whole.

use std::io;
use std::sync::Arc;

use crate::store::disk::{DiskFile, is_unwritable};
use crate::store::record::{
    Entry, FileDigest, LARGEST_BYTES, LARGEST_SEQUENCE, PREFIX_BYTES, Reader, Record, SMALLEST_BYTES,
    checksum, seal,
};

/// Says what the file is, and which version of the format it has.
const MAGIC: [u8; 8] = *b"SQJRNL1\n";

/// Magic, generation, base (sequence, whether there is a file, its digest), the number of keys that are carried
/// over, and the checksum of all of them.
const HEADER_BYTES: usize = 8 + 8 + 8 + 1 + 8 + 16 + 4 + 4;

/// How much is read from the disk at once.
const READ_BYTES: usize = 256 * 1024;

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
    pub(super) generation: u64,
    /// Where the next record goes.
    pub(super) bytes: u64,
}

/// What a journal's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) base: Base,
    /// So many records at the beginning were there before the journal had its name.
    pub(super) carried: u32,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalDamage {
    /// It does not begin as a journal does.
    #[error("its header is damaged")]
    Header,
    /// A record that had been durable cannot be read, or what is in it makes no sense.
    #[error("the record at byte {offset} is damaged, and others follow it")]
    Record {
        /// Where it begins.
        offset: u64,
    },
    /// A record is numbered as no count of writes ever is, and leaves no room for those to come.
    #[error("a record has a number that was made up")]
    Sequence,
    /// A link, a folder or a device.
    #[error("it is not a plain file")]
    NotAFile,
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The journal is as it was.
    #[error(transparent)]
    Refused(io::Error),
    /// Half a record may stand at its end.
    #[error("a half-written record could not be cut off: {0}")]
    Torn(io::Error),
}

impl AppendError {
    /// For a journal that nobody needs when it is not complete.
    pub(super) fn into_io(self) -> io::Error {
        let (Self::Refused(error) | Self::Torn(error)) = self;
        error
    }
}

impl Journal {
    /// Starts a generation in an empty file.
    pub(super) fn create(file: Arc<dyn DiskFile>, base: &Base, carried: u32) -> io::Result<Self> {
        let generation = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&generation.to_le_bytes());
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

    /// Goes on with a generation whose last good byte is known.
    pub(super) fn resume(file: Arc<dyn DiskFile>, generation: u64, bytes: u64) -> Self {
        Self { file, generation, bytes }
    }

    /// Appends records as [`encode`](crate::store::record::encode) makes them. They are durable once the file has been
    /// synced.
    ///
    /// # Errors
    /// The system refuses: none of them is in the journal, or ([`AppendError::Torn`]) nobody knows.
    pub(super) fn append(&mut self, records: &mut [u8]) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        seal(self.generation, records);
        match self.file.write_all_at(records, self.bytes) {
            Ok(()) => {
                self.bytes += records.len() as u64;
                Ok(())
            }
            // Where nothing can be written, nothing can be cut off: the next record is written over what there is.
            Err(error) if is_unwritable(&error) => Err(AppendError::Refused(error)),
            Err(error) => match self.file.set_bytes(self.bytes) {
                Ok(()) => Err(AppendError::Refused(error)),
                Err(error) => Err(AppendError::Torn(error)),
            },
        }
    }
}

/// Reads a header.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Result<Header, JournalDamage>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(file, &mut bytes, 0)?;
    Ok((read == HEADER_BYTES).then(|| parse_header(&bytes)).flatten().ok_or(JournalDamage::Header))
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let (covered, _) = bytes.split_at_checked(HEADER_BYTES - 4)?;
    let mut reader = Reader(bytes);
    let magic = reader.array::<8>()?;
    let (generation, sequence) = (reader.u64()?, reader.u64()?);
    let has_file = reader.array::<1>()?;
    let digest = FileDigest { bytes: reader.u64()?, xxh3: reader.u128()? };
    let carried = reader.u32()?;
    let is_good = magic == MAGIC && sequence <= LARGEST_SEQUENCE && reader.u32()? == crc32c::crc32c(covered);
    let digest = (has_file == [1]).then_some(digest);
    is_good.then_some(Header { generation, base: Base { sequence, digest }, carried })
}

/// Where the records begin.
pub(super) const fn first_record() -> u64 {
    HEADER_BYTES as u64
}

/// Where the good records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The offset behind the last good record.
    pub(super) bytes: u64,
    /// Bytes behind it that are no record: a write that was under way.
    pub(super) torn_bytes: u64,
}

/// Hands the records from an offset on to `visit`, in order. Stops at the first that is not whole.
///
/// A bad record is damage when a good one behind it says that it had been durable. Otherwise it, and whatever
/// follows, is a write that was never acknowledged.
pub(super) fn scan(
    file: &dyn DiskFile,
    header: &Header,
    from: u64,
    mut visit: impl FnMut(Record),
) -> io::Result<Result<End, JournalDamage>> {
    let bytes = file.identity()?.bytes;
    let mut input = Input { file, bytes, window: Vec::new(), window_start: 0 };
    let mut offset = from;
    let mut last_sequence = header.base.sequence;
    // A journal gets its name when it is durable with the keys that are carried over: a bad one is damage.
    let mut carried = if from == first_record() { header.carried } else { 0 };
    while offset < bytes {
        match input.record_at(offset, header.generation)? {
            Some((record, length)) if follows(&record, last_sequence) => {
                last_sequence = record.stamp.sequence;
                carried = carried.saturating_sub(1);
                offset += length;
                visit(record);
            }
            _ if input.is_missed(offset, header.generation, last_sequence, carried > 0)? => {
                return Ok(Err(JournalDamage::Record { offset }));
            }
            _ => break,
        }
    }
    Ok(Ok(End { bytes: offset, torn_bytes: bytes.saturating_sub(offset) }))
}

/// Whether a record may stand behind one of this sequence: a carried-over key has its base's.
fn follows(record: &Record, last: u64) -> bool {
    match record.entry {
        Entry::Repeat { .. } => record.stamp.sequence >= last,
        _ => record.stamp.sequence > last,
    }
}

/// A file that is read front to back.
struct Input<'a> {
    file: &'a dyn DiskFile,
    bytes: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Input<'_> {
    /// The whole record at an offset, and its length on disk.
    fn record_at(&mut self, offset: u64, generation: u64) -> io::Result<Option<(Record, u64)>> {
        let Some(length) = self.body_bytes(offset)? else { return Ok(None) };
        let whole = PREFIX_BYTES + length;
        let bytes = self.slice(offset, whole)?;
        let mut reader = Reader(bytes);
        let (Some(length), Some(crc)) = (reader.array::<4>(), reader.u32()) else { return Ok(None) };
        let record =
            (checksum(generation, length, reader.0) == crc).then(|| Record::decode(reader.0)).flatten();
        Ok(record.map(|record| (record, whole as u64)))
    }

    /// The length that a record at an offset claims, if it can be true.
    fn body_bytes(&mut self, offset: u64) -> io::Result<Option<usize>> {
        let rest = self.bytes.saturating_sub(offset);
        let Some(length) = Reader(self.slice(offset, PREFIX_BYTES)?).u32() else { return Ok(None) };
        let length = length as usize;
        let fits = (SMALLEST_BYTES..=LARGEST_BYTES).contains(&(length + PREFIX_BYTES))
            && (length + PREFIX_BYTES) as u64 <= rest;
        Ok(fits.then_some(length))
    }

    /// Whether some record behind an offset is good and says that the one after `last` had been durable.
    fn is_missed(&mut self, offset: u64, generation: u64, last: u64, is_carried: bool) -> io::Result<bool> {
        for candidate in offset + 1..self.bytes.saturating_sub(SMALLEST_BYTES as u64 - 1) {
            // Two words that are right by chance are rare: hardly a checksum is computed in vain.
            let mut reader = Reader(self.slice(candidate, PREFIX_BYTES + 16)?);
            let prefix = reader.array::<PREFIX_BYTES>();
            let (Some(_), Some(sequence), Some(durable)) = (prefix, reader.u64(), reader.u64()) else {
                return Ok(false);
            };
            let is_likely = (durable > last || is_carried)
                && durable < sequence
                && sequence > last
                && sequence - last <= self.bytes;
            if is_likely && self.record_at(candidate, generation)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Some bytes of the file; fewer at its end.
    fn slice(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let missing = offset < self.window_start
            || offset + length as u64 > self.window_start + self.window.len() as u64;
        if missing {
            let wanted =
                length.max(READ_BYTES).min(usize::try_from(self.bytes - offset).unwrap_or(usize::MAX));
            self.window.clear();
            self.window.shrink_to(wanted.max(READ_BYTES));
            self.window.resize(wanted, 0);
            let read = read_full(self.file, &mut self.window, offset)?;
            self.window.truncate(read);
            self.window_start = offset;
        }
        let start = usize::try_from(offset - self.window_start).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
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
