//! Why a folder is not taken for the system's data root, and what the operator can do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Paths;
use super::mount::MOUNTED;
use crate::layout;

/// Why the data root cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootLoss {
    pub(super) paths: Paths,
    pub(super) why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such folder, or no marker in it.
    NoMarker,
    /// It was on the file system that was mounted at this point, and this folder was under it.
    Unmounted(PathBuf),
    /// The marker has another id.
    Foreign,
    /// The marker has no id.
    NotAMarker,
    /// The system reports another error.
    Unreadable(String),
    /// This process or the system is out of descriptors or memory, which says nothing about the disk.
    Scarce(String),
    /// The file beside the config has no id, or cannot be read.
    UnreadableId(String),
    /// There was no marker yet, and all tenants' directories are missing, though writes were made.
    NoDirectories { tenants: usize, audit_log: PathBuf },
    /// The root or its marker may not be made.
    Unwritable(String),
    /// They cannot be made for another reason.
    NotMade(String),
}

fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

impl Why {
    pub(super) fn from_error(error: &io::Error) -> Self {
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
