//! Keeps a process that has given root up from getting it back through root's terminal: a program may type into the
//! terminal that it was started from (`TIOCSTI`, and on a console `TIOCLINUX`), and root's shell reads that as root's
//! input.
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

/// The numbers of `ioctl`. A kernel with x32 accepts its number from any program (`__X32_SYSCALL_BIT`); older ones
/// also accept the usual number with that bit.
#[cfg(target_arch = "x86_64")]
const IOCTL: &[i64] = &[nix::libc::SYS_ioctl, 0x4000_0000 + 514, 0x4000_0000 + nix::libc::SYS_ioctl];
#[cfg(not(target_arch = "x86_64"))]
const IOCTL: &[i64] = &[nix::libc::SYS_ioctl];

/// Why the process may still type into its terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error("no filter can be made: {0}")]
    Filter(#[from] BackendError),
    #[error("the kernel takes no filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Refuses these requests to this process and its children, if it has a terminal. Threads that exist already are not
/// affected.
pub(crate) fn refuse_typing() -> Result<(), GuardError> {
    if File::open("/dev/tty").is_err_and(|error| error.raw_os_error() == Some(nix::libc::ENXIO)) {
        // There is no controlling terminal.
        return Ok(());
    }
    // The kernel uses 32 bits of the request.
    let request = |request| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    let typing = || -> Result<Vec<SeccompRule>, BackendError> {
        TYPING.into_iter().map(|typing| SeccompRule::new(vec![request(typing)?])).collect()
    };
    let mut rules = BTreeMap::new();
    for call in IOCTL {
        rules.insert(*call, typing()?);
    }
    let refused = SeccompAction::Errno(nix::libc::EPERM as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
