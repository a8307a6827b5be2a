//! The program that workers run, and its replacement by a new one.
//!
//! The pool keeps the file open and starts workers from that descriptor, not from the path. So a new file at the path is
//! not run for any tenant before it has passed its check.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch;

/// How long a new program may take to print its version.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The most output to read; a version is shorter.
const MAX_VERSION_BYTES: u64 = 256;

/// The output of `--version` begins with it.
const NAME: &str = "sq-worker";

/// Above every descriptor number that a child is given, so that none of these replaces the program's.
const MIN_PROGRAM_FD: i32 = 16;

#[derive(Debug, Clone)]
pub(crate) struct Program {
    file: Arc<OwnedFd>,
    /// Device, inode, length and mtime, which tell it from another file at the same path.
    identity: (u64, u64, i64, i64, u64),
    /// The path of the file, and of its replacement.
    path: PathBuf,
}

impl Program {
    pub(crate) fn current() -> io::Result<Self> {
        Self::open(PathBuf::from("/proc/self/exe"), std::env::current_exe()?)
    }

    fn open(file: PathBuf, path: PathBuf) -> io::Result<Self> {
        let opened = rustix::fs::open(file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let file = rustix::io::fcntl_dupfd_cloexec(opened, MIN_PROGRAM_FD)?;
        let found = rustix::fs::fstat(&file)?;
        let identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime, found.st_mtime_nsec);
        Ok(Self { file: Arc::new(file), identity, path })
    }

    /// The path to execute in a child of this process.
    pub(crate) fn executable(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Another file at the program's path; `None` if it is the same one, or if there is none now.
    fn replacement(&self) -> Option<Self> {
        match Self::open(self.path.clone(), self.path.clone()) {
            Ok(found) => (found.identity != self.identity).then_some(found),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "failed to open the new program; keeping the current one");
                None
            }
        }
    }

    /// Runs the program to print its version.
    async fn check_version(&self) -> Result<String, String> {
        let mut command = Command::new(self.executable());
        command.arg0(NAME).arg("--version").env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let trial = async {
            let mut child = command.spawn()?;
            let mut output = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(MAX_VERSION_BYTES).read_to_end(&mut output).await?;
            }
            Ok::<_, io::Error>((child.wait().await?, output))
        };
        let tried = tokio::time::timeout(CHECK_TIMEOUT, trial).await;
        let (status, output) = tried
            .map_err(|_| format!("it did not print its version within {} s", CHECK_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())?;
        let output = String::from_utf8_lossy(&output);
        let version = output.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(' ')).map(str::trim);
        match version {
            Some(version) if status.success() => Ok(version.to_owned()),
            _ => Err(format!("--version printed {:?} ({status})", output.trim())),
        }
    }
}

/// Checks for a new program at each SIGHUP, and calls `adopt` with one that prints its version, until it returns false.
pub(crate) fn replace_on_hangup(
    running: Program,
    mut hangups: watch::Receiver<()>,
    adopt: impl Fn(Program, String) -> bool + Send + 'static,
) {
    tokio::spawn(async move {
        let mut running = running;
        while hangups.changed().await.is_ok() {
            let Some(program) = running.replacement() else { continue };
            let path = program.path.display();
            match program.check_version().await {
                Ok(version) => {
                    running = program.clone();
                    if !adopt(program, version) {
                        return;
                    }
                }
                Err(error) => tracing::error!(
                    %path, error,
                    "new program failed its check; keeping the current one"
                ),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_told_from_its_replacement() {
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
    async fn only_a_worker_that_prints_its_version_passes_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "no program").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(Program::open(path.clone(), path).unwrap().check_version().await.is_err());
        let other = PathBuf::from("/bin/true");
        let error = Program::open(other.clone(), other).unwrap().check_version().await.unwrap_err();
        assert!(error.contains("--version printed"), "{error}");
    }
}
