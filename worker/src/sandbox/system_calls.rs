//! The third wall: seccomp. A worker makes these system calls; at any other the kernel ends it.
//!
//! The list is what the runtime, the HTTP library, the store and the C library ask for, checked by a test that
//! runs the whole API under `strace`. What a worker has no use for is not there: no socket but the one that it
//! has, no other program, no process, no signal to another, no link, no change of owner or mode.
//!
//! Two of a worker's descriptors are not its own: the log, which all write to, and the slot's socket, which the pool
//! and the slot's next workers have. What would change them for everybody is not there either.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::privileges::STACK_BYTES;

/// An argument of a call, by its place.
#[derive(Clone, Copy)]
enum Argument {
    /// The kernel takes 32 bits, and does not look at the rest of the register. Nor may we: descriptor `2 + 2^32`
    /// is descriptor 2.
    Int(u8),
    Address(u8),
}

/// What the arguments of a call must be.
type Conditions = Vec<(Argument, SeccompCmpOp, u64)>;

/// A call is made with any of these.
type Calls = Vec<(c_long, Vec<Conditions>)>;

/// Without a look at their arguments.
const PLAIN: &[c_long] = &[
    // The connections, and what wakes the runtime.
    libc::SYS_accept4,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_close,
    // One set of descriptors to wait for was made before: each entry of one takes memory of the kernel's, which no limit
    // counts, and all users' entries are limited together.
    libc::SYS_epoll_ctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    // The files of the store.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // A phext's file may be a link.
    libc::SYS_readlinkat,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    // Memory, time and chance.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // Threads and signals.
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // No call, so it fails: `strace` puts it in the place of one that it is told to let fail.
    u32::MAX as c_long,
];

/// What a new thread shares with the others, and so what tells it from a new process.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// New namespaces, which a thread has no use for: `clone(2)`.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Which memory may be asked for: the process's own, and of the kind that `RLIMIT_DATA` counts. Shared memory, a stack
/// that grows and huge pages are not counted.
const OWN_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// What may be said beside that. `MAP_STACK` means nothing to the kernel.
const OF_OWN_MEMORY: u64 =
    (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE | libc::MAP_STACK) as u64;

/// Answered as if the kernel did not have them. `clone3` makes threads, but its arguments are where no filter can see
/// them: told so, the C library takes `clone`. The others are asked by a panic for its trace, and by C libraries of
/// other versions; they do well without an answer.
const UNKNOWN: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_membarrier,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrusage,
];

/// The last descriptor that others share with a worker: after standard input, output and error comes the slot's
/// socket (see `pool/process.rs`). What a worker opens itself comes behind it.
const LAST_SHARED: u64 = 3;

/// The options that a connection is given: no delay, and how long its other end may take nothing.
const SOCKET_OPTIONS: [(i32, i32); 2] =
    [(libc::IPPROTO_TCP, libc::TCP_NODELAY), (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT)];

/// `PR_SET_VMA`: the C library gives its memory names (`prctl(2)`).
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Lets this thread, and those that it will make, do what a worker does.
///
/// # Errors
/// The kernel takes no filter.
pub(super) fn allow_needed() -> Result<(), String> {
    let unknown = UNKNOWN.iter().map(|call| (*call, vec![])).collect();
    // A filter has one answer for what it does not let through, so this is another.
    let unknown = filter(unknown, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let needed = filter(calls(), SeccompAction::KillProcess, SeccompAction::Allow)?;
    for program in [unknown, needed] {
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The numbers of the system calls that a worker may make, some of them only with certain arguments.
pub fn listed_calls() -> Vec<i64> {
    calls().into_iter().map(|(call, _)| call).collect()
}

fn calls() -> Calls {
    let plain = PLAIN.iter().chain(UNKNOWN).map(|call| (*call, vec![]));
    plain.chain(with_conditions()).collect()
}

/// Calls of which only some are a worker's.
fn with_conditions() -> Calls {
    use Argument::{Address, Int};
    use SeccompCmpOp::{Eq, Gt, Lt, MaskedEq, Ne};
    let log = libc::STDERR_FILENO as u64;
    let own = || (Int(0), Gt, LAST_SHARED);
    let on_own = || vec![vec![own()]];
    let on_own_only =
        |argument, values: &[u64]| values.iter().map(|value| vec![own(), (argument, Eq, *value)]).collect();
    let no_code = || (Int(2), MaskedEq(libc::PROT_EXEC as u64), 0);
    let own_memory = (Int(3), MaskedEq(!OF_OWN_MEMORY), OWN_MEMORY);
    let only = |argument, values: &[u64]| values.iter().map(|value| vec![(argument, Eq, *value)]).collect();
    let option = |(level, name)| vec![own(), (Int(1), Eq, level as u64), (Int(2), Eq, name as u64)];
    let fcntl = |on, command: i32| vec![on, (Int(1), Eq, command as u64)];
    let own_process = u64::from(std::process::id());
    vec![
        (libc::SYS_read, vec![vec![(Int(0), Ne, log)]]),
        (libc::SYS_recvfrom, on_own()),
        (libc::SYS_shutdown, on_own()),
        (libc::SYS_setsockopt, SOCKET_OPTIONS.map(option).into()),
        (libc::SYS_pread64, on_own()),
        (libc::SYS_pwrite64, on_own()),
        (libc::SYS_lseek, on_own()),
        (libc::SYS_ftruncate, on_own()),
        (libc::SYS_fallocate, on_own()),
        (libc::SYS_flock, on_own()),
        (
            libc::SYS_fcntl,
            vec![
                // The pool's lines are read from a copy of standard input.
                fcntl((Int(0), Eq, libc::STDIN_FILENO as u64), libc::F_DUPFD_CLOEXEC),
                fcntl(own(), libc::F_DUPFD_CLOEXEC),
                fcntl(own(), libc::F_SETFD),
                fcntl(own(), libc::F_SETFL),
                vec![(Int(1), Eq, libc::F_GETFD as u64)],
                vec![(Int(1), Eq, libc::F_GETFL as u64)],
            ],
        ),
        (libc::SYS_ioctl, on_own_only(Int(1), &[libc::FIONBIO, libc::FIOCLEX])),
        (libc::SYS_mmap, vec![vec![no_code(), own_memory]]),
        (libc::SYS_mprotect, vec![vec![no_code()]]),
        (libc::SYS_mremap, vec![vec![(Address(0), Lt, lowest_of_first_stack())]]),
        (libc::SYS_clone, vec![vec![(Int(0), MaskedEq(THREAD | NAMESPACES), THREAD)]]),
        (libc::SYS_prctl, only(Int(0), &[libc::PR_SET_NAME as u64, PR_SET_VMA])),
        // On a connection that there is: to an address of its own choice nothing is sent.
        (libc::SYS_sendto, on_own_only(Address(4), &[0])),
        // To read a limit, not to set one: the address of the new one is null.
        (libc::SYS_prlimit64, only(Address(2), &[0])),
        // An abort.
        (libc::SYS_tgkill, only(Int(0), &[own_process])),
    ]
}

/// The first thread calls this: its stack, which `RLIMIT_DATA` does not count, must not be made longer than it may grow.
/// Nothing else is above; what `mmap` gives is at least 128 MiB below.
fn lowest_of_first_stack() -> u64 {
    let here = 0_u8;
    (std::ptr::from_ref(&here).addr() as u64).saturating_sub(STACK_BYTES)
}

fn filter(calls: Calls, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let describe = |error: seccompiler::BackendError| error.to_string();
    let mut rules = BTreeMap::new();
    for (call, alternatives) in calls {
        let of_call: Result<Vec<SeccompRule>, _> = alternatives.into_iter().map(rule).collect();
        rules.insert(call, of_call.map_err(describe)?);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(describe)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture).map_err(describe)?;
    filter.try_into().map_err(describe)
}

fn rule(conditions: Conditions) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |(argument, operator, value)| {
        let (place, width) = match argument {
            Argument::Int(place) => (place, SeccompCmpArgLen::Dword),
            Argument::Address(place) => (place, SeccompCmpArgLen::Qword),
        };
        SeccompCondition::new(place, width, operator, value)
    };
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}
