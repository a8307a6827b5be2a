//! Processes: runs commands to their end, sends signals, and finds running processes.

use std::fs;
use std::io::{Read, Seek};
use std::net::SocketAddrV4;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait;

/// The result of a command.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Its exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its standard output, if it exited with success.
    ///
    /// # Panics
    /// It did not.
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command to its end.
///
/// # Panics
/// It cannot be started, or does not end in time (it is killed then).
pub fn run(command: &mut Command) -> Outcome {
    run_within(command, wait::PATIENCE)
}

/// Runs a command to its end, with this timeout.
///
/// # Panics
/// It cannot be started, or does not end in time (it is killed then).
pub fn run_within(command: &mut Command, limit: Duration) -> Outcome {
    let mut output = tempfile::tempfile().expect("a file for the output");
    let mut errors = tempfile::tempfile().expect("a file for the errors");
    command.stdin(Stdio::null());
    command.stdout(output.try_clone().expect("its handle")).stderr(errors.try_clone().expect("its handle"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let ended = wait::within(limit, || child.try_wait().expect("a child of ours"));
    let Some(status) = ended else {
        kill_and_reap(&mut child);
        panic!("{command:?} did not end:\n{}\n{}", contents(&mut output), contents(&mut errors));
    };
    Outcome { status, stdout: contents(&mut output), stderr: contents(&mut errors) }
}

/// The whole content of a file, through a handle that it was written with.
pub(crate) fn contents(file: &mut fs::File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what was written");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a signal to a process, if it still exists.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Kills a child.
pub fn kill_and_reap(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A process, identified by its id and start time, because ids are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    started: u64,
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != "Z")
    }
}

/// The parent of a process.
pub fn parent(of: u32) -> Option<u32> {
    stat(of).map(|stat| stat.parent)
}

/// All descendants of a process.
pub fn descendants(of: u32) -> Vec<Identity> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Stat)> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut family = vec![of];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.into_iter().skip(1).filter_map(Identity::of).collect()
}

/// The CPU time that a process has used, in user mode and in the kernel.
pub fn cpu_time(pid: u32) -> Option<(Duration, Duration)> {
    // USER_HZ is 100, whatever the kernel's own clock is (time(7)).
    let time = |ticks: u64| Duration::from_millis(ticks * 10);
    stat(pid).map(|stat| (time(stat.user_ticks), time(stat.system_ticks)))
}

struct Stat {
    state: String,
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    started: u64,
}

/// Reads `/proc/<pid>/stat` (proc(5)); the name in parentheses may contain any bytes.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        user_ticks: fields.get(11)?.parse().ok()?,
        system_ticks: fields.get(12)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The value in KiB of a line of `/proc/<pid>/<file>` that begins with this name: `VmHWM` of `status`, `Pss` of
/// `smaps_rollup`.
pub fn kibibytes(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The name of a process's program, as the kernel has it.
pub fn name(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

/// The number of unread bytes in the connections that a process has accepted on an address, without those of the
/// listener.
pub fn unread_bytes(address: SocketAddrV4) -> u64 {
    established(address).iter().sum()
}

/// The number of sent but unacknowledged bytes on connections to an address.
pub fn unsent_bytes(address: SocketAddrV4) -> u64 {
    connections_with(address, REMOTE).into_iter().map(|(send, _)| send).sum()
}

/// The number of open connections that a process has accepted on an address.
pub fn connections(address: SocketAddrV4) -> usize {
    established(address).len()
}

/// The fields of `/proc/net/tcp` with a connection's two addresses (proc_net(5)).
const LOCAL: usize = 1;
const REMOTE: usize = 2;

/// The receive queues of the established connections of an address.
fn established(address: SocketAddrV4) -> Vec<u64> {
    connections_with(address, LOCAL).into_iter().map(|(_, receive)| receive).collect()
}

/// The send and receive queues of the established connections with this address at this end.
fn connections_with(address: SocketAddrV4, end: usize) -> Vec<(u64, u64)> {
    let ip = u32::from_le_bytes(address.ip().octets());
    let shown = format!("{ip:08X}:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let bytes = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let queues = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields.get(end) == Some(&shown.as_str()) && fields.get(3) == Some(&"01");
        let (send, receive) = fields.get(4)?.split_once(':')?;
        if is_ours { bytes(send).zip(bytes(receive)) } else { None }
    };
    table.lines().filter_map(queues).collect()
}
