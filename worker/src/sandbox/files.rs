//! The second wall: Landlock. Files beneath the tenant's directory and no others; no TCP; no signals and no
//! abstract sockets to processes outside.

use std::fmt;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// What `require` asks for: with 4 came the network. An older one confines files as well, and seccomp has no socket
/// to give; but one wall for the network is one less. (Signals, version 6, are a system call that no worker makes.)
pub(super) const REQUIRED_ABI: i32 = 4;

/// The newest version that we know of; what a kernel does not have of it is left out.
const NEWEST: ABI = ABI::V9;

/// The version of Landlock that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LandlockAbi(pub i32);

impl fmt::Display for LandlockAbi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What the store does in its directory. It makes no folder, no link, no device, and runs nothing.
fn rights() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile})
}

/// Restricts this thread, and those that it will make, to what is beneath the directory, as far as the kernel can.
///
/// # Errors
/// Why it does nothing of it.
pub(super) fn allow_beneath(directory: BorrowedFd<'_>) -> Result<LandlockAbi, String> {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .add_rule(PathBeneath::new(directory, rights()))?
            .restrict_self()
    };
    let status = restrict().map_err(|error: RulesetError| error.to_string())?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Ok(LandlockAbi(kernel_abi.unwrap_or(effective_abi as i32)))
        }
        LandlockStatus::NotEnabled => Err("it is not enabled".into()),
        LandlockStatus::NotImplemented => Err("it is not built in".into()),
    }
}
