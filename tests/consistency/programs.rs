//! The programs that pool and workers are. A pool looks for new programs of its workers where its own was found, so each
//! pool has a folder; where the machine has libfaketime, its workers get a clock that can be stepped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sq_tests::faketime::{self, Library};
use sq_tests::root::Root;
use sq_tests::{binaries, notice};

/// Becomes a worker with another clock.
const OTHER_CLOCK: &str = env!("CARGO_BIN_EXE_other-clock");

/// Makes folders with programs.
pub(crate) struct Programs {
    root: Arc<Root>,
    /// One copy of the program under test, which the folders have links to.
    worker: PathBuf,
    libfaketime: Option<Library>,
    folders: usize,
}

impl Programs {
    pub(crate) fn new(root: &Arc<Root>) -> Self {
        let worker = root.join("sq-worker");
        fs::copy(binaries::worker(), &worker).expect("a copy of the program");
        Self { root: Arc::clone(root), worker, libfaketime: libfaketime(), folders: 0 }
    }

    /// Whether the clock of workers can be stepped.
    pub(crate) fn have_clock(&self) -> bool {
        self.libfaketime.is_some()
    }

    /// A program for a new pool.
    pub(crate) fn for_pool(&mut self) -> PathBuf {
        self.folders += 1;
        let folder = self.root.join(format!("programs-{}", self.folders));
        fs::create_dir(&folder).expect("a folder for programs");
        let program = folder.join("sq-worker");
        for link in [&program, &folder.join("worker")] {
            fs::hard_link(&self.worker, link).expect("a link to the program");
        }
        if let Some(library) = &self.libfaketime {
            symlink(library.path(), folder.join("libfaketime.so.1")).expect("a link to libfaketime");
        }
        program
    }

    /// Removes the folder of a pool that is gone, if there was one.
    pub(crate) fn remove(&self, pool_program: &Path) {
        if let Some(folder) = pool_program.parent() {
            fs::remove_dir_all(folder).expect("a folder of programs");
        }
    }

    /// Puts another program in the place of a pool's, for its workers.
    pub(crate) fn replace_for_workers(&self, pool_program: &Path) {
        let source = if self.have_clock() { Path::new(OTHER_CLOCK) } else { &self.worker };
        let new = pool_program.with_extension("new");
        fs::copy(source, &new).expect("a copy of the program");
        fs::rename(new, pool_program).expect("a new program in the old one's place");
    }
}

/// A worker reads its clock's file where its directory is the root of all paths, which root alone is sure to get.
fn libfaketime() -> Option<Library> {
    if !rustix::process::geteuid().is_root() {
        notice::not_allowed_here("steps of the clock: only root's workers have a file for it");
        return None;
    }
    faketime::library("steps of the clock")
}
