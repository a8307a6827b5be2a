//! The second wall: Landlock. Allows files below the tenant's directory and no others, and denies TCP, and signals and
//! abstract sockets to other processes.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// What `require` asks for: the first version that restricts the network. With an older one, only seccomp would deny
/// sockets. (Signals came with version 6, but are a system call that seccomp denies.)
pub(super) const REQUIRED_ABI: i32 = 4;

/// The newest version that this program uses. A kernel with an older one applies what it knows.
const NEWEST: ABI = ABI::V9;

/// What the store does in its directory. It creates no folder, link or device, and executes nothing.
fn rights() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile})
}

/// Restricts this thread, and those that it creates, to files below the directory, as far as the kernel can. Gives the
/// version of Landlock.
///
/// # Errors
/// Why the kernel cannot restrict it at all.
pub(super) fn allow_beneath(directory: BorrowedFd<'_>) -> Result<i32, String> {
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
            Ok(kernel_abi.unwrap_or(effective_abi as i32))
        }
        LandlockStatus::NotEnabled => Err("it is not enabled".into()),
        LandlockStatus::NotImplemented => Err("it is not built in".into()),
    }
}
