//! What a program has used: processor time and memory, of all its processes, from `/proc` (proc(5)).

use std::time::Duration;

use sq_tests::process;

/// Processor time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// In the program itself.
    pub(crate) user: Duration,
    /// In the kernel, for it.
    pub(crate) system: Duration,
}

impl Cpu {
    /// What a process and its children have used since they were started.
    pub(crate) fn of(pid: u32) -> Self {
        family(pid).filter_map(process::cpu_time).fold(Self::default(), |sum, (user, system)| Self {
            user: sum.user + user,
            system: sum.system + system,
        })
    }

    /// What was used since.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// The memory of a process and its children; what they share counts once.
pub(crate) fn memory_kib(pid: u32) -> u64 {
    family(pid).filter_map(|pid| process::kibibytes(pid, "smaps_rollup", "Pss")).sum()
}

fn family(pid: u32) -> impl Iterator<Item = u32> {
    std::iter::once(pid).chain(process::descendants(pid).into_iter().map(|process| process.pid))
}
