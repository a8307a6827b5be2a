//! The disk's own limit: what the system calls of a group commit cost when nothing else is done.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::samples::Samples;

/// A record of a journal that holds a text of about 100 bytes.
const RECORD_BYTES: usize = 250;

/// Whether a small file is replaced after each group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pattern {
    /// Append the records in one write, fdatasync.
    Append,
    /// The same; then write a file of so many bytes beside the old, fsync, rename, fsync the directory.
    AppendAndReplace(usize),
}

/// Repeats a pattern for a time: the time of each group of records.
pub(crate) fn measure(dir: &Path, pattern: Pattern, records: usize, time: Duration) -> Samples {
    let folder = tempfile::Builder::new().prefix("disk-").tempdir_in(dir).expect("a folder on the disk");
    let directory = File::open(folder.path()).expect("the folder");
    let mut journal = File::create(folder.path().join("journal")).expect("a journal");
    let group = vec![b'x'; RECORD_BYTES * records];
    let started = Instant::now();
    let mut samples = Samples::default();
    while samples.count() == 0 || started.elapsed() < time {
        let begun = Instant::now();
        journal.write_all(&group).expect("room for the journal");
        journal.sync_data().expect("a synced journal");
        if let Pattern::AppendAndReplace(bytes) = pattern {
            replace(folder.path(), &directory, bytes);
        }
        samples.push(begun.elapsed());
    }
    samples
}

fn replace(folder: &Path, directory: &File, bytes: usize) {
    let (temporary, path) = (folder.join("file.tmp"), folder.join("file"));
    let mut file = File::create(&temporary).expect("a new file");
    file.write_all(&vec![b'x'; bytes]).expect("room for the file");
    file.sync_all().expect("a synced file");
    fs::rename(temporary, path).expect("the file in place");
    directory.sync_all().expect("a synced directory");
}
