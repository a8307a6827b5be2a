//! The first wall: the process's root directory, its privileges, and its resource limits.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{SandboxError, step};

/// A worker may use the machine's memory divided by this. A limit derived from the quota would be tighter, but would kill
/// a worker that still serves a large phext after its quota was lowered.
const MEMORY_DIVISOR: u64 = 2;

/// The limit of the first thread's stack, which does not count as limited memory. The default of most systems.
pub(super) const STACK_BYTES: u64 = 8 << 20;

/// Address space beyond the limited memory. The allocators reserve a few GiB. Memory that is only reserved or only read
/// costs a five-hundredth of its size in page tables, so this bounds them at 128 MiB.
const SPARE_ADDRESS_BYTES: u64 = 64 << 30;

/// The limit of open descriptors: 512 connections, 1,024 journals of phexts in memory, and as many again for the files of
/// saves.
const MAX_OPEN_FILES: u64 = 4096;

/// Half of the scale (proc(5), `oom_score_adj`): more than the pool's own memory can outweigh.
const OOM_SCORE_ADJUSTMENT: &str = "500";

/// Many systems allow 1,024 files unless a process asks for more, and some allow far too many.
pub(super) fn limit_open_files() -> Result<(), SandboxError> {
    let most = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .map_or(MAX_OPEN_FILES, |most| most.min(MAX_OPEN_FILES));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(Resource::Nofile, limit).map_err(step("limit open files"))
}

/// When memory runs out, in the machine or in the pool's control group, the kernel kills the process with the highest
/// score. This makes it the largest worker and never the pool, whose end would end all of them.
pub fn prefer_for_oom_kill() {
    // Best effort: fails without /proc.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT);
}

/// Makes new files accessible to the owner only, disables core files, which would contain scrolls, limits memory, and
/// keeps other processes of the same user from reading this one's memory.
pub(super) fn limit_resources() -> Result<(), SandboxError> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let info = rustix::system::sysinfo();
    let memory_bytes = info.totalram.saturating_mul(info.mem_unit.into());
    set_limit(Resource::Core, 0).map_err(step("limit core files"))?;
    let most = memory_bytes / MEMORY_DIVISOR;
    set_limit(Resource::Data, most).map_err(step("limit memory"))?;
    set_limit(Resource::Stack, STACK_BYTES).map_err(step("limit the stack"))?;
    set_limit(Resource::As, most.saturating_add(SPARE_ADDRESS_BYTES)).map_err(step("limit addresses"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("keep other processes from reading this one's memory"))
}

/// Sets a limit, unless it is lower already.
fn set_limit(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let before = rustix::process::getrlimit(resource);
    let lower = |earlier: Option<u64>| Some(earlier.map_or(limit, |earlier| earlier.min(limit)));
    let wanted = Rlimit { current: lower(before.current), maximum: lower(before.maximum) };
    rustix::process::setrlimit(resource, wanted)
}

/// Makes the directory the root directory, if permitted, and drops every capability. Returns whether the root directory was
/// changed: root may do that, and so may a user that may create a user namespace.
///
/// If root serves another user's directory, it keeps the one capability to access that user's files. It creates no user
/// namespace then, because in one the capability would not apply to them.
pub(super) fn enter(directory: BorrowedFd<'_>) -> Result<bool, SandboxError> {
    let owner = rustix::fs::fstat(directory).map_err(step("read the owner of the data directory"))?.st_uid;
    let is_own = owner == rustix::process::geteuid().as_raw();
    rustix::process::fchdir(directory).map_err(step("enter the data directory"))?;
    let has_root = || rustix::process::chroot(c".").is_ok();
    let own_root = has_root() || is_own && unshare(CloneFlags::CLONE_NEWUSER).is_ok() && has_root();
    drop_capabilities(if is_own { CapabilitySet::empty() } else { CapabilitySet::DAC_OVERRIDE })?;
    Ok(own_root)
}

fn drop_capabilities(wanted: CapabilitySet) -> Result<(), SandboxError> {
    let before = rustix::thread::capabilities(None).map_err(step("read the capabilities"))?;
    let kept = before.effective & wanted;
    // The inheritable set matters only for a program that is executed, and a worker executes none.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(step("drop capabilities"))
}
