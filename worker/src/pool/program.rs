//! The program that workers are: which file, and whether there is a new one that runs.
//!
//! The file is held open, and workers are started from it whatever its path has come to lead to: a program that was
//! put there and has not been tried is no tenant's worker.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::{Notify, mpsc};

use super::Event;

/// How long a new program may take to say its version.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// More than a version takes.
const VERSION_BYTES: u64 = 256;

/// What its version begins with.
const NAME: &str = "sq-worker";

/// No descriptor that a child gets has a number as high as this; the program's own is not overwritten by one.
const FIRST_FREE_FD: i32 = 16;

/// A program's file.
#[derive(Debug, Clone)]
pub struct Program {
    file: Arc<OwnedFd>,
    identity: Identity,
    /// Where the file was found, and where the next one will be.
    path: PathBuf,
}

/// What tells one file from another that takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: i64,
    modified: (i64, u64),
}

impl Program {
    /// The program that this process is.
    ///
    /// # Errors
    /// It cannot be opened: there is no `/proc`.
    pub fn current() -> io::Result<Self> {
        Self::open(PathBuf::from("/proc/self/exe"), std::env::current_exe()?)
    }

    fn open(file: PathBuf, path: PathBuf) -> io::Result<Self> {
        let opened = rustix::fs::open(file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let file = rustix::io::fcntl_dupfd_cloexec(opened, FIRST_FREE_FD)?;
        let found = rustix::fs::fstat(&file)?;
        let identity = Identity {
            device: found.st_dev,
            inode: found.st_ino,
            bytes: found.st_size,
            modified: (found.st_mtime, found.st_mtime_nsec),
        };
        Ok(Self { file: Arc::new(file), identity, path })
    }

    /// What to execute, in a child of this process.
    pub fn executable(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Another program in this one's place; `None` when there is none, or nothing at all at this moment.
    fn replacement(&self) -> Option<Self> {
        match Self::open(self.path.clone(), self.path.clone()) {
            Ok(found) => (found.identity != self.identity).then_some(found),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot look for a new program; workers stay the one that runs");
                None
            }
        }
    }

    /// Runs it; gives its version.
    async fn try_out(&self) -> Result<String, String> {
        let mut command = Command::new(self.executable());
        command.arg0(NAME).arg("--version").env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let trial = async {
            let mut child = command.spawn()?;
            let mut said = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(VERSION_BYTES).read_to_end(&mut said).await?;
            }
            Ok::<_, io::Error>((child.wait().await?, said))
        };
        let tried = tokio::time::timeout(TRIAL_TIMEOUT, trial).await;
        let (status, said) = tried
            .map_err(|_| format!("it did not say its version within {} s", TRIAL_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&said);
        let version = said.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(' ')).map(str::trim);
        match version {
            Some(version) if status.success() => Ok(version.to_owned()),
            _ => Err(format!("asked for its version it said {:?} ({status})", said.trim())),
        }
    }
}

/// Checks for a new program each time that the result is notified, and tries it; one that runs is an
/// [`Event::NewProgram`].
pub fn follow(running: Program, events: mpsc::UnboundedSender<Event>) -> Arc<Notify> {
    let check = Arc::new(Notify::new());
    let checks = Arc::clone(&check);
    tokio::spawn(async move {
        let mut running = running;
        loop {
            checks.notified().await;
            let Some(program) = running.replacement() else { continue };
            let path = program.path.display();
            match program.try_out().await {
                Ok(version) => {
                    running = program.clone();
                    if events.send(Event::NewProgram(program, version)).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(
                    %path, error,
                    "there is a new program, and it does not run; workers stay the old one, and so do new ones"
                ),
            }
        }
    });
    check
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_told_from_the_one_that_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let one = Program::open(path.clone(), path.clone()).unwrap();
        assert!(one.replacement().is_none());
        let other = folder.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(one.replacement().is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(one.replacement().is_none());
    }

    #[tokio::test]
    async fn only_a_worker_that_says_its_version_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "no program").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(Program::open(path.clone(), path).unwrap().try_out().await.is_err());
        let uname = PathBuf::from("/bin/true");
        let error = Program::open(uname.clone(), uname).unwrap().try_out().await.unwrap_err();
        assert!(error.contains("asked for its version"), "{error}");
    }
}
