//! How much each tenant has stored: the sizes of its `.phext` files, read from the directory because its worker may not be
//! running. Writes that are only in a journal count once they are saved. The same pass adds up the disk space of all files
//! in the directory.
//!
//! Directories are measured only on request, and only if the last measurement is old. So measuring keeps the disk busy for
//! up to a twentieth of the time, however many tenants and requests there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::data_root::DataRoot;
use sq_shared::tenant::TenantName;
use sq_shared::{file_error, layout};
use tokio::sync::watch;

use super::desired::Account;

/// A measurement is valid for at least this long,
const MIN_VALID: Duration = Duration::from_secs(1);

/// and for at least this many times as long as it took.
const VALID_FACTOR: u32 = 20;

/// How long a request waits for a measurement before it gets the previous one.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// The unit of `st_blocks` on every file system.
const BLOCK_BYTES: u64 = 512;

/// The size of a tenant's directory. Of the folders in it, only phexts that a link points to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// The lengths of the `.phext` files, which count against the quota.
    pub(crate) stored_bytes: u64,
    /// The space allocated to all regular files. A file with two hard links in the directory counts twice.
    pub(crate) disk_bytes: u64,
}

/// The size of each tenant whose directory can be read.
pub(crate) type Sizes = BTreeMap<TenantName, Size>;

/// Measures the tenants' directories.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    latest: watch::Sender<Measurement>,
    data_root: Option<DataRoot>,
}

#[derive(Debug, Default)]
struct Measurement {
    sizes: Arc<Sizes>,
    unreadable: BTreeSet<TenantName>,
    missing_directories: usize,
    /// When the next measurement may begin; `None` before the first.
    due: Option<Instant>,
    is_running: bool,
}

impl Storage {
    /// Measures in this data root. Each directory that exists gets its note there.
    pub(crate) fn new(data_root: DataRoot) -> Self {
        Self { data_root: Some(data_root), ..Self::default() }
    }

    /// How many tenants' directories were missing at the latest measurement.
    pub(crate) fn missing_directories(&self) -> usize {
        self.latest.borrow().missing_directories
    }

    /// The sizes of these tenants' directories, up to about [`MIN_VALID`] old unless the disk is slow.
    pub(crate) async fn sizes(self: &Arc<Self>, accounts: &Arc<[Account]>) -> Arc<Sizes> {
        let mut latest = self.latest.subscribe();
        self.measure_if_due(accounts);
        // On a timeout, the previous sizes are used.
        let _ = tokio::time::timeout(MAX_WAIT, latest.wait_for(|latest| !latest.is_running)).await;
        Arc::clone(&self.latest.borrow().sizes)
    }

    /// Starts a measurement, unless one runs or the latest is still valid.
    pub(crate) fn measure_if_due(self: &Arc<Self>, accounts: &Arc<[Account]>) {
        let now = Instant::now();
        let is_started = self.latest.send_if_modified(|latest| {
            let is_due = !latest.is_running && latest.due.is_none_or(|due| due <= now);
            latest.is_running |= is_due;
            is_due
        });
        if !is_started {
            return;
        }
        let (storage, accounts) = (Arc::clone(self), Arc::clone(accounts));
        // A separate thread, because a disk that hangs must block neither the pool nor its exit.
        let thread = std::thread::Builder::new().name("storage".to_owned());
        if let Err(error) = thread.spawn(move || storage.measure(&accounts, now)) {
            tracing::warn!(%error, "failed to measure the tenants' directories");
            self.latest.send_modify(|latest| latest.is_running = false);
        }
    }

    fn measure(&self, accounts: &[Account], begun: Instant) {
        let (mut sizes, mut failures, mut missing_directories) = (Sizes::new(), BTreeMap::new(), 0);
        for Account { tenant, data_dir, .. } in accounts {
            if self.is_missing(tenant, data_dir) {
                missing_directories += 1;
                continue;
            }
            match Size::measure(data_dir) {
                Ok(size) => _ = sizes.insert(tenant.clone(), size),
                Err(error) => _ = failures.insert(tenant.clone(), (data_dir, error)),
            }
        }
        let ended = Instant::now();
        let valid = MIN_VALID.max(ended.saturating_duration_since(begun).saturating_mul(VALID_FACTOR));
        self.latest.send_modify(|latest| {
            for (tenant, (data_dir, error)) in &failures {
                if !latest.unreadable.contains(tenant) {
                    let data_dir = data_dir.display();
                    tracing::warn!(%tenant, %data_dir, %error, "failed to measure a tenant's directory");
                }
            }
            *latest = Measurement {
                sizes: Arc::new(sizes),
                unreadable: failures.into_keys().collect(),
                missing_directories,
                due: ended.checked_add(valid),
                is_running: false,
            };
        });
    }

    fn is_missing(&self, tenant: &TenantName, data_dir: &Path) -> bool {
        let Some(data_root) = &self.data_root else { return false };
        match data_root.review(tenant, data_dir) {
            Ok(missing) => missing.is_some(),
            // The error is logged where the directory is used.
            Err(_) => data_root.check().is_err(),
        }
    }
}

impl Size {
    /// Measures a directory. One that does not exist is empty.
    fn measure(data_dir: &Path) -> io::Result<Self> {
        let mut size = Self::default();
        let entries = match fs::read_dir(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(size),
            entries => entries.map_err(|error| file_error::explained(data_dir, error))?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => size.add(&entry.file_name(), &metadata),
                Ok(_) => {}
                // It was removed after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(file_error::named(&entry.path(), error)),
            }
        }
        for file in layout::files_in_folders(data_dir) {
            if let Ok(metadata) = file.symlink_metadata()
                && metadata.is_file()
            {
                size.add(file.file_name().unwrap_or_default(), &metadata);
            }
        }
        Ok(size)
    }

    fn add(&mut self, file_name: &OsStr, metadata: &Metadata) {
        if layout::phext_of_file(file_name).is_some() {
            self.stored_bytes = self.stored_bytes.saturating_add(metadata.len());
        }
        let allocated_bytes = metadata.blocks().saturating_mul(BLOCK_BYTES);
        self.disk_bytes = self.disk_bytes.saturating_add(allocated_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn accounts(folder: &Path) -> Arc<[Account]> {
        let account = |name: &str| Account {
            tenant: name.parse().unwrap(),
            data_dir: folder.join(name),
            quota_bytes: None,
        };
        Arc::new([account("alice"), account("bob"), account("carol")])
    }

    /// Syncs, because some file systems allocate blocks only then.
    fn write(path: &Path, bytes: usize) {
        fs::write(path, vec![b'x'; bytes]).unwrap();
        fs::File::open(path).unwrap().sync_all().unwrap();
    }

    /// As `du` counts one file.
    fn allocated_bytes(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * 512
    }

    #[tokio::test]
    async fn only_phexts_count_as_stored_and_an_unreadable_directory_has_no_size() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("alice")).unwrap();
        for (name, bytes) in [("a.phext", 3), ("b.phext", 4), ("a.journal", 100), ("a.phext.tmp", 100)] {
            fs::write(folder.path().join("alice").join(name), vec![b'x'; bytes]).unwrap();
        }
        fs::create_dir(folder.path().join("alice/folder.phext")).unwrap();
        fs::write(folder.path().join("carol"), "no directory").unwrap();
        let sizes = Arc::new(Storage::default()).sizes(&accounts(folder.path())).await;
        let stored: Vec<(&str, u64)> =
            sizes.iter().map(|(tenant, size)| (tenant.as_str(), size.stored_bytes)).collect();
        assert_eq!(stored, [("alice", 7), ("bob", 0)]);
        assert_eq!(sizes["bob"], Size::default());
    }

    #[test]
    fn every_regular_file_counts_with_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let alice = folder.path().join("alice");
        fs::create_dir_all(alice.join("folder")).unwrap();
        let names = ["a.phext", "a.journal", "a.phext.tmp", ".reserve", ".keys", "notes"];
        for (name, kib) in names.iter().zip([4, 8, 16, 32, 64, 128]) {
            write(&alice.join(name), kib << 10);
        }
        // A folder doesn't count, nor does a link to a file elsewhere. A file in a folder that links point to counts once.
        write(&alice.join("folder/b.phext"), 256 << 10);
        let in_folder = ["folder/c.phext", "folder/c.journal"];
        write(&alice.join(in_folder[0]), 512 << 10);
        write(&alice.join(in_folder[1]), 1024 << 10);
        symlink("folder/c.phext", alice.join("c.phext")).unwrap();
        symlink(alice.join("folder/c.phext"), alice.join("d.phext")).unwrap();
        write(&folder.path().join("elsewhere"), 256 << 10);
        symlink(folder.path().join("elsewhere"), alice.join("link.phext")).unwrap();

        let size = Size::measure(&alice).unwrap();
        let expected = names.iter().chain(&in_folder).map(|name| allocated_bytes(&alice.join(name))).sum();
        assert_eq!(size, Size { stored_bytes: 516 << 10, disk_bytes: expected });
    }

    #[test]
    fn a_hole_takes_no_disk_space_and_a_second_hard_link_counts_again() {
        let folder = tempfile::tempdir().unwrap();
        let alice = folder.path().join("alice");
        fs::create_dir(&alice).unwrap();
        let sparse = fs::File::create(alice.join("sparse.phext")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        write(&alice.join("a.journal"), 4 << 10);
        fs::hard_link(alice.join("a.journal"), alice.join("b.journal")).unwrap();

        let size = Size::measure(&alice).unwrap();
        let sparse_bytes = allocated_bytes(&alice.join("sparse.phext"));
        assert!(sparse_bytes < 1 << 20, "the test needs a file system with sparse files");
        let expected = sparse_bytes + 2 * allocated_bytes(&alice.join("a.journal"));
        assert_eq!(size, Size { stored_bytes: 1 << 30, disk_bytes: expected });
    }

    #[tokio::test]
    async fn a_recent_measurement_is_reused() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, accounts) = (Arc::new(Storage::default()), accounts(folder.path()));
        let first = storage.sizes(&accounts).await;
        assert!(Arc::ptr_eq(&first, &storage.sizes(&accounts).await));
        storage.latest.send_modify(|latest| latest.due = Some(Instant::now()));
        assert!(!Arc::ptr_eq(&first, &storage.sizes(&accounts).await));
    }
}
