//! What gives root up must not get it back through root's terminal: a program may type into the terminal that it was
//! started from (`TIOCSTI`, and on a console `TIOCLINUX`), and root's shell reads that as root's.
//!
//! Linux 6.2 lets the administrator forbid the first (`dev.tty.legacy_tiocsti = 0`), and only some distributions do.

use std::collections::BTreeMap;
use std::fs::File;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// `ioctl`'s requests that put characters into a terminal (`ioctl_tty(2)`, `ioctl_console(2)`).
const TYPING: [u64; 2] = [nix::libc::TIOCSTI, 0x541c];

/// Why the process may still type into its terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error("no filter can be made: {0}")]
    Filter(#[from] BackendError),
    #[error("the kernel takes no filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Refuses it to this process and all that it starts, if it has a terminal. Threads that there are already may go on.
pub(crate) fn refuse_typing() -> Result<(), GuardError> {
    if File::open("/dev/tty").is_err() {
        return Ok(());
    }
    // The kernel takes 32 bits of the request.
    let request = |request| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    let rules: Result<Vec<SeccompRule>, BackendError> =
        TYPING.into_iter().map(|typing| SeccompRule::new(vec![request(typing)?])).collect();
    let refused = SeccompAction::Errno(nix::libc::EPERM as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = BTreeMap::from([(nix::libc::SYS_ioctl, rules?)]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
