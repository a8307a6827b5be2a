//! A tenant's directory: whether it is there, new, or gone. The data root has a note of each tenant whose directory was
//! made or seen. A directory that is missing is made for a tenant without a note, which is a new one; for one with a note it has
//! vanished, and what the tenant had must not be taken for empty.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::mount::{Mount, Position};
use super::{DataRoot, Guard, open_directory, sync};
use crate::tenant::TenantName;
use crate::{file_error, layout, secret_file};

/// What a note says of a directory that is on no mount but the data root's. Of any other it names the mount: under the mount
/// point there may be another directory, which is empty.
const FOLDER: &str = "a folder\n";

/// What it said of a directory that is a mount point, before mounts were named.
const MOUNT_POINT: &str = "a mount point\n";

/// A note names one mount point at most.
const NOTE_BYTES: u64 = 8192;

/// What is noted of a tenant's directory that was there.
#[derive(Debug)]
struct Note {
    mount: Option<Mount>,
}

/// Which directory it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What is at a tenant's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its directory, which may have been made just now.
    There(DirectoryId),
    /// The tenant had a directory, and what is there now is not it.
    Gone(Gone),
}

/// Why a directory is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// There is nothing at its path.
    Missing,
    /// A file system was mounted there, and is not now.
    Unmounted,
    /// What is there is a file, or something else.
    NotADirectory,
}

impl DirectoryId {
    /// That of no directory.
    pub const NONE: Self = Self { device: 0, inode: 0 };

    /// That of an open or found one.
    pub fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// What is at a path now; an error says that it cannot be told.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(metadata_at(path)?.as_ref().map_or(Self::NONE, Self::of))
    }
}

impl Gone {
    /// For the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "it is not there",
            Self::Unmounted => "the file system that was mounted there is not mounted",
            Self::NotADirectory => "what is there is not a directory",
        }
    }
}

impl DataRoot {
    /// Whether the directory of a tenant is gone: it was there, and is not now. A new tenant has no directory yet.
    ///
    /// # Errors
    /// The system does not say. The text names what is in the way: the directory, or the note.
    pub fn find_gone(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Gone>> {
        let note = self.note_of(tenant, data_dir)?;
        Ok(match metadata_at(data_dir)? {
            Some(found) if !found.is_dir() => Some(Gone::NotADirectory),
            Some(found) => was_mounted(note.as_ref(), &found, data_dir)?.then_some(Gone::Unmounted),
            None => note.map(|_| Gone::Missing),
        })
    }

    /// The same, and a directory that is there is noted.
    ///
    /// # Errors
    /// The system does not say.
    pub fn review(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Gone>> {
        let note = self.note_of(tenant, data_dir)?;
        if metadata_at(data_dir)?.is_some_and(|found| found.is_dir()) {
            self.keep_noted(note.as_ref(), tenant, data_dir)?;
        }
        // A file in the way of a new tenant is no directory that has vanished.
        let is_lost = |gone: &Gone| note.is_some() || *gone != Gone::NotADirectory;
        Ok(self.find_gone(tenant, data_dir)?.filter(is_lost))
    }

    /// Finds a tenant's directory, makes it when the tenant is new, and notes that it was there.
    ///
    /// # Errors
    /// The data root is lost, this user may not use the directory, or the system does not say.
    pub fn find_or_make(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Place> {
        let note = self.note_of(tenant, data_dir)?;
        match metadata_at(data_dir)? {
            Some(found) if !found.is_dir() => Ok(Place::Gone(Gone::NotADirectory)),
            Some(found) if was_mounted(note.as_ref(), &found, data_dir)? => Ok(Place::Gone(Gone::Unmounted)),
            Some(found) => {
                let wanted = Access::READ_OK | Access::EXEC_OK;
                // The pool is one user, so the older call will do: systemd's older filters refuse the newer.
                rustix::fs::accessat(CWD, data_dir, wanted, AtFlags::empty())
                    .map_err(|error| file_error::named(data_dir, error.into()))?;
                self.keep_noted(note.as_ref(), tenant, data_dir)?;
                Ok(Place::There(DirectoryId::of(&found)))
            }
            None if note.is_some() => Ok(Place::Gone(Gone::Missing)),
            None => {
                self.make(tenant, data_dir)?;
                DirectoryId::at(data_dir).map(Place::There)
            }
        }
    }

    /// Makes a tenant's directory when it is missing, and notes it. In the data root it is made in that very folder which
    /// was seen to have the marker.
    ///
    /// # Errors
    /// The data root is lost, or the directory cannot be made.
    pub fn make(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
        if *data_dir == layout::default_tenant_dir(&self.paths.root, tenant) {
            return self.make_in_root(std::slice::from_ref(tenant), &mut Vec::new(), || ());
        }
        self.check().map_err(io::Error::other)?;
        secret_file::create_dir(data_dir)?;
        secret_file::sync_dir(data_dir.parent().unwrap_or(Path::new("/")))?;
        self.note(tenant, data_dir)
    }

    /// The same for many tenants with directories in the data root. Calls `progress` after each, and puts into `made` whose
    /// was not there.
    ///
    /// # Errors
    /// The data root is lost, or a directory cannot be made.
    pub fn make_in_root(
        &self,
        tenants: &[TenantName],
        made: &mut Vec<TenantName>,
        progress: impl Fn(),
    ) -> io::Result<()> {
        let root = self.open().map_err(io::Error::other)?;
        let notes = self.open_notes(&root)?;
        for tenant in tenants {
            if make_directory_at(&root, &layout::default_tenant_dir(Path::new(""), tenant))? {
                made.push(tenant.clone());
            }
            let directory = layout::default_tenant_dir(self.path(), tenant);
            self.in_notes(tenant, write_note((&root, &notes), tenant, &directory))?;
            progress();
        }
        sync(&root)?;
        sync(&notes)
    }

    /// Takes directories back that were made in the data root, for tenants who are not to be after all. One that holds
    /// something meanwhile stays.
    pub fn unmake(&self, tenants: &[TenantName]) {
        let Ok(root) = self.open() else { return };
        for tenant in tenants {
            let name = layout::default_tenant_dir(Path::new(""), tenant);
            if rustix::fs::unlinkat(&root, name, AtFlags::REMOVEDIR).is_ok() {
                // A note of a directory that is gone would keep the next tenant of this name from having one.
                let _ = self.forget(tenant);
            }
        }
    }

    /// Notes a directory that is there, unless that was done; also that it is on another mount since. Where the data root
    /// cannot be written to there are no notes: it has no marker either, and is served as it is.
    fn keep_noted(&self, note: Option<&Note>, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
        if let Some(note) = note {
            let root = self.open().map_err(io::Error::other)?;
            let mount = mount_of(&root, data_dir)?;
            if mount.is_none() || mount == note.mount {
                return Ok(());
            }
        }
        match self.note(tenant, data_dir) {
            Err(error) if matches!(self.guard, Guard::Directory(_)) && is_unwritable(&error) => Ok(()),
            noted => noted,
        }
    }

    /// Notes that a tenant's directory is there, and on which mount.
    ///
    /// # Errors
    /// The data root is lost, or cannot be written to.
    pub fn note(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
        let root = self.open().map_err(io::Error::other)?;
        let notes = self.open_notes(&root)?;
        self.in_notes(tenant, write_note((&root, &notes), tenant, data_dir))?;
        sync(&notes)
    }

    /// Names the note in an error, and whose it is.
    fn in_notes<T>(&self, tenant: &TenantName, result: io::Result<T>) -> io::Result<T> {
        let note = layout::tenant_note(&layout::tenant_notes_dir(self.path()), tenant);
        result.map_err(|error| file_error::named(&note, error))
    }

    /// Forgets a tenant: who gets the name next is new.
    ///
    /// # Errors
    /// The data root is lost, or cannot be written to.
    pub fn forget(&self, tenant: &TenantName) -> io::Result<()> {
        let notes = self.open_notes(&self.open().map_err(io::Error::other)?)?;
        match rustix::fs::unlinkat(&notes, layout::tenant_note(Path::new(""), tenant), AtFlags::empty()) {
            Err(Errno::NOENT) | Ok(()) => sync(&notes),
            Err(error) => self.in_notes(tenant, Err(error.into())),
        }
    }

    fn open_notes(&self, root: &File) -> io::Result<File> {
        let name = layout::tenant_notes_dir(Path::new(""));
        let in_notes = |error| file_error::named(&layout::tenant_notes_dir(self.path()), error);
        make_directory_at(root, &name).map_err(in_notes)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(root, name, flags, Mode::empty());
        Ok(opened.map_err(|error| in_notes(error.into()))?.into())
    }

    /// What is noted of a tenant. A note that a power cut has emptied is one of a folder.
    fn note_of(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Note>> {
        // The data root must be there: without it every tenant would seem to be new.
        let root = self.open().map_err(io::Error::other)?;
        let name = layout::tenant_note(&layout::tenant_notes_dir(Path::new("")), tenant);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&root, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => File::from(self.in_notes(tenant, opened.map_err(io::Error::from))?),
        };
        let mut text = String::new();
        self.in_notes(tenant, file.take(NOTE_BYTES).read_to_string(&mut text))?;
        let mount = match text.as_str() {
            MOUNT_POINT => Some(Mount::at(layout::resolved(data_dir))),
            text => Mount::find(text),
        };
        Ok(Some(Note { mount }))
    }
}

fn write_note((root, notes): (&File, &File), tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
    let name = layout::tenant_note(Path::new(""), tenant);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(notes, name, flags, Mode::RUSR | Mode::WUSR)?);
    let Some(line) = mount_of(root, data_dir)?.and_then(|mount| mount.line()) else {
        // An empty note says the same.
        return file.write_all(FOLDER.as_bytes());
    };
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// The mount that a tenant's directory is on, unless it is the data root's.
fn mount_of(root: &File, data_dir: &Path) -> io::Result<Option<Mount>> {
    match open_directory(data_dir) {
        Err(error) if is_absent(&error) => Ok(None),
        directory => Ok(Mount::apart_from(root, &directory?)),
    }
}

/// `None` when there is nothing.
fn metadata_at(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Err(error) if is_absent(&error) => Ok(None),
        found => found.map(Some).map_err(|error| file_error::named(path, error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Whether a directory lies under the mount point where it was.
fn was_mounted(note: Option<&Note>, found: &Metadata, data_dir: &Path) -> io::Result<bool> {
    match note.and_then(|note| note.mount.as_ref()) {
        Some(mount) if !mount.had(DirectoryId::of(found)) => {
            let position = Position::of(&open_directory(data_dir)?);
            Ok(position.is_ok_and(|position| mount.is_missing_at(&position)))
        }
        _ => Ok(false),
    }
}

/// Gives whether it was not there.
fn make_directory_at(folder: &File, name: &Path) -> io::Result<bool> {
    match rustix::fs::mkdirat(folder, name, Mode::RWXU) {
        // It may be a link that leads nowhere, or a file.
        Err(Errno::EXIST) => {
            rustix::fs::openat(
                folder,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|_| {
                io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} is there, and is no folder", name.display()),
                )
            })?;
            Ok(false)
        }
        made => Ok(made.map(|()| true)?),
    }
}
