//! The pool's looks at tenants' directories, each on a blocking thread: one that hangs delays its own tenant, and nothing
//! else. A worker is told what is at its path, and ends when that is not what it has open; what is missing is made for a new
//! tenant, and for no other (`shared/src/data_root/place.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sq_shared::data_root::{DataRoot, DirectoryId, Place, RootWatch};
use sq_shared::tenant::TenantName;
use tokio::sync::mpsc;

use super::desired::{Account, Assignment, Desired};
use super::observed::{Observed, PlaceState};
use super::{Event, Pool};

/// How often the directories of running workers are looked at, and those that are gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The looks that are under way.
#[derive(Debug, Default)]
pub(super) struct Places {
    data_root: Option<Arc<DataRoot>>,
    /// The slots, and the directories that are being looked at for them. A look at a disk that hangs does not end, and must
    /// not keep a tenant from the directory that the registry names instead.
    under_way: BTreeSet<(u16, PathBuf)>,
}

/// What a look has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Only which directory is at the path, or [`DirectoryId::NONE`].
    Now(DirectoryId),
    /// What is to be made of it, and where the path leads when something is there.
    Found(Place, Option<Resolved>),
    /// The system does not let us look, and says this.
    Unclear(io::ErrorKind, String),
}

/// Where a tenant's path leads, links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    real: PathBuf,
    /// The folder that the path is in.
    folder: PathBuf,
}

impl Resolved {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.parent().unwrap_or(data_dir);
        Ok(Self { real: data_dir.canonicalize()?, folder: folder.canonicalize()? })
    }

    /// Whether the path of one tenant's directory leads to that of another, or into or around it, as far as the names tell.
    fn is_taken(&self, own: &Path, theirs: &Path) -> bool {
        let beside = theirs.file_name().filter(|_| own.parent() == theirs.parent());
        let theirs = beside.map_or_else(|| theirs.to_owned(), |name| self.folder.join(name));
        let is_link = own.file_name().is_some_and(|name| self.real != self.folder.join(name));
        self.real.starts_with(&theirs) || (is_link && theirs.starts_with(&self.real))
    }
}

impl Places {
    /// Looks at the data root and, when it is asked for, at directories in it and elsewhere. Call it inside a runtime.
    pub(super) fn start(data_root: DataRoot, events: &mpsc::UnboundedSender<Event>) -> io::Result<Self> {
        let sender = events.clone();
        RootWatch::new(data_root.clone())
            .spawn(move |is_lost| sender.send(Event::DataRootLost(is_lost)).is_ok())?;
        let sender = events.clone();
        tokio::spawn(async move {
            while sender.send(Event::LookDue).is_ok() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
        Ok(Self { data_root: Some(Arc::new(data_root)), under_way: BTreeSet::new() })
    }

    /// Looks at a tenant's directory, of which this is known, unless that is being done.
    fn look(
        &mut self,
        port: u16,
        assignment: &Arc<Assignment>,
        place: Option<PlaceState>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let Some(data_root) = &self.data_root else { return };
        if !self.under_way.insert((port, assignment.data_dir.clone())) {
            return;
        }
        let (data_root, assignment, events) = (Arc::clone(data_root), Arc::clone(assignment), events.clone());
        tokio::task::spawn_blocking(move || {
            let data_dir = &assignment.data_dir;
            let seen = match (place, DirectoryId::at(data_dir)) {
                (Some(PlaceState::There(known)), Ok(id)) if id == known => Ok(Seen::Now(id)),
                (Some(PlaceState::There(_)), Err(error)) => Err(error),
                _ => match data_root.find_or_make(&assignment.tenant, data_dir) {
                    Ok(there @ Place::There(_)) => {
                        Resolved::of(data_dir).map(|resolved| Seen::Found(there, Some(resolved)))
                    }
                    found => found.map(|place| Seen::Found(place, None)),
                },
            };
            let seen = seen.unwrap_or_else(|error| Seen::Unclear(error.kind(), error.to_string()));
            // The loop that receives ends only with the process.
            let _ = events.send(Event::Looked(port, assignment, seen));
        });
    }
}

impl Pool {
    /// Looks at the directories of workers that run, and at those that are gone.
    pub(super) fn look_around(&mut self) {
        if self.observed.is_root_lost || self.desired.is_closing {
            return;
        }
        for (port, assignment) in &self.desired.assignments {
            let Some(slot) = self.observed.slots.get(port) else { continue };
            let place = slot.place_of(assignment);
            let is_served = slot.worker.as_ref().is_some_and(|worker| worker.stop.is_none());
            if is_served || matches!(place, Some(PlaceState::Gone | PlaceState::Looking)) {
                self.places.look(*port, assignment, place, &self.sender);
            }
        }
    }

    /// The first worker of a tenant is started when its directory has been looked at, and made if the tenant is new. Later
    /// ones find out by themselves whether it is there still.
    pub(super) fn look_before_first_start(&mut self, port: u16) {
        let (Some(assignment), Some(slot)) =
            (self.desired.assignments.get(&port), self.observed.slots.get_mut(&port))
        else {
            return;
        };
        if self.places.data_root.is_some()
            && !self.observed.is_root_lost
            && slot.place_of(assignment).is_none()
        {
            slot.place = Some((Arc::clone(assignment), PlaceState::Looking));
            self.look_at(port);
        }
    }

    /// Looks at one directory, of which nothing is known.
    pub(super) fn look_at(&mut self, port: u16) {
        if let Some(assignment) = self.desired.assignments.get(&port) {
            self.places.look(port, assignment, None, &self.sender);
        }
    }

    /// The data root is lost or back. What was known of the directories in it is not any more.
    pub(super) fn note_root(&mut self, is_lost: bool) {
        self.observed.is_root_lost = is_lost;
        self.observed.slots.values_mut().for_each(|slot| slot.place = None);
        self.observed.tell_places(&mut self.desired);
    }

    pub(super) fn note_look(&mut self, port: u16, looked_at: &Arc<Assignment>, seen: Seen) {
        self.places.under_way.remove(&(port, looked_at.data_dir.clone()));
        let owner = self.owner_of(looked_at, &seen, port);
        let Some(assignment) = self.desired.assignments.get(&port) else { return };
        let Some(slot) = self.observed.slots.get_mut(&port) else { return };
        if !assignment.is_same_worker(looked_at) || self.observed.is_root_lost {
            return;
        }
        let before = slot.place_of(assignment);
        let (tenant, data_dir) = (&assignment.tenant, assignment.data_dir.display());
        let place = match seen {
            _ if let Some(owner) = owner => {
                if before != Some(PlaceState::Gone) {
                    tracing::error!(
                        %tenant, %data_dir, %owner,
                        "the path of the tenant's directory leads to that of another: nothing of this tenant is read or \
                         written until it leads to its own"
                    );
                }
                Some(PlaceState::Gone)
            }
            Seen::Now(id) => Some(PlaceState::There(id)),
            Seen::Found(Place::There(id), _) => {
                if before == Some(PlaceState::Gone) {
                    tracing::info!(%tenant, %data_dir, "the tenant's directory is there again");
                }
                Some(PlaceState::There(id))
            }
            Seen::Found(Place::Gone(why), _) => {
                if before != Some(PlaceState::Gone) {
                    tracing::error!(
                        %tenant, %data_dir,
                        "the tenant's directory is gone: {}. Nothing of this tenant is read or written. Mount or restore it. \
                         If it is to begin with an empty one, run `sq-gateway tenants make-directory {tenant} --config {}`",
                        why.as_str(),
                        self.source.config.display()
                    );
                }
                Some(PlaceState::Gone)
            }
            // It has been said.
            Seen::Unclear(..) if before == Some(PlaceState::Gone) => before,
            // What was seen stands until a look says otherwise. Without any, what may be missing is not served; nor is what
            // this user may not use, of which a worker would make nothing.
            Seen::Unclear(why, _)
                if why != io::ErrorKind::PermissionDenied && matches!(before, Some(PlaceState::There(_))) =>
            {
                before
            }
            Seen::Unclear(_, error) => {
                tracing::error!(
                    %tenant, %data_dir, error,
                    "the tenant's directory cannot be looked at, used or made: nothing of this tenant is read or written until \
                     that works"
                );
                Some(PlaceState::Gone)
            }
        };
        slot.place = place.map(|place| (Arc::clone(assignment), place));
        self.observed.tell_places(&mut self.desired);
    }
}

impl Pool {
    /// The other tenant whose directory this is: by the real path, whether or not the other has been asked for; and by what
    /// has been looked at.
    fn owner_of(&self, looked_at: &Assignment, seen: &Seen, port: u16) -> Option<TenantName> {
        // What is at the path as before was asked about then.
        let Seen::Found(Place::There(id), resolved) = seen else { return None };
        let is_of_another = |account: &&Account| {
            let is_taken = |way: &Resolved| way.is_taken(&looked_at.data_dir, &account.data_dir);
            account.tenant != looked_at.tenant && resolved.as_ref().is_some_and(is_taken)
        };
        if let Some(owner) = self.accounts.iter().find(is_of_another) {
            return Some(owner.tenant.clone());
        }
        let others = self.desired.assignments.iter().filter(|(other, _)| **other != port);
        let is_theirs = |other: u16, assignment| {
            let place = self.observed.slots.get(&other).and_then(|slot| slot.place_of(assignment));
            place == Some(PlaceState::There(*id))
        };
        let mut owners = others.filter(|(other, assignment)| is_theirs(**other, assignment));
        owners.next().map(|(_, assignment)| assignment.tenant.clone())
    }
}

impl Observed {
    /// Has every worker told what is at its path now.
    pub(super) fn tell_places(&self, desired: &mut Desired) {
        for (port, assignment) in &mut desired.assignments {
            let directory = self.directory_of(*port, assignment);
            if assignment.settings.directory != directory {
                Arc::make_mut(assignment).settings.directory = directory;
            }
        }
    }

    fn directory_of(&self, port: u16, assignment: &Assignment) -> Option<DirectoryId> {
        match self.slots.get(&port)?.place_of(assignment)? {
            PlaceState::There(id) => Some(id),
            PlaceState::Looking | PlaceState::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_to_another_tenants_directory_is_told_by_names_alone() {
        for (own, real, folder, theirs, is_taken) in [
            // Plain ones, beside each other and elsewhere.
            ("/data/alice", "/data/alice", "/data", "/data/bob", false),
            ("/data/alice", "/data/alice", "/data", "/data/alice-2", false),
            ("/data/alice", "/data/alice", "/data", "/mnt/bob", false),
            // The data root is behind a link.
            ("/data/alice", "/disk/alice", "/disk", "/data/bob", false),
            ("/data/alice", "/disk/bob", "/disk", "/data/bob", true),
            // Links to a tenant's directory, into it, around it.
            ("/data/alice", "/data/bob", "/data", "/data/bob", true),
            ("/data/alice", "/mnt/bob", "/data", "/mnt/bob", true),
            ("/data/alice", "/data/bob/years", "/data", "/data/bob", true),
            ("/data/alice", "/data", "/data", "/data/bob", true),
            ("/data/alice", "/elsewhere", "/data", "/data/bob", false),
            // A folder on the way was replaced.
            ("/mnt/bob", "/data/bob", "/data", "/data/bob", true),
            // The other's path leads through this one, and elsewhere: the registry has seen to it.
            ("/data/alice", "/data/alice", "/data", "/data/alice/link", false),
        ] {
            let resolved = Resolved { real: real.into(), folder: folder.into() };
            assert_eq!(
                resolved.is_taken(Path::new(own), Path::new(theirs)),
                is_taken,
                "{own} {real} {theirs}"
            );
        }
    }
}
