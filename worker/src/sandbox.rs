//! Locks a worker in: the first act of `serve`, before it reads a byte that a client has sent. A worker that is taken over
//! afterwards has its tenant's directory, its socket, and no more.
//!
//! Three walls, each of which would do for most of it: the root directory is the tenant's own, where the
//! system lets us (`privileges`); Landlock allows files beneath that directory and no network (`files`); and
//! seccomp ends the process at the first system call that a worker never makes (`system_calls`).

mod descriptors;
mod files;
mod privileges;
mod system_calls;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use sq_shared::config::Enforcement;

pub use descriptors::close_inherited;
pub use files::LandlockAbi;
pub use privileges::go_before_the_pool;
pub use system_calls::listed_calls;

/// Why a worker is not confined as it must be.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no Landlock, or an old one.
    #[error(
        "the kernel gives no Landlock of version 4 or later (Linux 6.7, with `landlock` in its `lsm=`): {0}; \
         set `sandbox = \"try\"` to do with what there is"
    )]
    Landlock(String),
    /// The kernel has no seccomp filters, or they may not be used.
    #[error("the kernel takes no seccomp filter: {0}; set `sandbox = \"try\"` to do without")]
    SystemCalls(String),
    /// A step that every Linux allows was refused.
    #[error("{step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// What holds; where something does not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Files and network, by Landlock.
    pub landlock: Result<LandlockAbi, String>,
    /// System calls, by seccomp.
    pub system_calls: Result<(), String>,
    /// The tenant's directory is the root of all that the process can name.
    pub own_root: bool,
}

impl Confinement {
    fn off() -> Self {
        let off = "sandbox = \"off\"";
        Self { landlock: Err(off.into()), system_calls: Err(off.into()), own_root: false }
    }

    /// Whether everything that `require` asks for holds.
    pub fn is_complete(&self) -> bool {
        self.check().is_ok()
    }

    fn check(&self) -> Result<(), SandboxError> {
        match &self.landlock {
            Ok(abi) if abi.0 >= files::REQUIRED_ABI => {}
            Ok(abi) => return Err(SandboxError::Landlock(format!("it has version {abi}"))),
            Err(reason) => return Err(SandboxError::Landlock(reason.clone())),
        }
        self.system_calls.clone().map_err(SandboxError::SystemCalls)
    }
}

/// For the one log line that says what holds.
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

/// Locks this process in, for good: from now on it reaches what is in the directory, and the descriptors that
/// it has. Must run in the first thread, before there is another: threads that are made later inherit it.
///
/// `make_runtime` makes what waits for news, when everything holds but the limit on system calls: afterwards there is no
/// second one. It starts no thread.
///
/// # Errors
/// With `require`, that something of it cannot be had; or what `make_runtime` says.
pub fn confine<T>(
    directory: BorrowedFd<'_>,
    enforcement: Enforcement,
    make_runtime: impl FnOnce() -> io::Result<T>,
) -> Result<(Confinement, T), SandboxError> {
    let made = |runtime: io::Result<T>| runtime.map_err(step("the runtime cannot be made"));
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
