//! A program under `strace`, which kills it at a given system call, or lets the call fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binaries, notice, process};

/// The options of strace.
#[derive(Debug, Clone)]
pub struct Strace {
    log: PathBuf,
    calls: String,
    inject: Option<String>,
    only_paths: Vec<PathBuf>,
    is_numbered: bool,
}

/// Whether it can be used here. If not, prints a notice; with `CI=true`, that is a failure.
pub fn works(skipped: &str) -> bool {
    if binaries::on_path("strace").is_none() {
        notice::skip(&format!("{skipped}: strace is missing; apt-get install strace"));
        return false;
    }
    let traced = process::run(Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]));
    if !traced.status.success() {
        notice::skip(&format!("{skipped}: strace may not trace here: {}", traced.stderr));
    }
    traced.status.success()
}

impl Strace {
    /// Traces these system calls, and writes each as a line to a file. Calls that the kernel does not have are left
    /// out.
    pub fn new(log: &Path, calls: &[&str]) -> Self {
        let calls: Vec<String> = calls.iter().map(|call| format!("?{call}")).collect();
        Self {
            log: log.to_owned(),
            calls: calls.join(","),
            inject: None,
            only_paths: Vec::new(),
            is_numbered: false,
        }
    }

    /// Traces every system call, and writes each with its number.
    pub fn everything(log: &Path) -> Self {
        Self { is_numbered: true, calls: "all".into(), ..Self::new(log, &[]) }
    }

    /// Injects this at every such call.
    #[must_use]
    pub fn inject_always(mut self, call: &str, action: &str) -> Self {
        self.inject = Some(format!("inject={call}:{action}"));
        self
    }

    /// Injects this at the call with this number, counted from 1 in each thread: `signal=SIGKILL`, `error=EIO`. A
    /// signal arrives before the call is executed.
    #[must_use]
    pub fn inject(mut self, call: &str, action: &str, number: usize) -> Self {
        self.inject = Some(format!("inject={call}:{action}:when={number}"));
        self
    }

    /// Traces only calls that concern these files.
    #[must_use]
    pub fn only_paths(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.only_paths.extend(paths);
        self
    }

    /// The command under strace. With `-D`, the started process becomes the command itself, so its id and exit status
    /// are the command's.
    pub fn command(&self, traced: &Command) -> Command {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq", "-y", "-o"]).arg(&self.log);
        command.args(["-e", &format!("trace={}", self.calls)]);
        for path in &self.only_paths {
            command.arg("-P").arg(path);
        }
        if self.is_numbered {
            command.arg("-n");
        }
        if let Some(inject) = &self.inject {
            command.args(["-e", inject]);
        }
        command.arg(traced.get_program()).args(traced.get_args());
        for (name, value) in traced.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The traced calls by name, without lines about signals and exits.
    pub fn calls_seen(&self) -> Vec<String> {
        let name = |line: &str| {
            let call = line.split_once(' ')?.1.trim_start();
            let name = call.split_once('(')?.0;
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then(|| name.to_owned())
        };
        self.lines().iter().filter_map(|line| name(line)).collect()
    }

    /// The line of the call that was made to fail.
    pub fn failed_call(&self) -> Option<String> {
        self.lines().into_iter().find(|line| line.contains("(INJECTED)"))
    }

    /// The number of calls that failed; strace counts the calls of each thread separately.
    pub fn failed_calls(&self) -> usize {
        self.lines().iter().filter(|line| line.contains("(INJECTED)")).count()
    }

    fn lines(&self) -> Vec<String> {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}
