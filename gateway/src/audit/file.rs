//! The audit file, to which whole lines are appended. A line that a crash or a full disk cut off is terminated before the next
//! one. During an upgrade two gateways write to the file, each under a lock.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use sq_shared::file_lock::lock_within;

/// How long the other gateway may hold the lock. One append takes less than a millisecond.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct AuditFile {
    file: File,
}

/// An append failed, possibly after a part was written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) written_bytes: usize,
    pub(super) error: io::Error,
}

impl AuditFile {
    /// Opens the file, or creates it with mode 0600.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    /// Appends lines, with one system call unless the system writes only a part.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        // A stopped process that holds the lock, or a backup, must not stop the writes. Without the lock, lines stay whole,
        // because each append is one call; but another gateway's append in progress may look like a cut-off line. A file that
        // cannot be locked, such as a pipe, has one writer.
        let is_locked = lock_within(&self.file, LOCK_TIMEOUT).is_ok();
        let appended = self.append_locked(lines);
        if is_locked {
            // It is released when the file is closed at the latest.
            let _ = self.file.unlock();
        }
        appended
    }

    /// Appends lines under the lock. Another writer may have died and left a line without its end.
    fn append_locked(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut written_bytes = 0;
        let unwritten = |error| Unwritten { written_bytes: 0, error };
        if is_torn(&self.file).map_err(unwritten)? {
            self.file.write_all(b"\n").map_err(unwritten)?;
        }
        while let Some(rest) = lines.get(written_bytes..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err(Unwritten { written_bytes, error: ErrorKind::WriteZero.into() }),
                Ok(count) => written_bytes += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Unwritten { written_bytes, error }),
            }
        }
        Ok(())
    }

    /// Whether the file was deleted, so that its lines could not be found.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            // A pipe or a device cannot be synced.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }
}

fn is_torn(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, metadata.len() - 1)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use sq_tests::root::Root;

    use super::*;

    #[test]
    fn a_lock_that_is_never_released_does_not_stop_the_lines() {
        let root = Root::empty();
        let path = root.join("audit.log");
        let holder = File::create(&path).unwrap();
        holder.lock().unwrap();
        AuditFile::open(&path).unwrap().append(b"one\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
    }

    #[test]
    fn two_writers_leave_whole_lines() {
        const BATCHES: usize = 200;
        let root = Root::empty();
        let path = root.join("audit.log");
        // Longer than a page, because the file's size can be seen to grow during such a write.
        let batch = |writer: char| format!("{{\"{}\"}}\n", writer.to_string().repeat(700)).repeat(20);
        std::thread::scope(|scope| {
            for writer in ['a', 'b'] {
                let (path, batch) = (&path, batch(writer));
                scope.spawn(move || {
                    for _ in 0..BATCHES {
                        // Opened each time, as by a process that starts while the other one writes.
                        AuditFile::open(path).unwrap().append(batch.as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = root.read("audit.log");
        for writer in ['a', 'b'] {
            let line = batch(writer).lines().next().unwrap().to_owned();
            assert_eq!(text.lines().filter(|found| **found == line).count(), 20 * BATCHES);
        }
        assert_eq!(text.lines().count(), 2 * 20 * BATCHES);
    }

    #[test]
    fn a_line_that_another_writer_cut_off_is_terminated_first() {
        let root = Root::empty();
        let path = root.join("audit.log");
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        std::fs::write(&path, "one\ntor").unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(root.read("audit.log"), "one\ntor\ntwo\n");
    }
}
