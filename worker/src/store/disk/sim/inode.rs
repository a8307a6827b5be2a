//! A file of the simulated disk: its bytes in the page cache, and those that a power cut leaves.

use std::sync::Arc;

use super::fate::Fate;
use sq_tests::random::Random;

/// The unit that a disk writes atomically.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// What a program reads.
    pub(super) cached: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since the last sync, in order.
    unsynced: Vec<Change>,
    pub(super) times: Times,
    durable_times: Times,
    /// The space of the file on the disk.
    pub(super) space_bytes: usize,
    /// Each open file has a clone.
    handles: Arc<()>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
}

#[derive(Debug, Clone)]
struct Change {
    kind: Kind,
    /// The length of the file after the change.
    bytes_after: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    Write { offset: usize, bytes: Vec<u8> },
    Length,
}

impl Inode {
    pub(super) fn new(now_ns: i64) -> Self {
        let times = Times { modified_ns: now_ns, changed_ns: now_ns };
        Self {
            cached: Vec::new(),
            durable: Vec::new(),
            unsynced: Vec::new(),
            times,
            durable_times: times,
            space_bytes: 0,
            handles: Arc::new(()),
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], now_ns: i64) {
        overwrite(&mut self.cached, offset, bytes);
        self.space_bytes = self.space_bytes.max(offset + bytes.len());
        self.changed(Kind::Write { offset, bytes: bytes.to_vec() }, now_ns);
    }

    pub(super) fn set_length(&mut self, length: usize, now_ns: i64) {
        self.cached.resize(length, 0);
        self.space_bytes = self.space_bytes.min(length);
        self.changed(Kind::Length, now_ns);
    }

    fn changed(&mut self, kind: Kind, now_ns: i64) {
        self.unsynced.push(Change { kind, bytes_after: self.cached.len() });
        self.times = Times { modified_ns: now_ns, changed_ns: now_ns };
    }

    /// Makes the unsynced changes durable, but not those that an earlier sync failed to write.
    pub(super) fn sync_data(&mut self) {
        for Change { kind, bytes_after } in self.unsynced.drain(..) {
            match kind {
                Kind::Write { offset, bytes } => overwrite(&mut self.durable, offset, &bytes),
                Kind::Length => self.durable.resize(bytes_after, 0),
            }
        }
    }

    pub(super) fn sync_all(&mut self) {
        self.sync_data();
        self.durable_times = self.times;
    }

    /// The unsynced changes when a sync fails: from then on they count as written.
    ///
    /// The length is metadata, which reaches the disk in order; the bytes come in any order and sector by
    /// sector. Where the length arrived and the bytes did not, there are zeros.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        let fate = Fate::draw(random);
        let lengths = fate.prefix(changes.len(), random);
        let length = lengths.checked_sub(1).map_or(self.durable.len(), |last| changes[last].bytes_after);
        for (at, change) in changes.into_iter().enumerate() {
            match change.kind {
                Kind::Write { offset, bytes } => self.write_torn(fate, offset, &bytes, random),
                Kind::Length if at < lengths => self.durable.resize(change.bytes_after, 0),
                Kind::Length => {}
            }
        }
        self.durable.resize(length, 0);
    }

    fn write_torn(&mut self, fate: Fate, offset: usize, bytes: &[u8], random: &mut Random) {
        let end = offset + bytes.len();
        let first = offset / SECTOR_BYTES;
        let stays = fate.sectors(end.div_ceil(SECTOR_BYTES) - first, random);
        for (sector, _) in (first..).zip(stays).filter(|(_, stays)| *stays) {
            let from = offset.max(sector * SECTOR_BYTES);
            let to = end.min((sector + 1) * SECTOR_BYTES);
            overwrite(&mut self.durable, from, &bytes[from - offset..to - offset]);
        }
    }

    /// The file after a power cut.
    pub(super) fn crash(&mut self, random: &mut Random) {
        self.fail_sync(random);
        self.cached = self.durable.clone();
        self.space_bytes = self.cached.len();
        // Only a full sync makes them durable.
        if random.one_in(2) {
            self.times = self.durable_times;
        }
        self.durable_times = self.times;
    }

    /// Keeps the file's space taken for as long as it lives.
    pub(super) fn handle(&self) -> Arc<()> {
        Arc::clone(&self.handles)
    }

    pub(super) fn is_open(&self) -> bool {
        Arc::strong_count(&self.handles) > 1
    }

    /// After a new start no process has it open.
    pub(super) fn close(&mut self) {
        self.handles = Arc::new(());
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
