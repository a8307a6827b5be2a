//! What the process may be and take: its root directory, its privileges, its resources.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{SandboxError, step};

/// The share of the machine's memory that one worker may take. A limit by quota would be tighter, and would end a
/// worker whose quota was lowered under a phext that it still has to serve.
const MEMORY_SHARE: u64 = 2;

/// How far the first thread's stack may grow, which is not part of the memory that is limited: as most systems have it.
pub(super) const STACK_BYTES: u64 = 8 << 20;

/// How many addresses may be taken beside the memory that is limited. Memory that is only reserved or only read costs
/// the kernel a five-hundredth in page tables: this bounds them at 128 MiB. The allocators reserve a few GiB.
const SPARE_ADDRESS_BYTES: u64 = 64 << 30;

/// Most descriptors of a worker: its connections (512), the journals of its phexts in memory (1,024), and as much
/// again for the files of saves.
const OPEN_FILES: u64 = 4096;

/// Half of the scale (proc(5), `oom_score_adj`): more than a pool's own memory can outweigh.
const OOM_SCORE_ADJUSTMENT: &str = "500";

/// Many systems allow 1,024 unless a process asks for more; none may take all that the system has.
pub(super) fn limit_open_files() -> Result<(), SandboxError> {
    let most =
        rustix::process::getrlimit(Resource::Nofile).maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(Resource::Nofile, limit).map_err(step("limit open files"))
}

/// When memory runs out, in the machine or in the pool's control group, the kernel ends the process with the highest
/// score: this makes it the largest worker, and never the pool, with which all of them would go.
pub fn go_before_the_pool() {
    // Without /proc it is as before.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT);
}

/// New files are the owner's alone; no core file with scrolls in it is left behind; memory is bounded; and other
/// processes of the same user cannot look into this one.
pub(super) fn limit_resources() -> Result<(), SandboxError> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let info = rustix::system::sysinfo();
    let memory_bytes = info.totalram.saturating_mul(info.mem_unit.into());
    set_limit(Resource::Core, 0).map_err(step("limit core files"))?;
    let most = memory_bytes / MEMORY_SHARE;
    set_limit(Resource::Data, most).map_err(step("limit memory"))?;
    set_limit(Resource::Stack, STACK_BYTES).map_err(step("limit the stack"))?;
    set_limit(Resource::As, most.saturating_add(SPARE_ADDRESS_BYTES)).map_err(step("limit addresses"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("keep other processes out of the memory"))
}

/// A limit that is lower already stays.
fn set_limit(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let before = rustix::process::getrlimit(resource);
    let lower = |earlier: Option<u64>| Some(earlier.map_or(limit, |earlier| earlier.min(limit)));
    let wanted = Rlimit { current: lower(before.current), maximum: lower(before.maximum) };
    rustix::process::setrlimit(resource, wanted)
}

/// Makes the directory the root of every path, where that may be, and gives up every privilege. Says whether the
/// root was to be had: root may, and who may make a user namespace may in there.
///
/// Root that serves another user's directory keeps the one privilege that this takes, and makes no namespace, in
/// which it would be worth nothing: beneath that directory is all that is left to use it on.
pub(super) fn enter(directory: BorrowedFd<'_>) -> Result<bool, SandboxError> {
    let owner = rustix::fs::fstat(directory).map_err(step("look at the data directory"))?.st_uid;
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
    // The inheritable set matters to a program that is run, and none ever is.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(step("give up capabilities"))
}
