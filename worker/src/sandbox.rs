//! Locks a worker in: the first act of `serve`, before its runtime starts and before it reads a byte that a
//! client has sent. A worker that is taken over afterwards has its tenant's directory, its socket, and no more.
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

/// What holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Files and network by Landlock; `None` without it.
    pub landlock: Option<LandlockAbi>,
    /// System calls by seccomp.
    pub system_calls: bool,
    /// The tenant's directory is the root of all that the process can name.
    pub own_root: bool,
}

impl Confinement {
    const NOTHING: Self = Self { landlock: None, system_calls: false, own_root: false };

    /// Whether everything that `require` asks for holds.
    pub fn is_complete(&self) -> bool {
        self.landlock.is_some_and(|abi| abi.0 >= files::REQUIRED_ABI) && self.system_calls
    }
}

/// For the one log line that says what holds.
impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.landlock {
            Some(abi) => write!(formatter, "files and network by Landlock (version {abi})")?,
            None => write!(formatter, "files and network NOT confined")?,
        }
        let system_calls = if self.system_calls { "by seccomp" } else { "NOT confined" };
        write!(formatter, ", system calls {system_calls}")?;
        if self.own_root { write!(formatter, ", the directory is the root of all paths") } else { Ok(()) }
    }
}

/// Locks this process in, for good: from now on it reaches what is in the directory, and the descriptors that
/// it has. Must run in the first thread, before there is another: threads that are made later inherit it.
///
/// # Errors
/// With `require`, that something of it cannot be had.
pub fn confine(directory: BorrowedFd<'_>, enforcement: Enforcement) -> Result<Confinement, SandboxError> {
    privileges::limit_open_files()?;
    if enforcement == Enforcement::Off {
        return Ok(Confinement::NOTHING);
    }
    privileges::limit_resources()?;
    let own_root = privileges::enter(directory)?;
    privileges::drop_all(directory)?;
    let (landlock, system_calls) = restrict_thread(Some(directory), enforcement)?;
    Ok(Confinement { landlock, system_calls, own_root })
}

/// Tries on a thread, which ends, what a worker's process will be able to have here.
///
/// # Errors
/// With `require`, that something of it cannot be had.
pub fn probe(enforcement: Enforcement) -> Result<Confinement, SandboxError> {
    if enforcement == Enforcement::Off {
        return Ok(Confinement::NOTHING);
    }
    let trial = std::thread::spawn(move || restrict_thread(None, enforcement));
    let (landlock, system_calls) = trial.join().map_err(|_| {
        step("a thread that tries the sandbox")(io::Error::other("it was ended by the system"))
    })??;
    Ok(Confinement { landlock, system_calls, own_root: false })
}

/// What is asked for unless the config says: everything, where the kernel can do it.
pub fn default_enforcement() -> Enforcement {
    let is_complete = probe(Enforcement::Try).is_ok_and(|confinement| confinement.is_complete());
    if is_complete { Enforcement::Require } else { Enforcement::Try }
}

fn restrict_thread(
    directory: Option<BorrowedFd<'_>>,
    enforcement: Enforcement,
) -> Result<(Option<LandlockAbi>, bool), SandboxError> {
    let landlock = required(enforcement, files::allow_beneath(directory).map_err(SandboxError::Landlock))?;
    let system_calls =
        required(enforcement, system_calls::allow_needed().map_err(SandboxError::SystemCalls))?;
    Ok((landlock, system_calls.is_some()))
}

/// What cannot be had is an error, or nothing.
fn required<T>(enforcement: Enforcement, had: Result<T, SandboxError>) -> Result<Option<T>, SandboxError> {
    match had {
        Ok(had) => Ok(Some(had)),
        Err(error) if enforcement == Enforcement::Require => Err(error),
        Err(_) => Ok(None),
    }
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::Step { step, source: source.into() }
}
