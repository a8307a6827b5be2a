//! The disk that the tenants' data is on: a separate file system, which can be filled and frozen, where the machine
//! allows that; otherwise a folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;
use sq_tests::mount::{self, Mount};
use sq_tests::process;
use sq_tests::root::Root;

/// Room for what a long run writes, its large phexts several times.
const DISK_BYTES: u64 = 256 << 20;

/// Where the data of all tenants is.
pub(crate) struct Disk {
    path: PathBuf,
    mount: Option<Mount>,
}

/// A disk without room, until this is dropped.
pub(crate) struct Full {
    filling: PathBuf,
}

/// A disk on which each write waits, until this is dropped.
pub(crate) struct Frozen {
    point: PathBuf,
}

impl Disk {
    /// A disk in the folder of a system.
    pub(crate) fn new(root: &Root) -> Self {
        let path = root.join("disk");
        let can_mount = mount::works("full and frozen disks", &["mkfs.ext4", "fsfreeze"]);
        let mount = can_mount.then(|| {
            let image = root.join("image");
            // No blocks are kept back for root, which we are.
            mount::make_image(&image, DISK_BYTES, &["mkfs.ext4", "-q", "-F", "-m", "0"]);
            Mount::image(&image, &path, "")
        });
        Self { path, mount }
    }

    /// The folder of the tenants' folders.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Whether it can be filled and frozen.
    pub(crate) fn is_own(&self) -> bool {
        self.mount.is_some()
    }

    /// Takes all the room that there is.
    pub(crate) fn fill(&self) -> Full {
        let filling = self.path.join("filling");
        let file = File::create(&filling).expect("a file that fills the disk");
        let (mut filled, mut piece) = (0, DISK_BYTES);
        while piece >= 4096 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), filled, piece) {
                Ok(()) => filled += piece,
                Err(_) => piece /= 2,
            }
        }
        Full { filling }
    }

    /// Holds up whatever writes to it.
    pub(crate) fn freeze(&self) -> Frozen {
        let frozen = Frozen { point: self.path.clone() };
        fsfreeze("--freeze", &self.path).success();
        frozen
    }
}

fn fsfreeze(what: &str, point: &Path) -> process::Outcome {
    process::run(Command::new("fsfreeze").arg(what).arg(point))
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.filling);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // On every path out of the test: a frozen disk holds up whatever looks at it.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.point).output();
    }
}
