//! Why a data root is not taken for the system's, and what the operator can do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Paths;
use super::mount::MOUNTED;
use crate::layout;

/// Why nothing may be made in the data root, or served from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootLoss {
    pub(super) paths: Paths,
    pub(super) why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such folder, or no marker in it.
    NoMarker,
    /// It lay on the file system that was mounted here, and now lies in a folder that was under it.
    Unmounted(PathBuf),
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

fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

impl Why {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoMarker,
            _ if is_scarcity(error) => Self::Scarce(error.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

impl std::error::Error for RootLoss {}

impl RootLoss {
    fn config_file(&self) -> PathBuf {
        self.paths.id_file.with_extension("")
    }
}

impl fmt::Display for RootLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, id_file) = (self.paths.root.display(), self.paths.id_file.display());
        let marker = layout::data_root_marker(&self.paths.root);
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
            Why::Unmounted(point) => write!(
                f,
                "the data root {root} was on the file system that is mounted at {point}, and what is there now is a folder \
                 under it, whatever its marker says: is its disk mounted? If the data lies in this folder from now on: \
                 sed -i '/^{MOUNTED} /d' {id_file}, and start gateway and pool again",
                point = point.display()
            ),
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
