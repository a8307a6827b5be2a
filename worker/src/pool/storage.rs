//! How much each tenant has stored: the sizes of its `.phext` files, added up without the help of its worker, which
//! may be asleep. What a journal holds is counted once it is saved. The same pass adds up what all files of the
//! tenant's directory take on disk.
//!
//! Nobody looks unless somebody asks, and then only when the last look is old: the disk is busy with this for a
//! twentieth of the time at most, however many tenants there are and however often somebody asks.

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

/// What was seen is good for this long.
const LIFETIME: Duration = Duration::from_secs(1);

/// And for so many times what it took to see it.
const REST: u32 = 20;

/// Whoever asks waits no longer for the disk, and gets what was seen before.
const PATIENCE: Duration = Duration::from_millis(500);

/// The unit of `st_blocks`, whatever the block size of the file system is.
const BLOCK_BYTES: u64 = 512;

/// What a tenant's directory holds. Folders in it are left out, but for the phexts to which its links lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// The lengths of the `.phext` files: the texts, which count against the quota.
    pub stored_bytes: u64,
    /// The space allocated to all regular files. A file with two hard links here counts twice.
    pub disk_bytes: u64,
}

/// By tenant; one whose directory cannot be read has no size.
pub type Sizes = BTreeMap<TenantName, Size>;

/// What is known of the tenants' directories.
#[derive(Debug, Default)]
pub struct Storage {
    known: watch::Sender<Known>,
    data_root: Option<DataRoot>,
}

#[derive(Debug, Default)]
struct Known {
    sizes: Arc<Sizes>,
    unreadable: BTreeSet<TenantName>,
    /// How many directories are gone.
    gone: usize,
    /// When the next look may begin; `None` before the first.
    due: Option<Instant>,
    is_looking: bool,
}

impl Storage {
    /// Of the tenants of a system with this data root, in which each directory that is there is noted.
    pub fn new(data_root: DataRoot) -> Self {
        Self { data_root: Some(data_root), ..Self::default() }
    }

    /// How many tenants had a directory that is not there any more, when that was looked at last.
    pub fn gone(&self) -> usize {
        self.known.borrow().gone
    }

    /// What these tenants' directories hold, about [`LIFETIME`] old at most unless the disk is slow.
    pub async fn sizes(self: &Arc<Self>, accounts: &Arc<[Account]>) -> Arc<Sizes> {
        let mut known = self.known.subscribe();
        self.look_if_due(accounts);
        // Too late is late: what was seen before will do.
        let _ = tokio::time::timeout(PATIENCE, known.wait_for(|known| !known.is_looking)).await;
        Arc::clone(&self.known.borrow().sizes)
    }

    /// Begins a look, unless the last one is still good.
    pub fn look_if_due(self: &Arc<Self>, accounts: &Arc<[Account]>) {
        let now = Instant::now();
        let is_begun = self.known.send_if_modified(|known| {
            let is_due = !known.is_looking && known.due.is_none_or(|due| due <= now);
            known.is_looking |= is_due;
            is_due
        });
        if !is_begun {
            return;
        }
        let (storage, accounts) = (Arc::clone(self), Arc::clone(accounts));
        // A thread of its own: a disk that hangs must hold up neither the pool nor its end.
        let looking = std::thread::Builder::new().name("storage".to_owned());
        if let Err(error) = looking.spawn(move || storage.look(&accounts, now)) {
            tracing::warn!(%error, "cannot look how much is stored");
            self.known.send_modify(|known| known.is_looking = false);
        }
    }

    fn look(&self, accounts: &[Account], begun: Instant) {
        let (mut sizes, mut failures, mut gone) = (Sizes::new(), BTreeMap::new(), 0);
        for Account { tenant, data_dir, .. } in accounts {
            if self.is_gone(tenant, data_dir) {
                gone += 1;
                continue;
            }
            match Size::of(data_dir) {
                Ok(size) => _ = sizes.insert(tenant.clone(), size),
                Err(error) => _ = failures.insert(tenant.clone(), (data_dir, error)),
            }
        }
        let ended = Instant::now();
        let rest = LIFETIME.max(ended.saturating_duration_since(begun).saturating_mul(REST));
        self.known.send_modify(|known| {
            for (tenant, (data_dir, error)) in &failures {
                if !known.unreadable.contains(tenant) {
                    let data_dir = data_dir.display();
                    tracing::warn!(%tenant, %data_dir, %error, "cannot see how much a tenant has stored");
                }
            }
            *known = Known {
                sizes: Arc::new(sizes),
                unreadable: failures.into_keys().collect(),
                gone,
                due: ended.checked_add(rest),
                is_looking: false,
            };
        });
    }
}

impl Storage {
    fn is_gone(&self, tenant: &TenantName, data_dir: &Path) -> bool {
        let Some(data_root) = &self.data_root else { return false };
        match data_root.review(tenant, data_dir) {
            Ok(gone) => gone.is_some(),
            // What cannot be looked at is told of where it is used.
            Err(_) => data_root.check().is_err(),
        }
    }
}

impl Size {
    /// A directory that was never made holds nothing.
    fn of(data_dir: &Path) -> io::Result<Self> {
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
                // Removed since it was listed.
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

    /// Syncs, because some file systems allocate no blocks before.
    fn write(path: &Path, bytes: usize) {
        fs::write(path, vec![b'x'; bytes]).unwrap();
        fs::File::open(path).unwrap().sync_all().unwrap();
    }

    /// What `du` says of one file.
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
    fn every_regular_file_takes_its_blocks_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let alice = folder.path().join("alice");
        fs::create_dir_all(alice.join("folder")).unwrap();
        let names = ["a.phext", "a.journal", "a.phext.tmp", ".reserve", ".keys", "notes"];
        for (name, kib) in names.iter().zip([4, 8, 16, 32, 64, 128]) {
            write(&alice.join(name), kib << 10);
        }
        // A folder, and a link that leads to a regular file elsewhere: neither counts. What links lead to in a folder does,
        // once.
        write(&alice.join("folder/b.phext"), 256 << 10);
        let in_folder = ["folder/c.phext", "folder/c.journal"];
        write(&alice.join(in_folder[0]), 512 << 10);
        write(&alice.join(in_folder[1]), 1024 << 10);
        symlink("folder/c.phext", alice.join("c.phext")).unwrap();
        symlink(alice.join("folder/c.phext"), alice.join("d.phext")).unwrap();
        write(&folder.path().join("elsewhere"), 256 << 10);
        symlink(folder.path().join("elsewhere"), alice.join("link.phext")).unwrap();

        let size = Size::of(&alice).unwrap();
        let expected = names.iter().chain(&in_folder).map(|name| allocated_bytes(&alice.join(name))).sum();
        assert_eq!(size, Size { stored_bytes: 516 << 10, disk_bytes: expected });
    }

    #[test]
    fn a_hole_takes_nothing_on_disk_and_a_second_hard_link_counts_again() {
        let folder = tempfile::tempdir().unwrap();
        let alice = folder.path().join("alice");
        fs::create_dir(&alice).unwrap();
        let sparse = fs::File::create(alice.join("sparse.phext")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        write(&alice.join("a.journal"), 4 << 10);
        fs::hard_link(alice.join("a.journal"), alice.join("b.journal")).unwrap();

        let size = Size::of(&alice).unwrap();
        let sparse_bytes = allocated_bytes(&alice.join("sparse.phext"));
        assert!(sparse_bytes < 1 << 20, "the test needs a file system with sparse files");
        let expected = sparse_bytes + 2 * allocated_bytes(&alice.join("a.journal"));
        assert_eq!(size, Size { stored_bytes: 1 << 30, disk_bytes: expected });
    }

    #[tokio::test]
    async fn what_was_just_seen_is_not_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, accounts) = (Arc::new(Storage::default()), accounts(folder.path()));
        let first = storage.sizes(&accounts).await;
        assert!(Arc::ptr_eq(&first, &storage.sizes(&accounts).await));
        storage.known.send_modify(|known| known.due = Some(Instant::now()));
        assert!(!Arc::ptr_eq(&first, &storage.sizes(&accounts).await));
    }
}
