//! The file: appended to, whole lines at a time; what a crash or a full disk tore off ends before the next line.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The open file.
pub(super) struct AuditFile {
    file: File,
    /// Its last line has no end.
    is_torn: bool,
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
        let is_torn = is_torn(&file)?;
        Ok(Self { file, is_torn })
    }

    /// Appends lines with one call, as long as the system takes them whole.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        if self.is_torn {
            let unwritten = |error| Unwritten { written_bytes: 0, error };
            self.file.write_all(b"\n").map_err(unwritten)?;
            self.is_torn = false;
        }
        let mut written_bytes = 0;
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
