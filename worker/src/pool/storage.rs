//! How much each tenant has stored: the sizes of its `.phext` files, added up without the help of its worker, which
//! may be asleep. What a journal holds is counted once it is saved.
//!
//! Nobody looks unless somebody asks, and then only when the last look is old: the disk is busy with this for a
//! twentieth of the time at most, however many tenants there are and however often somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::layout;
use sq_shared::tenant::TenantName;
use tokio::sync::watch;

use super::desired::Account;

/// What was seen is good for this long.
const LIFETIME: Duration = Duration::from_secs(1);

/// And for so many times what it took to see it.
const REST: u32 = 20;

/// Whoever asks waits no longer for the disk, and gets what was seen before.
const PATIENCE: Duration = Duration::from_millis(500);

/// In bytes, by tenant; whose directory cannot be read has no number.
pub type Sizes = BTreeMap<TenantName, u64>;

/// What is known of the tenants' directories.
#[derive(Debug, Default)]
pub struct Storage {
    known: watch::Sender<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sizes: Arc<Sizes>,
    unreadable: BTreeSet<TenantName>,
    /// When the next look may begin; `None` before the first.
    due: Option<Instant>,
    is_looking: bool,
}

impl Storage {
    /// The sizes of these tenants' phexts, about [`LIFETIME`] old at most unless the disk is slow.
    pub async fn sizes(self: &Arc<Self>, accounts: &Arc<[Account]>) -> Arc<Sizes> {
        let mut known = self.known.subscribe();
        self.look_if_due(accounts);
        // Too late is late: what was seen before will do.
        let _ = tokio::time::timeout(PATIENCE, known.wait_for(|known| !known.is_looking)).await;
        Arc::clone(&self.known.borrow().sizes)
    }

    fn look_if_due(self: &Arc<Self>, accounts: &Arc<[Account]>) {
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
        let (mut sizes, mut failures) = (Sizes::new(), BTreeMap::new());
        for Account { tenant, data_dir, .. } in accounts {
            match stored_bytes(data_dir) {
                Ok(bytes) => _ = sizes.insert(tenant.clone(), bytes),
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
                due: ended.checked_add(rest),
                is_looking: false,
            };
        });
    }
}

/// A directory that was never made holds nothing.
fn stored_bytes(data_dir: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0_u64;
    for entry in entries {
        let entry = entry?;
        if layout::phext_of_file(&entry.file_name()).is_none() {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => bytes = bytes.saturating_add(metadata.len()),
            Ok(_) => {}
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(folder: &Path) -> Arc<[Account]> {
        let account = |name: &str| Account {
            tenant: name.parse().unwrap(),
            data_dir: folder.join(name),
            quota_bytes: None,
        };
        Arc::new([account("alice"), account("bob"), account("carol")])
    }

    #[tokio::test]
    async fn only_phexts_are_counted_and_who_cannot_be_read_has_no_number() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("alice")).unwrap();
        for (name, bytes) in [("a.phext", 3), ("b.phext", 4), ("a.journal", 100), ("a.phext.tmp", 100)] {
            fs::write(folder.path().join("alice").join(name), vec![b'x'; bytes]).unwrap();
        }
        fs::create_dir(folder.path().join("alice/folder.phext")).unwrap();
        fs::write(folder.path().join("carol"), "no directory").unwrap();
        let sizes = Arc::new(Storage::default()).sizes(&accounts(folder.path())).await;
        let expected = [("alice".parse().unwrap(), 7), ("bob".parse().unwrap(), 0)];
        assert_eq!(*sizes, Sizes::from(expected));
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
