//! The data root and its marker. A disk that is not mounted leaves an empty folder, or none, at its path: served as it is, it
//! would be a system of empty customers, and their writes would go under the mount point. So the data root has a file with
//! an id, which stands beside the config too, and without that file nothing is made or served there.
//! `docs/decisions/0015-data-root-marker.md` says why so.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::Config;
use crate::file_lock::lock_within;
use crate::registry::Registry;
use crate::secret_file::Replacement;
use crate::{file_error, layout, regular_file, secret_file};

mod place;
mod watch;

pub use place::{DirectoryId, Gone, Place};
pub use watch::RootWatch;

/// More than a marker has.
const MARKER_BYTES: u64 = 4096;

/// How much of an audit log is looked at.
const AUDIT_LOG_BYTES: u64 = 256 * 1024;

/// What stands in the audit log's line of a write that was made.
const WRITTEN: &[u8] = br#""status":200"#;

/// How long another process may take to make the marker.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A system's data root, whose marker has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRoot {
    path: PathBuf,
    id_file: PathBuf,
    guard: Guard,
}

/// How the data root is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Marker(RootId),
    /// The root cannot be written to, so it got no marker. This holds until the process ends.
    Directory(DirectoryId),
}

/// A random number from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RootId(u128);

/// Why nothing may be made in the data root, or served from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootLoss {
    root: PathBuf,
    id_file: PathBuf,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// There is no such folder, or no marker in it.
    NoMarker,
    /// The marker has another id.
    Foreign,
    /// The marker has no id.
    NotAMarker,
    /// The system does not let us look.
    Unreadable(String),
    /// This process or the system lacks descriptors or memory to look with, which says nothing of the disk.
    Scarce(String),
    /// The file beside the config has no id, or cannot be read.
    UnreadableId(String),
    /// There never was a marker, and no tenant's directory is there, though the system has been written to.
    NoDirectories { tenants: usize, audit_log: PathBuf },
    /// The root or its marker may not be made.
    Unwritable(String),
    /// They cannot be made for any other reason.
    NotMade(String),
}

/// What is at the data root's path.
enum Found {
    /// Its marker, with the id that the system knows.
    Known(RootId),
    /// A marker, and the system knows no id yet.
    Unremembered(RootId),
    /// No marker, and the system knows no id yet.
    Unmarked,
}

impl DataRoot {
    /// The data root of a system, for a command that makes, moves or deletes directories. When the system has none yet, it is
    /// made, with its marker; so is the marker of one that was served before there were markers.
    ///
    /// # Errors
    /// This is not, or not certainly, the system's data root. Nothing was made.
    pub fn establish(config: &Config, registry: &Registry) -> Result<Self, RootLoss> {
        Self::establish_when(config, || has_directories(config, registry)).map(|(root, _)| root)
    }

    /// The same for a process that serves: one that can only be read, and was served before there were markers, is served on.
    ///
    /// # Errors
    /// As [`Self::establish`].
    pub fn establish_to_serve(config: &Config, registry: &Registry) -> Result<Self, RootLoss> {
        match Self::establish_when(config, || has_directories(config, registry)) {
            Err(RootLoss { root, id_file, why: Why::Unwritable(error) }) => {
                tracing::warn!(root = %root.display(), error, "the data root cannot be written to, and gets no marker");
                let paths = Paths { root, id_file };
                let found = std::fs::metadata(&paths.root).map_err(|error| paths.not_made(&error))?;
                Ok(paths.guarded_by(Guard::Directory(DirectoryId::of(&found))))
            }
            Ok((root, Some(error))) => {
                let file = root.id_file.display();
                tracing::warn!(%file, %error, "the data root's id cannot be noted: at the next start any data root with a marker is taken");
                Ok(root)
            }
            established => established.map(|(root, _)| root),
        }
    }

    /// The same on the operator's word that no directory was there before.
    ///
    /// # Errors
    /// This is not the system's data root.
    pub fn establish_empty(config: &Config) -> Result<Self, RootLoss> {
        Self::establish_when(config, || Ok(())).map(|(root, _)| root)
    }

    /// The data root as it is, for those who only look; `None` when the system has none yet, and the next start makes it.
    ///
    /// # Errors
    /// As [`Self::establish`].
    pub fn inspect(config: &Config, registry: &Registry) -> Result<Option<Self>, RootLoss> {
        let paths = Paths::of(config);
        match paths.find()? {
            Found::Known(id) | Found::Unremembered(id) => Ok(Some(paths.guarded_by(Guard::Marker(id)))),
            Found::Unmarked => {
                has_directories(config, registry).map(|()| None).map_err(|why| paths.loss(why))
            }
        }
    }

    /// Also why its id could not be noted beside the config, if so.
    fn establish_when(
        config: &Config,
        is_right: impl FnOnce() -> Result<(), Why>,
    ) -> Result<(Self, Option<io::Error>), RootLoss> {
        let paths = Paths::of(config);
        match paths.find()? {
            Found::Known(id) => return Ok((paths.guarded_by(Guard::Marker(id)), None)),
            Found::Unremembered(_) => {}
            Found::Unmarked => {
                is_right().map_err(|why| paths.loss(why))?;
                secret_file::create_dir(&paths.root).map_err(|error| paths.not_made(&error))?;
            }
        }
        // Pool and gateway may start at once: who comes second finds the marker.
        let lock = paths.lock_root();
        let id = match paths.find()? {
            Found::Known(id) => return Ok((paths.guarded_by(Guard::Marker(id)), None)),
            Found::Unremembered(id) => id,
            Found::Unmarked => {
                lock.as_ref().map_err(|error| paths.not_made(error))?;
                paths.mark().map_err(|error| paths.not_made(&error))?
            }
        };
        let noted = write_id(&paths.id_file, id);
        Ok((paths.guarded_by(Guard::Marker(id)), noted.err()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there now.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), RootLoss> {
        self.open().map(drop)
    }

    /// The folder itself, looked at: whatever is at its path a moment later, this is the data root.
    fn open(&self) -> Result<File, RootLoss> {
        let paths = Paths { root: self.path.clone(), id_file: self.id_file.clone() };
        let directory = open_directory(&self.path).map_err(|error| paths.loss(Why::of(&error)))?;
        let is_it = match self.guard {
            Guard::Marker(id) => read_marker(&directory).map_err(|why| paths.loss(why))? == id,
            Guard::Directory(id) => {
                DirectoryId::of(&directory.metadata().map_err(|error| paths.loss(Why::of(&error)))?) == id
            }
        };
        if is_it { Ok(directory) } else { Err(paths.loss(Why::Foreign)) }
    }
}

struct Paths {
    root: PathBuf,
    id_file: PathBuf,
}

impl Paths {
    fn of(config: &Config) -> Self {
        let root = std::path::absolute(&config.gateway.data_root);
        Self {
            root: root.unwrap_or_else(|_| config.gateway.data_root.clone()),
            id_file: layout::data_root_id(&config.path),
        }
    }

    fn guarded_by(self, guard: Guard) -> DataRoot {
        DataRoot { path: self.root, id_file: self.id_file, guard }
    }

    fn loss(&self, why: Why) -> RootLoss {
        RootLoss { root: self.root.clone(), id_file: self.id_file.clone(), why }
    }

    fn not_made(&self, error: &io::Error) -> RootLoss {
        let is_unwritable =
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
        let why = if is_unwritable { Why::Unwritable } else { Why::NotMade };
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
        let known = self.known_id()?;
        let marked =
            open_directory(&self.root).map_err(|error| Why::of(&error)).and_then(|root| read_marker(&root));
        match (known, marked) {
            (Some(known), Ok(id)) if known == id => Ok(Found::Known(id)),
            (Some(_), Ok(_)) => Err(self.loss(Why::Foreign)),
            (None, Ok(id)) => Ok(Found::Unremembered(id)),
            (None, Err(Why::NoMarker)) => Ok(Found::Unmarked),
            (_, Err(why)) => Err(self.loss(why)),
        }
    }

    /// The id that stands beside the config.
    fn known_id(&self) -> Result<Option<RootId>, RootLoss> {
        match regular_file::read_to_string(&self.id_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.loss(Why::UnreadableId(error.to_string()))),
            Ok(text) => match parse_marker(&text) {
                Some(id) => Ok(Some(id)),
                None => Err(self.loss(Why::UnreadableId("it has no id of 32 hexadecimal digits".to_owned()))),
            },
        }
    }

    /// Gives the root a marker of a new id.
    fn mark(&self) -> io::Result<RootId> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id = RootId(u128::from_ne_bytes(random));
        write_id(&layout::data_root_marker(&self.root), id)?;
        Ok(id)
    }
}

/// Whether a root without a marker may be the system's: it is new, or some tenant's directory is there. One that has been
/// written to, and has none, is not mounted.
fn has_directories(config: &Config, registry: &Registry) -> Result<(), Why> {
    let data_root = &config.gateway.data_root;
    let directories = registry.tenants.iter().map(|tenant| layout::tenant_dir(data_root, tenant));
    // One on another disk says nothing of this.
    let in_root: Vec<PathBuf> = directories.filter(|directory| directory.starts_with(data_root)).collect();
    if in_root.is_empty() || in_root.iter().any(|directory| directory.is_dir()) {
        return Ok(());
    }
    let audit_log = layout::audit_log(&config.path);
    match with_writes(&audit_log) {
        Some(audit_log) => Err(Why::NoDirectories { tenants: in_root.len(), audit_log }),
        None => Ok(()),
    }
}

/// What shows that a system has had tenants, for one whose registry is not there: a write in its audit log, or something in
/// a directory that is noted. A registry that is missing then is lost, or on a disk that is not mounted.
pub fn evidence_of_tenants(config: &Config) -> Option<PathBuf> {
    let root = &config.gateway.data_root;
    let noted = std::fs::read_dir(layout::tenant_notes_dir(root)).into_iter().flatten().flatten();
    let directories = noted.map(|note| root.join(note.file_name()));
    let is_used =
        |directory: &PathBuf| std::fs::read_dir(directory).is_ok_and(|mut files| files.next().is_some());
    with_writes(&layout::audit_log(&config.path)).or_else(|| directories.into_iter().find(is_used))
}

/// The audit log, if a write stands in it; or what it was rotated to.
fn with_writes(audit_log: &Path) -> Option<PathBuf> {
    if has_writes(audit_log) {
        return Some(audit_log.to_owned());
    }
    let (folder, name) = (audit_log.parent()?, audit_log.file_name()?.to_str()?);
    let is_rotated = |file: &Path| {
        let rest = file.file_name().and_then(|file| file.to_str()?.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    };
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.filter(|file| is_rotated(file)).find(|file| file.metadata().is_ok_and(|found| found.len() > 0))
}

/// Whether a write that was made has its line there. The beginning of the file is enough.
fn has_writes(audit_log: &Path) -> bool {
    // What a pipe holds is for its reader, and is not waited for.
    if !std::fs::metadata(audit_log).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(audit_log, flags, Mode::empty()) else { return false };
    let mut beginning = Vec::new();
    if File::from(file).take(AUDIT_LOG_BYTES).read_to_end(&mut beginning).is_err() {
        return false;
    }
    let mut lines = beginning.split_inclusive(|byte| *byte == b'\n');
    let is_made = |line: &[u8]| line.windows(WRITTEN.len()).any(|part| part == WRITTEN);
    lines.any(|line| line.ends_with(b"\n") && is_made(line))
}

fn write_id(file: &Path, id: RootId) -> io::Result<()> {
    Ok(Replacement::write(file, marker_text(id).as_bytes())?.publish()?)
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
        Err(error) => return Err(Why::of(&error.into())),
    };
    let mut text = Vec::new();
    match file.take(MARKER_BYTES).read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(Why::NotAMarker),
        Err(error) => return Err(Why::of(&error)),
    }
    std::str::from_utf8(&text).ok().and_then(parse_marker).ok_or(Why::NotAMarker)
}

/// To look up names in it, and no more: it need not be readable.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Makes the names of an open directory durable.
fn sync(directory: &File) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(directory, c".", flags, Mode::empty())?).sync_all()
}

fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

impl Why {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoMarker,
            _ if is_scarcity(error) => Self::Scarce(error.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::error::Error for RootLoss {}

impl RootLoss {
    fn config_file(&self) -> PathBuf {
        self.id_file.with_extension("")
    }
}

impl fmt::Display for RootLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, id_file) = (self.root.display(), self.id_file.display());
        let marker = layout::data_root_marker(&self.root);
        let marker = marker.display();
        let put_back = format_args!(
            "If this is the right folder, and only the marker is wrong: cp -p {id_file} {marker}"
        );
        match &self.why {
            Why::NoMarker => {
                write!(
                    f,
                    "the data root {root} is not there, or has no marker {marker}: is its disk mounted? {put_back}"
                )
            }
            Why::Foreign => write!(
                f,
                "{marker} is the marker of another data root than that of this system: is the right disk mounted at \
                 {root}? If this system is to have it from now on: cp -p {marker} {id_file}"
            ),
            Why::NotAMarker => {
                write!(
                    f,
                    "{marker} holds no id of a data root: is the right disk mounted at {root}? {put_back}"
                )
            }
            Why::Unreadable(error) | Why::Scarce(error) => {
                write!(
                    f,
                    "{marker} cannot be read: {error}; is the disk of the data root in order, and its owner right?"
                )
            }
            Why::UnreadableId(error) => write!(
                f,
                "{id_file}, which has the id of the data root, cannot be read: {error}; if the right disk is mounted at \
                 {root}: cp -p {marker} {id_file}"
            ),
            Why::NoDirectories { tenants, audit_log } => write!(
                f,
                "none of the {tenants} tenants' directories is there, though writes were made ({}): is the data root's \
                 disk mounted at {root}? If they are gone for good: sq-gateway tenants make-directory --all --config {}",
                audit_log.display(),
                self.config_file().display()
            ),
            Why::Unwritable(error) | Why::NotMade(error) => {
                write!(f, "the data root {root} cannot be used: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
