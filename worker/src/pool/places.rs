//! The pool's looks at tenants' directories, each on a blocking thread: one that hangs delays its own tenant, and nothing
//! else. A worker is told what is at its path, and ends when that is not what it has open; what is missing is made for a new
//! tenant, and for no other (`shared/src/data_root/place.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sq_shared::data_root::{DataRoot, DirectoryId, Gone, Place, RootWatch};
use sq_shared::tenant::TenantName;
use tokio::sync::mpsc;

use super::desired::{Assignment, Desired};
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
    /// What is to be made of it.
    Found(Place),
    /// The system does not let us look, and says this.
    Unclear(io::ErrorKind, String),
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
                (Some(PlaceState::Gone), Ok(DirectoryId::NONE)) => {
                    Ok(Seen::Found(Place::Gone(Gone::Missing)))
                }
                _ => data_root.find_or_make(&assignment.tenant, data_dir).map(Seen::Found),
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
        let owner = self.owner_of(&seen, port);
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
            Seen::Found(Place::There(id)) => {
                if before == Some(PlaceState::Gone) {
                    tracing::info!(%tenant, %data_dir, "the tenant's directory is there again");
                }
                Some(PlaceState::There(id))
            }
            Seen::Found(Place::Gone(why)) => {
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
            // What was seen stands until a look says otherwise. Without any, what may be missing is not served.
            Seen::Unclear(..) if matches!(before, Some(PlaceState::There(_) | PlaceState::Gone)) => before,
            // The worker cannot take a file for an empty directory, and says what it is.
            Seen::Unclear(io::ErrorKind::NotADirectory, _) => None,
            Seen::Unclear(_, error) => {
                tracing::error!(
                    %tenant, %data_dir, error,
                    "cannot look at or make the tenant's directory: nothing of this tenant is read or written until that works"
                );
                Some(PlaceState::Gone)
            }
        };
        slot.place = place.map(|place| (Arc::clone(assignment), place));
        self.observed.tell_places(&mut self.desired);
    }
}

impl Pool {
    /// The other tenant whose directory this is, as far as it has been looked at.
    fn owner_of(&self, seen: &Seen, port: u16) -> Option<TenantName> {
        // What is at the path as before was asked about then.
        let Seen::Found(Place::There(id)) = seen else { return None };
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
