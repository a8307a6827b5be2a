//! Confines a worker, as the first step of `serve`, before it reads a byte from a client. An attacker who then takes over
//! the worker has its tenant's directory and its socket, and nothing else.
//!
//! There are three walls, each enough against most attacks. The root directory is the tenant's, where the system permits
//! it (`privileges`); Landlock allows files below that directory and no network (`files`); seccomp kills the process at
//! the first system call that a worker never makes (`system_calls`).

// In the order of the steps.
mod descriptors;

mod privileges;

mod files;

mod system_calls;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use sq_shared::config::Enforcement;

pub use descriptors::close_inherited;
pub use privileges::prefer_for_oom_kill;
pub use system_calls::listed_calls;

/// Why a worker is not confined as required.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no Landlock, or an old version.
    #[error(
        "the kernel has no Landlock of version 4 or later (Linux 6.7, with `landlock` in its `lsm=`): {0}; \
         set `sandbox = \"try\"` to use what the kernel has"
    )]
    Landlock(String),
    /// The kernel has no seccomp filters, or does not permit them.
    #[error("the kernel refuses a seccomp filter: {0}; set `sandbox = \"try\"` to run without one")]
    SystemCalls(String),
    /// A step failed that every Linux supports.
    #[error("failed to {step}: {source}")]
    Step {
        /// The step, as a verb phrase.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Which walls a process has, and why others are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Files and network, by Landlock of this version.
    pub landlock: Result<i32, String>,
    /// System calls, by seccomp.
    pub system_calls: Result<(), String>,
    /// The tenant's directory is the process's root directory.
    pub own_root: bool,
}

impl Confinement {
    fn off() -> Self {
        let off = "sandbox = \"off\"";
        Self { landlock: Err(off.into()), system_calls: Err(off.into()), own_root: false }
    }

    /// Whether the process has everything that `require` asks for.
    pub fn is_complete(&self) -> bool {
        self.check().is_ok()
    }

    fn check(&self) -> Result<(), SandboxError> {
        match &self.landlock {
            Ok(abi) if *abi >= files::REQUIRED_ABI => {}
            Ok(abi) => return Err(SandboxError::Landlock(format!("it has version {abi}"))),
            Err(reason) => return Err(SandboxError::Landlock(reason.clone())),
        }
        self.system_calls.clone().map_err(SandboxError::SystemCalls)
    }
}

/// For the log line.
impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.landlock {
            Ok(abi) => write!(formatter, "files and network by Landlock (version {abi})")?,
            Err(reason) => write!(formatter, "files and network NOT confined ({reason})")?,
        }
        match &self.system_calls {
            Ok(()) => write!(formatter, ", system calls by seccomp")?,
            Err(reason) => write!(formatter, ", system calls NOT confined ({reason})")?,
        }
        let root = if self.own_root { "the directory alone" } else { "the system's (no right to another)" };
        write!(formatter, ", root {root}")
    }
}

/// Confines this process irrevocably: from now on it reaches only files in the directory, and the descriptors that it has.
/// Call it on the first thread, before there is another, because only later threads inherit it.
///
/// `make_runtime` runs before system calls are limited, because a worker may not create an epoll instance. It must start
/// no thread.
///
/// # Errors
/// With `require`, a wall is missing; or `make_runtime` failed.
pub fn confine<T>(
    directory: BorrowedFd<'_>,
    enforcement: Enforcement,
    make_runtime: impl FnOnce() -> io::Result<T>,
) -> Result<(Confinement, T), SandboxError> {
    let made = |runtime: io::Result<T>| runtime.map_err(step("create the runtime"));
    privileges::limit_open_files()?;
    if enforcement == Enforcement::Off {
        return Ok((Confinement::off(), made(make_runtime())?));
    }
    privileges::limit_resources()?;
    let own_root = privileges::enter(directory)?;
    let landlock = files::allow_beneath(directory);
    let runtime = made(make_runtime())?;
    let system_calls = system_calls::allow_needed();
    let confinement = Confinement { landlock, system_calls, own_root };
    if enforcement == Enforcement::Require {
        confinement.check()?;
    }
    Ok((confinement, runtime))
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::Step { step, source: source.into() }
}
