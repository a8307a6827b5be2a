//! Checks whether tenants' directories exist, each on a blocking thread, so that a disk that hangs delays only its own
//! tenant. The pool sends a worker which directory is at its path, and the worker exits if it has another one open. A
//! missing directory is created for a new tenant only (`shared/src/data_root/place.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sq_shared::data_root::{DataRoot, Place, RootWatch};
use sq_shared::file_id::FileId;
use sq_shared::tenant::TenantName;
use tokio::sync::mpsc;

use super::Pool;
use super::desired::{Account, Assignment, Desired};
use super::directory_check::{CheckResult, Resolved};
use super::event::Event;
use super::observed::{DirectoryState, Observed};

/// How often the directories of running workers, and missing ones, are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The checks in progress.
#[derive(Debug, Default)]
pub(super) struct DirectoryChecks {
    data_root: Option<Arc<DataRoot>>,
    /// The slot and directory of each check in progress. A check of a disk that hangs does not end; it must not block that of
    /// another directory that the registry names later.
    in_progress: BTreeSet<(u16, PathBuf)>,
}

impl DirectoryChecks {
    /// Starts watching the data root, and the timer of the checks. Call it inside a runtime.
    pub(super) fn start(data_root: DataRoot, events: &mpsc::UnboundedSender<Event>) -> io::Result<Self> {
        let sender = events.clone();
        RootWatch::new(data_root.clone())
            .spawn(move |is_missing| sender.send(Event::DataRootChanged { is_missing }).is_ok())?;
        let sender = events.clone();
        tokio::spawn(async move {
            while sender.send(Event::DirectoryCheckDue).is_ok() {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        });
        Ok(Self { data_root: Some(Arc::new(data_root)), in_progress: BTreeSet::new() })
    }

    /// Checks a tenant's directory, whose state was `known`, unless a check of it is in progress.
    fn start_check(
        &mut self,
        port: u16,
        assignment: &Arc<Assignment>,
        known: Option<DirectoryState>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let Some(data_root) = &self.data_root else { return };
        if !self.in_progress.insert((port, assignment.data_dir.clone())) {
            return;
        }
        let (data_root, assignment, events) = (Arc::clone(data_root), Arc::clone(assignment), events.clone());
        tokio::task::spawn_blocking(move || {
            let result = CheckResult::check(&data_root, &assignment, known);
            // Never fails: the loop that receives ends only with the process.
            let _ = events.send(Event::DirectoryChecked(port, assignment, result));
        });
    }
}

impl Pool {
    /// Checks the directories of running workers, and missing ones.
    pub(super) fn check_directories(&mut self) {
        if self.observed.is_data_root_missing || self.desired.is_closing {
            return;
        }
        for (port, assignment) in &self.desired.assignments {
            let Some(slot) = self.observed.slots.get(port) else { continue };
            let known = slot.directory_state(assignment);
            let is_served = slot.worker.as_ref().is_some_and(|worker| worker.stop.is_none());
            if is_served || matches!(known, Some(DirectoryState::Missing | DirectoryState::Checking)) {
                self.directories.start_check(*port, assignment, known, &self.sender);
            }
        }
    }

    /// Checks a tenant's directory, and creates it for a new tenant, before its first worker starts. Later workers detect
    /// themselves whether it still exists.
    pub(super) fn check_before_first_start(&mut self, port: u16) {
        let (Some(assignment), Some(slot)) =
            (self.desired.assignments.get(&port), self.observed.slots.get_mut(&port))
        else {
            return;
        };
        if self.directories.data_root.is_some()
            && !self.observed.is_data_root_missing
            && slot.directory_state(assignment).is_none()
        {
            slot.directory = Some((Arc::clone(assignment), DirectoryState::Checking));
            self.check_directory(port);
        }
    }

    /// Checks one directory whose state is unknown.
    pub(super) fn check_directory(&mut self, port: u16) {
        if let Some(assignment) = self.desired.assignments.get(&port) {
            self.directories.start_check(port, assignment, None, &self.sender);
        }
    }

    /// The data root went missing or is back. Every earlier result is void.
    pub(super) fn data_root_changed(&mut self, is_missing: bool) {
        self.observed.is_data_root_missing = is_missing;
        self.observed.slots.values_mut().for_each(|slot| slot.directory = None);
        self.observed.set_directories(&mut self.desired);
    }

    pub(super) fn directory_checked(&mut self, port: u16, checked: &Arc<Assignment>, result: CheckResult) {
        self.directories.in_progress.remove(&(port, checked.data_dir.clone()));
        let owner = self.owner_of(checked, &result, port);
        let Some(assignment) = self.desired.assignments.get(&port) else { return };
        let Some(slot) = self.observed.slots.get_mut(&port) else { return };
        if !assignment.is_same_worker(checked) || self.observed.is_data_root_missing {
            return;
        }
        let before = slot.directory_state(assignment);
        let was_missing = before == Some(DirectoryState::Missing);
        let (tenant, data_dir) = (&assignment.tenant, assignment.data_dir.display());
        let state = match result {
            _ if let Some(owner) = owner => {
                if !was_missing {
                    tracing::error!(
                        %tenant, %data_dir, %owner,
                        "the tenant's directory leads to another tenant's; this tenant is not served until it leads to its own"
                    );
                }
                DirectoryState::Missing
            }
            CheckResult::Unchanged(id) => DirectoryState::Present(id),
            CheckResult::Found(Place::There(id), _) => {
                if was_missing {
                    tracing::info!(%tenant, %data_dir, "the tenant's directory is back");
                }
                DirectoryState::Present(id)
            }
            CheckResult::Found(Place::Gone(why), _) => {
                if !was_missing {
                    tracing::error!(
                        %tenant, %data_dir,
                        "the tenant's directory is missing: {}. This tenant is not served. Mount or restore the directory. To \
                         begin with an empty one, run `sq-gateway tenants make-directory {tenant} --config {}`",
                        why.as_str(),
                        self.source.config.display()
                    );
                }
                DirectoryState::Missing
            }
            // Logged before.
            CheckResult::Failed(..) if was_missing => DirectoryState::Missing,
            // Keeps the earlier result. Without one, the directory may be missing, so the tenant is not served; nor is it if
            // this user has no permission, because a worker would have none either.
            CheckResult::Failed(why, _)
                if why != io::ErrorKind::PermissionDenied
                    && let Some(present @ DirectoryState::Present(_)) = before =>
            {
                present
            }
            CheckResult::Failed(_, error) => {
                tracing::error!(
                    %tenant, %data_dir, error,
                    "failed to check or create the tenant's directory; this tenant is not served until that succeeds"
                );
                DirectoryState::Missing
            }
        };
        slot.directory = Some((Arc::clone(assignment), state));
        self.observed.set_directories(&mut self.desired);
    }

    /// The other tenant whose directory this is, by the real paths of all tenants, or by the directories that were checked.
    fn owner_of(&self, checked: &Assignment, result: &CheckResult, port: u16) -> Option<TenantName> {
        // An unchanged directory was compared when it was found.
        let CheckResult::Found(Place::There(id), resolved) = result else { return None };
        let is_of_another = |account: &&Account| {
            let overlaps = |resolved: &Resolved| resolved.overlaps(&checked.data_dir, &account.data_dir);
            account.tenant != checked.tenant && resolved.as_ref().is_some_and(overlaps)
        };
        if let Some(owner) = self.accounts.iter().find(is_of_another) {
            return Some(owner.tenant.clone());
        }
        let others = self.desired.assignments.iter().filter(|(other, _)| **other != port);
        let is_theirs = |other: u16, assignment| {
            let state = self.observed.slots.get(&other).and_then(|slot| slot.directory_state(assignment));
            state == Some(DirectoryState::Present(*id))
        };
        let mut owners = others.filter(|(other, assignment)| is_theirs(**other, assignment));
        owners.next().map(|(_, assignment)| assignment.tenant.clone())
    }
}

impl Observed {
    /// Puts into every worker's settings which directory is at its path now.
    pub(super) fn set_directories(&self, desired: &mut Desired) {
        for (port, assignment) in &mut desired.assignments {
            let directory = self.directory_of(*port, assignment);
            if assignment.settings.directory != directory {
                Arc::make_mut(assignment).settings.directory = directory;
            }
        }
    }

    fn directory_of(&self, port: u16, assignment: &Assignment) -> Option<FileId> {
        match self.slots.get(&port)?.directory_state(assignment)? {
            DirectoryState::Present(id) => Some(id),
            DirectoryState::Checking | DirectoryState::Missing => None,
        }
    }
}
