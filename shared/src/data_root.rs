//! The data root and its marker. A disk that is not mounted leaves an empty folder, or none, at its path: served, it
//! would be a system of empty tenants, and their writes would go under the mount point. So the data root has a file
//! with an id, which is noted beside the config too. Without that file nothing is made or served there.
//! `docs/decisions/0015-data-root-marker.md` says why.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::Config;
use crate::file_id::FileId;
use crate::file_lock::lock_within;
use crate::registry::Registry;
use crate::secret_file::Replacement;
use crate::{file_error, layout, regular_file, secret_file};

mod evidence;
mod loss;
mod mount;
mod place;
mod watch;

use evidence::has_directories;
pub use evidence::{evidence_of_tenants, first_note};
pub use loss::RootLoss;
use loss::Why;
use mount::{Mount, Position};
pub use place::{Gone, Place, directory_id_at};
pub use watch::RootWatch;

/// Longer than any marker, even a copy of the file beside the config, which may name a mount point.
const MARKER_BYTES: u64 = 8192;

/// How long to wait for another process that makes the marker.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A system's data root, whose marker has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRoot {
    paths: Paths,
    guard: Guard,
    /// The first mount on which this process has seen it, until the process ends.
    seen_on: Arc<OnceLock<Mount>>,
}

/// How the data root is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Marker(RootId),
    /// The root is not writable, so it has no marker. Until the process ends, this directory is the root.
    Directory(FileId),
}

/// A random number from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RootId(u128);

/// What is at the data root's path.
enum Found {
    /// A marker with the id that is noted beside the config.
    Known(RootId),
    /// A marker; no id is noted yet.
    Unnoted(RootId),
    /// No marker; no id is noted yet.
    Unmarked,
}

impl DataRoot {
    /// The data root of a system, for a command that makes, moves or deletes directories. A new system's is made,
    /// with its marker; a system from before there were markers gets one.
    ///
    /// # Errors
    /// This is not, or may not be, the system's data root. Nothing was made.
    pub fn establish(config: &Config, registry: &Registry) -> Result<Self, RootLoss> {
        Self::establish_when(config, || has_directories(config, registry)).map(|(root, _)| root)
    }

    /// The same for a process that serves. A read-only data root from before there were markers is served without
    /// one.
    pub fn establish_to_serve(config: &Config, registry: &Registry) -> Result<Self, RootLoss> {
        match Self::establish_when(config, || has_directories(config, registry)) {
            Err(RootLoss { paths, why: Why::Unwritable(error) }) => {
                tracing::warn!(root = %paths.root.display(), error, "the data root cannot be written to, and gets no marker");
                let found = std::fs::metadata(&paths.root).map_err(|error| paths.not_made(&error))?;
                Ok(paths.guarded_by(Guard::Directory(FileId::from_metadata(&found))))
            }
            Ok((root, Some(error))) => {
                let file = root.paths.id_file.display();
                tracing::warn!(%file, %error, "the data root's id cannot be noted: at the next start any data root with a marker is taken");
                Ok(root)
            }
            established => established.map(|(root, _)| root),
        }
    }

    /// The same, when the operator has said that there was no directory before.
    pub fn establish_empty(config: &Config) -> Result<Self, RootLoss> {
        Self::establish_when(config, || Ok(())).map(|(root, _)| root)
    }

    /// The data root, for a command that changes nothing; `None` when the system has none yet, and the next start
    /// makes it.
    pub fn inspect(config: &Config, registry: &Registry) -> Result<Option<Self>, RootLoss> {
        let paths = Paths::new(config);
        match paths.find()? {
            Found::Known(id) | Found::Unnoted(id) => Ok(Some(paths.guarded_by(Guard::Marker(id)))),
            Found::Unmarked => {
                has_directories(config, registry).map(|()| None).map_err(|why| paths.loss(why))
            }
        }
    }

    /// Also returns why its id could not be noted beside the config.
    fn establish_when(
        config: &Config,
        is_right: impl FnOnce() -> Result<(), Why>,
    ) -> Result<(Self, Option<io::Error>), RootLoss> {
        let paths = Paths::new(config);
        match paths.find()? {
            Found::Known(id) => return Ok((paths.guarded_by(Guard::Marker(id)).noting_mount(), None)),
            Found::Unnoted(_) => {}
            Found::Unmarked => {
                is_right().map_err(|why| paths.loss(why))?;
                secret_file::create_dir(&paths.root).map_err(|error| paths.not_made(&error))?;
            }
        }
        // Pool and gateway may start at the same time: the second one finds the marker.
        let lock = paths.lock_root();
        let id = match paths.find()? {
            Found::Known(id) => return Ok((paths.guarded_by(Guard::Marker(id)), None)),
            Found::Unnoted(id) => id,
            Found::Unmarked => {
                lock.as_ref().map_err(|error| paths.not_made(error))?;
                paths.mark().map_err(|error| paths.not_made(&error))?
            }
        };
        let noted = write_id(&paths.id_file, &marker_text(id));
        drop(lock);
        Ok((paths.guarded_by(Guard::Marker(id)).noting_mount(), noted.err()))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.paths.root
    }

    /// Checks that it is there now.
    pub fn check(&self) -> Result<(), RootLoss> {
        self.open().map(drop)
    }

    /// Opens and checks the folder: this is the data root, even if its path leads elsewhere a moment later.
    fn open(&self) -> Result<File, RootLoss> {
        let paths = &self.paths;
        let directory = open_directory(&paths.root).map_err(|error| paths.loss(Why::from_error(&error)))?;
        let is_it = match self.guard {
            Guard::Marker(id) => {
                let is_it = read_marker(&directory).map_err(|why| paths.loss(why))? == id;
                // The file may be missing by now: it is needed at the next start.
                let noted = paths.known().ok().flatten().and_then(|known| known.mount);
                paths.refuse_uncovered(&directory, self.seen_on.get().into_iter().chain(&noted))?;
                is_it
            }
            Guard::Directory(id) => {
                FileId::from_metadata(
                    &directory.metadata().map_err(|error| paths.loss(Why::from_error(&error)))?,
                ) == id
            }
        };
        if is_it { Ok(directory) } else { Err(paths.loss(Why::Foreign)) }
    }

    /// Notes the mount, if possible. (A process that serves logs when it is not.)
    fn noting_mount(self) -> Self {
        let _ = self.note_mount();
        self
    }

    /// Remembers the root's mount, and notes it beside the config, unless the config is on the same mount and would
    /// vanish with it. From then on a folder under the mount point is not taken for the data root.
    fn note_mount(&self) -> io::Result<()> {
        let Guard::Marker(id) = self.guard else { return Ok(()) };
        // Without /proc mounts are unknown.
        let position = |directory: &File| Position::new(directory).ok();
        let Some(mount) = self.open().ok().as_ref().and_then(position).and_then(|found| found.mount()) else {
            return Ok(());
        };
        let _ = self.seen_on.set(mount.clone());
        let beside = open_directory(&layout::folder_of(&self.paths.id_file))?;
        let is_beside = position(&beside).and_then(|found| found.mount());
        let (Some(line), false) = (mount.line(), is_beside.is_some_and(|beside| beside.point == mount.point))
        else {
            return Ok(());
        };
        let _lock = self.paths.lock_root()?;
        match self.paths.known() {
            Ok(Some(known)) if known.id != id || known.mount.as_ref() == Some(&mount) => Ok(()),
            Ok(_) => write_id(&self.paths.id_file, &(marker_text(id) + &line)),
            Err(loss) => Err(io::Error::other(loss)),
        }
    }
}

/// The content of the file beside the config.
struct Known {
    id: RootId,
    /// The mount on which the root was seen.
    mount: Option<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Paths {
    root: PathBuf,
    id_file: PathBuf,
}

impl Paths {
    fn new(config: &Config) -> Self {
        let root = std::path::absolute(&config.gateway.data_root);
        Self {
            root: root.unwrap_or_else(|_| config.gateway.data_root.clone()),
            id_file: layout::data_root_id(&config.path),
        }
    }

    fn guarded_by(self, guard: Guard) -> DataRoot {
        DataRoot { paths: self, guard, seen_on: Arc::default() }
    }

    fn loss(&self, why: Why) -> RootLoss {
        RootLoss { paths: self.clone(), why }
    }

    fn not_made(&self, error: &io::Error) -> RootLoss {
        let why = if file_error::is_unwritable(error) { Why::Unwritable } else { Why::NotMade };
        self.loss(why(file_error::text(&self.root, error)))
    }

    fn lock_root(&self) -> io::Result<File> {
        let root = File::open(&self.root)?;
        match lock_within(&root, LOCK_PATIENCE) {
            Ok(()) => Ok(root),
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another process holds its lock")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn find(&self) -> Result<Found, RootLoss> {
        let known = self.known()?;
        let marked = open_directory(&self.root)
            .map_err(|error| Why::from_error(&error))
            .and_then(|root| Ok((read_marker(&root)?, root)));
        match (known, marked) {
            (Some(known), Ok((id, root))) if known.id == id => {
                self.refuse_uncovered(&root, &known.mount)?;
                Ok(Found::Known(id))
            }
            (Some(_), Ok(_)) => Err(self.loss(Why::Foreign)),
            (None, Ok((id, _))) => Ok(Found::Unnoted(id)),
            (None, Err(Why::NoMarker)) => Ok(Found::Unmarked),
            (_, Err(why)) => Err(self.loss(why)),
        }
    }

    /// Refuses a folder that lies under a mount point where the root was mounted.
    fn refuse_uncovered<'m>(
        &self,
        root: &File,
        mounts: impl IntoIterator<Item = &'m Mount>,
    ) -> Result<(), RootLoss> {
        let mut position = None;
        for mount in mounts {
            if position.is_none() {
                let found = root.metadata().map_err(|error| self.loss(Why::from_error(&error)))?;
                // Usually the list of mounts is not needed.
                if mount.had(FileId::from_metadata(&found)) {
                    continue;
                }
                let Ok(found) = Position::new(root) else { return Ok(()) };
                position = Some(found);
            }
            if position.as_ref().is_some_and(|position| mount.is_missing_at(position)) {
                return Err(self.loss(Why::Unmounted(mount.point.clone())));
            }
        }
        Ok(())
    }

    /// Reads the file beside the config.
    fn known(&self) -> Result<Option<Known>, RootLoss> {
        match regular_file::read_to_string(&self.id_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.loss(Why::UnreadableId(error.to_string()))),
            Ok(text) => match parse_marker(&text) {
                Some(id) => Ok(Some(Known { id, mount: Mount::find(&text) })),
                None => Err(self.loss(Why::UnreadableId("it has no id of 32 hexadecimal digits".to_owned()))),
            },
        }
    }

    /// Makes a marker with a new id.
    fn mark(&self) -> io::Result<RootId> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id = RootId(u128::from_ne_bytes(random));
        write_id(&layout::data_root_marker(&self.root), &marker_text(id))?;
        Ok(id)
    }
}

fn write_id(file: &Path, text: &str) -> io::Result<()> {
    Ok(Replacement::write(file, text.as_bytes())?.publish()?)
}

/// The id, and a line for the operator who finds the file.
fn marker_text(id: RootId) -> String {
    format!("{id}\n# The id of SQ Gateway's data root: in it, and beside the config. Keep both.\n")
}

fn parse_marker(text: &str) -> Option<RootId> {
    let digits = text.lines().next()?.trim();
    let is_id = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| u128::from_str_radix(digits, 16).ok().map(RootId)).flatten()
}

fn read_marker(root: &File) -> Result<RootId, Why> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(root, layout::data_root_marker(Path::new("")), flags, Mode::empty());
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO) => return Err(Why::NotAMarker),
        Err(error) => return Err(Why::from_error(&error.into())),
    };
    let mut text = Vec::new();
    match file.take(MARKER_BYTES).read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(Why::NotAMarker),
        Err(error) => return Err(Why::from_error(&error)),
    }
    std::str::from_utf8(&text).ok().and_then(parse_marker).ok_or(Why::NotAMarker)
}

/// Opens a directory to look up names in it only: it need not be readable.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Syncs an open directory.
fn sync(directory: &File) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(directory, c".", flags, Mode::empty())?).sync_all()
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests;
