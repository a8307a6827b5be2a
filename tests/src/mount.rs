//! File systems of a test's own: mounted while a value lives, gone on every path out of the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{binaries, notice, process, wait};

/// How long an unmount may be refused because somebody still looks at a file.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// A mounted file system. A loop device that carries it goes with it.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
}

/// Whether file systems can be made and mounted here, with these programs. When not, says what is skipped:
/// where it could be done (root, and loop devices) and `CI=true`, that is a failure.
pub fn works(skipped: &str, programs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        notice::not_allowed_here(&format!("{skipped}: only root can mount, and only with loop devices"));
        return false;
    }
    let mut wanted = programs.iter().chain(&["mount", "umount"]);
    if let Some(missing) = wanted.find(|program| binaries::on_path(program).is_none()) {
        let install = "apt-get install e2fsprogs btrfs-progs mount util-linux";
        notice::skip(&format!("{skipped}: {missing} is missing; {install}"));
        return false;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = Mount { point: folder.path().to_owned() };
    let refused = process::run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mount.point));
    if !refused.status.success() {
        notice::skip(&format!("{skipped}: root may not mount here: {}", refused.stderr));
    }
    refused.status.success()
}

impl Mount {
    /// A file system in memory, of this size at most.
    pub fn tmpfs(point: &Path, size: &str) -> Self {
        Self::new(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], point)
    }

    /// The file system in an image, on a loop device.
    ///
    /// # Panics
    /// The image's path is not UTF-8.
    pub fn image(image: &Path, point: &Path, options: &str) -> Self {
        let image = image.to_str().expect("a path of UTF-8");
        Self::new(&["-o", &format!("loop{options}"), image], point)
    }

    /// A file mounted on itself: its name can be neither given away nor removed.
    pub fn over_itself(file: &Path) -> Self {
        process::run(Command::new("mount").arg("--bind").args([file, file])).success();
        Self { point: file.to_owned() }
    }

    fn new(arguments: &[&str], point: &Path) -> Self {
        fs::create_dir_all(point).expect("a folder to mount on");
        process::run(Command::new("mount").args(arguments).arg(point)).success();
        Self { point: point.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Stalls it: whatever changes the file system waits until the value is dropped. Reads go on.
    pub fn freeze(&self) -> Frozen<'_> {
        process::run(Command::new("fsfreeze").arg("--freeze").arg(&self.point)).success();
        Frozen(self)
    }

    /// Has the kernel find an error in it, after which an ext4 that was made with `-e remount-ro` can only be read: also
    /// by those who have files open for writing.
    ///
    /// # Panics
    /// It is no ext4 on a loop device.
    pub fn break_to_read_only(&self) {
        let mut find = Command::new("findmnt");
        let source = process::run(find.args(["-n", "-o", "SOURCE"]).arg(&self.point)).success();
        let device = source.trim().rsplit('/').next().expect("a device").to_owned();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").expect("an ext4");
    }
}

/// A folder that is mounted on another. Dropping the value unmounts it even if it is in use, as a disk that is lost does.
#[derive(Debug)]
pub struct Bound(PathBuf);

impl Bound {
    /// Mounts it, with these options if there are any.
    ///
    /// # Panics
    /// It cannot be mounted.
    pub fn new(from: &Path, to: &Path, options: &str) -> Self {
        fs::create_dir_all(to).expect("a folder to mount on");
        process::run(Command::new("mount").arg("--bind").args([from, to])).success();
        if !options.is_empty() {
            let options = format!("remount,bind,{options}");
            process::run(Command::new("mount").args(["-o", &options]).arg(to)).success();
        }
        Self(to.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        unmount_in_use(&self.0);
    }
}

/// A file system that stalls.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Mount);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Not the harness's own way to run things: that panics, and we may be in a panic already.
        let thawed = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.point).status();
        if !thawed.is_ok_and(|status| status.success()) {
            notice::say(&format!("{} is still frozen: fsfreeze --unfreeze it", self.0.point.display()));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Not the harness's own way to run things: that panics, and we may be in a panic already.
        let unmount = |options: &[&str]| {
            let done = Command::new("umount").arg("--quiet").args(options).arg(&self.point).output();
            done.is_ok_and(|output| output.status.success()).then_some(())
        };
        if is_mounted(&self.point) && wait::within(UNMOUNT_PATIENCE, || unmount(&[])).is_none() {
            unmount(&["--lazy"]);
            notice::say(&format!("{} was in use, and goes when it is let go", self.point.display()));
        }
    }
}

/// A command in a mount namespace of its own, after this line of a shell, whose `$1` is `path`: what that mounts is seen by
/// no other process, and goes with the command.
pub fn in_private(script: &str, path: &Path, command: &Command) -> Command {
    let mut private = Command::new("unshare");
    private.args(["--mount", "sh", "-ec", &format!("{script}; shift; exec \"$@\""), "sh"]).arg(path);
    private.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        private.current_dir(folder);
    }
    private
}

fn is_mounted(point: &Path) -> bool {
    mount_points().iter().any(|mounted| mounted == point)
}

/// Unmounts everything in a folder that is about to be removed, whether or not it is in use.
pub(crate) fn unmount_below(folder: &Path) {
    for point in mount_points().iter().rev().filter(|point| point.starts_with(folder)) {
        unmount_in_use(point);
    }
}

fn unmount_in_use(point: &Path) {
    let _ = Command::new("umount").args(["--quiet", "--lazy"]).arg(point).output();
}

/// Where file systems are mounted, in the order in which they were.
fn mount_points() -> Vec<PathBuf> {
    // Another's mount point need not be UTF-8.
    let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    // A space in a path is written by its octal number there.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(|at| at.replace("\\040", " "));
    points.map(PathBuf::from).collect()
}

/// An image with an empty file system: `mkfs.ext4`, `mkfs.btrfs`, with options. It takes no room until it is
/// written to.
///
/// # Panics
/// It cannot be made.
pub fn make_image(image: &Path, bytes: u64, mkfs: &[&str]) {
    File::create(image).and_then(|file| file.set_len(bytes)).expect("an image");
    let (program, options) = mkfs.split_first().expect("the program's name");
    process::run(Command::new(program).args(options).arg(image)).success();
}
