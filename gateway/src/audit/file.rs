//! The file: appended to, whole lines at a time; what a crash or a full disk tore off ends before the next line. Two
//! gateways write to it during an upgrade, so each holds a lock while it does.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use sq_shared::file_lock::lock_within;

/// How long the other gateway may have the lock. It writes what has gathered, which takes less than a millisecond.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The open file.
pub(super) struct AuditFile {
    file: File,
}

/// Lines that were not written, all or in part.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// How many bytes of the lines are in the file.
    pub(super) written_bytes: usize,
    pub(super) error: io::Error,
}

impl AuditFile {
    /// Opens it, or makes it with mode 0600.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    /// Appends lines with one call, as long as the system takes them whole.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        // One that was stopped with the lock, or a backup, must not stop the writes. Lines stay whole without it, for each
        // append is one call; a torn end may be seen where there is none. What cannot be locked, such as a pipe, has one
        // writer.
        let is_locked = lock_within(&self.file, LOCK_PATIENCE).is_ok();
        let appended = self.append_alone(lines);
        if is_locked {
            // It is free at the latest when the file is closed.
            let _ = self.file.unlock();
        }
        appended
    }

    /// Nobody else writes meanwhile. Whoever did before may have left a line without its end, and died of it.
    fn append_alone(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
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

    /// Whether somebody deleted it: lines would go where nobody finds them.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }

    /// Waits until the disk has it.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            // A pipe or a device has nothing to sync.
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
    fn a_lock_that_is_never_given_back_does_not_stop_the_lines() {
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
        // Longer than a page: the file's size is seen to grow while such a piece is written.
        let batch = |writer: char| format!("{{\"{}\"}}\n", writer.to_string().repeat(700)).repeat(20);
        std::thread::scope(|scope| {
            for writer in ['a', 'b'] {
                let (path, batch) = (&path, batch(writer));
                scope.spawn(move || {
                    for _ in 0..BATCHES {
                        // Opened anew each time, as a process does that starts while the other one writes.
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
    fn a_line_that_another_writer_tore_off_is_ended_first() {
        let root = Root::empty();
        let path = root.join("audit.log");
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        std::fs::write(&path, "one\ntor").unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(root.read("audit.log"), "one\ntor\ntwo\n");
    }
}
