//! The third wall: seccomp. A worker makes only these system calls; at any other the kernel kills it.
//!
//! The list is what the runtime, the HTTP library, the store and the C library need. A test that runs the whole API under
//! `strace` checks it. A worker cannot create a socket, execute a program, create a process, signal another one, create a
//! link, or change an owner or a mode.
//!
//! A worker shares two descriptors: the log, with all workers, and the slot's socket, with the pool and the slot's next
//! workers. Calls that would change these for the others are not allowed either.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::privileges::STACK_BYTES;

/// An argument of a call, by its index.
#[derive(Clone, Copy)]
enum Argument {
    /// Compared in 32 bits, like the kernel, which ignores the rest of the register: descriptor `2 + 2^32` is descriptor 2.
    Int(u8),
    Address(u8),
}

/// Conditions on the arguments of a call, all of which must hold.
type Conditions = Vec<(Argument, SeccompCmpOp, u64)>;

/// Calls, each with the alternatives of which one must hold; any arguments are allowed if there are none.
type Calls = Vec<(c_long, Vec<Conditions>)>;

/// Calls allowed with any arguments.
const PLAIN: &[c_long] = &[
    // Connections and the runtime.
    libc::SYS_accept4,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_close,
    // The runtime's epoll instance exists already. A worker can't create another: its entries take kernel memory that no
    // limit counts, and all users share one limit of entries.
    libc::SYS_epoll_ctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    // The store's files.
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
    // Memory, time and random numbers.
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
    // Not a call, so it fails: `strace` replaces a call with it to inject a failure.
    u32::MAX as c_long,
];

/// What a new thread shares with the others; a new process does not.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// New namespaces, which a thread does not need: `clone(2)`.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// The flags that a mapping must have: private memory, which `RLIMIT_DATA` counts. It does not count shared memory, growing
/// stacks and huge pages.
const PRIVATE_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// The flags that a mapping may have in addition. The kernel ignores `MAP_STACK`.
const OTHER_MAP_FLAGS: u64 =
    (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE | libc::MAP_STACK) as u64;

/// Calls answered with `ENOSYS`. No filter can see the arguments of `clone3`, which creates threads; without it, the C
/// library uses `clone`. The others are made for the trace of a panic, and by other versions of C libraries, which do
/// without them.
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

/// The last descriptor that a worker shares with other processes: the slot's socket, after standard input, output and error
/// (see `pool/process.rs`). Descriptors that a worker opens itself come after it.
const LAST_SHARED: u64 = 3;

/// The options that a worker sets on a connection.
const SOCKET_OPTIONS: [(i32, i32); 2] =
    [(libc::IPPROTO_TCP, libc::TCP_NODELAY), (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT)];

/// `PR_SET_VMA`, with which the C library names its memory (`prctl(2)`).
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Limits this thread, and those that it creates, to a worker's system calls.
///
/// # Errors
/// The kernel refuses a filter.
pub(super) fn allow_needed() -> Result<(), String> {
    let unknown = UNKNOWN.iter().map(|call| (*call, vec![])).collect();
    // A filter has one answer for all the calls that it denies, so ENOSYS needs a separate one.
    let unknown = filter(unknown, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let needed = filter(calls(), SeccompAction::KillProcess, SeccompAction::Allow)?;
    for program in [unknown, needed] {
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The numbers of the system calls that a worker may make, some only with certain arguments.
pub fn listed_calls() -> Vec<i64> {
    calls().into_iter().map(|(call, _)| call).collect()
}

fn calls() -> Calls {
    let plain = PLAIN.iter().chain(UNKNOWN).map(|call| (*call, vec![]));
    plain.chain(with_conditions()).collect()
}

/// Calls allowed only with certain arguments.
fn with_conditions() -> Calls {
    use Argument::{Address, Int};
    use SeccompCmpOp::{Eq, Gt, Lt, MaskedEq, Ne};
    let log = libc::STDERR_FILENO as u64;
    let own = || (Int(0), Gt, LAST_SHARED);
    let on_own = || vec![vec![own()]];
    let on_own_only =
        |argument, values: &[u64]| values.iter().map(|value| vec![own(), (argument, Eq, *value)]).collect();
    let no_code = || (Int(2), MaskedEq(libc::PROT_EXEC as u64), 0);
    let own_memory = (Int(3), MaskedEq(!OTHER_MAP_FLAGS), PRIVATE_MEMORY);
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
                // The pool's settings are read from a copy of standard input.
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
        // On an existing connection only: no destination address.
        (libc::SYS_sendto, on_own_only(Address(4), &[0])),
        // To read a limit, not to set one: the new limit is null.
        (libc::SYS_prlimit64, only(Address(2), &[0])),
        // For abort(3).
        (libc::SYS_tgkill, only(Int(0), &[own_process])),
    ]
}

/// The lowest address that the first thread's stack may reach. The first thread calls this. Its stack, which `RLIMIT_DATA`
/// does not count, must not be remapped to grow beyond its limit. Nothing else is above that address; mappings are at least
/// 128 MiB below.
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
