//! A tenant's directory: whether it is there, new, or gone. The data root has a note about each tenant whose
//! directory was made or seen. A tenant without a note is new, and a missing directory is created. For a tenant
//! with a note it was lost, and must not be taken for empty.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::mount::{Mount, Position};
use super::{DataRoot, Guard, open_directory, sync};
use crate::file_error::{is_absent, is_unwritable};
use crate::file_id::FileId;
use crate::tenant::TenantName;
use crate::{file_error, layout, secret_file};

/// The note of a directory on the data root's mount. Any other note names the mount: under its mount point there may
/// be another directory, which is empty.
const FOLDER: &str = "a folder\n";

/// The note of a directory that is a mount point, as older versions wrote it.
const MOUNT_POINT: &str = "a mount point\n";

/// Longer than any note: it names at most one mount point.
const NOTE_BYTES: u64 = 8192;

/// A note about a tenant's directory.
#[derive(Debug)]
struct Note {
    mount: Option<Mount>,
}

/// What is at a tenant's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its directory, which may be new.
    There(FileId),
    /// The tenant had a directory, and it is not there.
    Gone(Gone),
}

/// Why a directory is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Nothing is at its path.
    Missing,
    /// The file system that was mounted there is not mounted.
    Unmounted,
    /// A file is there, or something else.
    NotADirectory,
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
    /// Whether a tenant's directory was there and is not now. A new tenant has none yet.
    ///
    /// # Errors
    /// The system does not tell. The error names the directory or the note.
    pub fn find_gone(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Gone>> {
        let note = self.note_of(tenant, data_dir)?;
        gone(note.as_ref(), metadata_at(data_dir)?.as_ref(), data_dir)
    }

    /// The same; a directory that is there is noted.
    pub fn review(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Gone>> {
        let note = self.note_of(tenant, data_dir)?;
        if metadata_at(data_dir)?.is_some_and(|found| found.is_dir()) {
            self.update_note(note.as_ref(), tenant, data_dir)?;
        }
        // For a new tenant, a file at its path is not a lost directory.
        let is_lost = |gone: &Gone| note.is_some() || *gone != Gone::NotADirectory;
        Ok(self.find_gone(tenant, data_dir)?.filter(is_lost))
    }

    /// Finds a tenant's directory, or makes it when the tenant is new, and notes it.
    ///
    /// # Errors
    /// The data root is lost, this user may not use the directory, or the system does not tell.
    pub fn find_or_make(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Place> {
        let (note, found) = (self.note_of(tenant, data_dir)?, metadata_at(data_dir)?);
        if let Some(gone) = gone(note.as_ref(), found.as_ref(), data_dir)? {
            return Ok(Place::Gone(gone));
        }
        let Some(found) = found else {
            self.make(tenant, data_dir)?;
            return directory_id_at(data_dir).map(Place::There);
        };
        let wanted = Access::READ_OK | Access::EXEC_OK;
        // The pool has one user id, so the older call is right: systemd's older filters refuse the newer one.
        rustix::fs::accessat(CWD, data_dir, wanted, AtFlags::empty())
            .map_err(|error| file_error::named(data_dir, error.into()))?;
        self.update_note(note.as_ref(), tenant, data_dir)?;
        Ok(Place::There(FileId::from_metadata(&found)))
    }

    /// Makes a tenant's directory when it is missing, and notes it. Inside the data root it is made in the folder
    /// whose marker was checked.
    pub fn make(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
        if *data_dir == layout::default_tenant_dir(&self.paths.root, tenant) {
            return self.make_in_root(std::slice::from_ref(tenant), &mut Vec::new(), || ());
        }
        self.check().map_err(io::Error::other)?;
        secret_file::create_dir(data_dir)?;
        secret_file::sync_dir(data_dir.parent().unwrap_or(Path::new("/")))?;
        self.note(tenant, data_dir)
    }

    /// The same for many tenants with directories in the data root. Calls `progress` after each, and adds those whose
    /// directory is new to `made`.
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

    /// Removes directories that were made in the data root, when their tenants are not added after all. One that
    /// contains something by now is kept.
    pub fn unmake(&self, tenants: &[TenantName]) {
        let Ok(root) = self.open() else { return };
        for tenant in tenants {
            let name = layout::default_tenant_dir(Path::new(""), tenant);
            if rustix::fs::unlinkat(&root, name, AtFlags::REMOVEDIR).is_ok() {
                // With a note, the next tenant of this name would get no directory.
                let _ = self.forget(tenant);
            }
        }
    }

    /// Notes a directory that is there, unless there is a note with the same mount. A data root that is not writable
    /// has no notes: it has no marker either, and is served as it is.
    fn update_note(&self, note: Option<&Note>, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
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

    /// Notes a tenant's directory, with its mount.
    pub fn note(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<()> {
        let root = self.open().map_err(io::Error::other)?;
        let notes = self.open_notes(&root)?;
        self.in_notes(tenant, write_note((&root, &notes), tenant, data_dir))?;
        sync(&notes)
    }

    /// Adds the note's path, and its owner, to an error.
    fn in_notes<T>(&self, tenant: &TenantName, result: io::Result<T>) -> io::Result<T> {
        let note = layout::tenant_note(&layout::tenant_notes_dir(self.path()), tenant);
        result.map_err(|error| file_error::named(&note, error))
    }

    /// Forgets a tenant: the next one of this name is new.
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

    /// Reads a tenant's note. One that a power cut has emptied means the data root's mount.
    fn note_of(&self, tenant: &TenantName, data_dir: &Path) -> io::Result<Option<Note>> {
        // Without the data root every tenant would seem to be new.
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
        // Not synced: an empty note means the same.
        return file.write_all(FOLDER.as_bytes());
    };
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// The mount of a tenant's directory, unless it is the data root's.
fn mount_of(root: &File, data_dir: &Path) -> io::Result<Option<Mount>> {
    match open_directory(data_dir) {
        Err(error) if is_absent(&error) => Ok(None),
        directory => Ok(Mount::apart_from(root, &directory?)),
    }
}

/// The id of what is at a path now; [`FileId::NONE`] when nothing is.
pub fn directory_id_at(path: &Path) -> io::Result<FileId> {
    Ok(metadata_at(path)?.as_ref().map_or(FileId::NONE, FileId::from_metadata))
}

/// `None` when nothing is there.
fn metadata_at(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Err(error) if is_absent(&error) => Ok(None),
        found => found.map(Some).map_err(|error| file_error::named(path, error)),
    }
}

/// Whether a tenant's directory was there and is not now, from its note and what is found at its path.
fn gone(note: Option<&Note>, found: Option<&Metadata>, data_dir: &Path) -> io::Result<Option<Gone>> {
    match found {
        Some(found) if !found.is_dir() => Ok(Some(Gone::NotADirectory)),
        Some(found) => Ok(was_mounted(note, found, data_dir)?.then_some(Gone::Unmounted)),
        None => Ok(note.map(|_| Gone::Missing)),
    }
}

/// Whether a directory lies under the mount point of its missing mount.
fn was_mounted(note: Option<&Note>, found: &Metadata, data_dir: &Path) -> io::Result<bool> {
    match note.and_then(|note| note.mount.as_ref()) {
        Some(mount) if !mount.had(FileId::from_metadata(found)) => {
            let position = Position::new(&open_directory(data_dir)?);
            Ok(position.is_ok_and(|position| mount.is_missing_at(&position)))
        }
        _ => Ok(false),
    }
}

/// Returns whether it was missing.
fn make_directory_at(folder: &File, name: &Path) -> io::Result<bool> {
    match rustix::fs::mkdirat(folder, name, Mode::RWXU) {
        // It may be a dangling link, or a file.
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(|_| {
                let text = format!("{} is there, and is no folder", name.display());
                io::Error::new(io::ErrorKind::AlreadyExists, text)
            })?;
            Ok(false)
        }
        made => Ok(made.map(|()| true)?),
    }
}
