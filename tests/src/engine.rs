//! A Docker engine for the tests, with its data in a separate folder: it can be stopped and killed like a host, and
//! the machine's own engine is not touched. `tests/deploy/run` gives it a separate network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::notice::skip;
use crate::process::{Identity, Outcome};
use crate::{process, wait};

/// The variable with the engine's folder; `tests/deploy/run` sets it, in namespaces where the engine cannot disturb
/// other programs.
const FOLDER_VARIABLE: &str = "SQ_ENGINE_DIR";

/// Instead of the machine's own settings. Control groups are managed through files, because the host's systemd would
/// be given process ids of another namespace.
const SETTINGS: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;

/// How long the engine may take to start, or to stop with all its containers: longer than their grace period.
const ENGINE_PATIENCE: Duration = Duration::from_secs(90);

/// An engine. Dropping it stops it, and removes its containers, volumes and networks.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    daemon: Child,
}

/// A container, as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// `running`, `exited` …
    pub status: String,
    /// `healthy`, `unhealthy`, `starting`; `none` without a health check.
    pub health: String,
    /// Its main process's id in this namespace; 0 if it does not run.
    pub pid: u32,
    /// The main process's exit code, if it has exited.
    pub exit_code: i32,
    /// How often the engine has restarted it.
    pub restarts: u32,
}

impl Container {
    fn read(described: &Value) -> Option<Self> {
        let state = described.get("State")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let health = state.get("Health").and_then(|health| health.get("Status"));
        Some(Self {
            id: text(described.get("Id")?)?,
            status: text(state.get("Status")?)?,
            health: health.and_then(text).unwrap_or_else(|| "none".to_owned()),
            pid: state.get("Pid")?.as_u64()?.try_into().ok()?,
            exit_code: state.get("ExitCode")?.as_i64()?.try_into().ok()?,
            restarts: described.get("RestartCount")?.as_u64()?.try_into().ok()?,
        })
    }
}

impl Engine {
    /// Starts an engine with these images of the machine's own engine. `None`, with a notice, if the tests were not
    /// started by their script.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(skipped: &str, images: &[&str]) -> Option<Self> {
        let Some(folder) = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) else {
            skip(&format!("{skipped}: tests/deploy/run starts it"));
            return None;
        };
        fs::create_dir_all(&folder).expect("the engine's folder");
        forget(&folder);
        fs::write(folder.join("daemon.json"), SETTINGS).expect("its settings");
        let engine = Self { daemon: spawn(&folder), folder };
        engine.wait_ready();
        engine.clear();
        for image in images {
            engine.copy_image(image);
        }
        Some(engine)
    }

    /// Stops it as a shutdown of the host does: SIGTERM, with each container's grace period.
    pub fn stop(&mut self) {
        process::signal(self.daemon.id(), Signal::TERM);
        let ended = wait::within(ENGINE_PATIENCE, || self.daemon.try_wait().expect("a child of ours"));
        assert!(ended.is_some(), "the engine does not stop:\n{}", self.log());
    }

    /// Kills the engine and its containers at the same moment, and discards what is in memory only: mounts, and the
    /// files in `/run`. This is a host's crash, except that the disk's own cache is kept.
    pub fn crash(&mut self) {
        let containers = self.containers(&[]).into_iter().map(|container| container.pid);
        let containers: Vec<Identity> = containers.filter_map(Identity::of).collect();
        let all: Vec<Identity> = self.processes().into_iter().chain(containers).collect();
        for process in &all {
            process::signal(process.pid, Signal::KILL);
        }
        let _ = self.daemon.wait();
        wait::until("the end of engine and containers", || !all.iter().any(|process| process.is_alive()));
        for mounted in self.mounts() {
            process::run(Command::new("umount").arg("--lazy").arg(mounted)).success();
        }
        forget(&self.folder);
    }

    /// The mounts in its folder, the innermost first (proc_pid_mountinfo(5)).
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
        let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut own: Vec<PathBuf> = places.filter(|place| place.starts_with(&self.folder)).collect();
        own.reverse();
        own
    }

    /// Starts it again, with the same containers.
    pub fn resume(&mut self) {
        self.daemon = spawn(&self.folder);
        self.wait_ready();
    }

    /// A `docker` command for this engine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    /// Runs `docker` to its end.
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        process::run_within(self.command("docker").args(arguments), ENGINE_PATIENCE)
    }

    /// The containers that `docker ps` finds with these filters, including exited ones.
    pub fn containers(&self, filters: &[&str]) -> Vec<Container> {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        let listing: Vec<&str> = ["ps", "--all", "--quiet"].into_iter().chain(filters).collect();
        let listed = self.docker(&listing).success();
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let described = self.docker(&[&["inspect"], ids.as_slice()].concat()).success();
        let described: Vec<Value> = serde_json::from_str(&described).expect("what docker inspect prints");
        described.iter().map(|container| Container::read(container).expect("a container")).collect()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default()
    }

    fn wait_ready(&self) {
        let answers = || {
            let is_alive = Identity::of(self.daemon.id()).is_some_and(Identity::is_alive);
            assert!(is_alive, "the engine has ended:\n{}", self.log());
            self.docker(&["version"]).status.success().then_some(())
        };
        assert!(
            wait::within(ENGINE_PATIENCE, answers).is_some(),
            "the engine does not start:\n{}",
            self.log()
        );
    }

    /// Removes what an earlier run left, which may have been killed.
    fn clear(&self) {
        let containers = self.containers(&[]);
        if !containers.is_empty() {
            let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
            self.docker(&[&["rm", "--force", "--volumes"], ids.as_slice()].concat()).success();
        }
        let volumes = self.docker(&["volume", "ls", "--quiet"]).success();
        for volume in volumes.lines() {
            self.docker(&["volume", "rm", volume]).success();
        }
        self.docker(&["network", "prune", "--force"]).success();
    }

    /// Copies an image from the machine's engine, unless it is here already.
    fn copy_image(&self, image: &str) {
        let id = |command: &mut Command| {
            let outcome = process::run(command.args(["image", "inspect", "--format", "{{.Id}}", image]));
            outcome.status.success().then_some(outcome.stdout)
        };
        let wanted =
            id(&mut Command::new("docker")).unwrap_or_else(|| panic!("the machine's engine has no {image}"));
        if id(&mut self.command("docker")) == Some(wanted) {
            return;
        }
        let mut save = Command::new("docker");
        let mut save = save.args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker save");
        let image_text = save.stdout.take().expect("its output");
        let mut load = self.command("docker");
        let load = load.arg("load").stdin(image_text).stdout(Stdio::null()).status().expect("docker load");
        assert!(save.wait().expect("its end").success() && load.success(), "{image} cannot be copied");
    }

    /// The daemon, its child processes and the containers' shims: all processes whose command line names the folder.
    fn processes(&self) -> Vec<Identity> {
        let folder = self.folder.to_str().expect("a path of UTF-8");
        let names_it = |pid: u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let parts: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
            let program = parts.first().and_then(|program| program.rsplit(|byte| *byte == b'/').next());
            program.is_some_and(|name| name.starts_with(b"dockerd") || name.starts_with(b"containerd"))
                && String::from_utf8_lossy(&command).contains(folder)
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| names_it(*pid)).filter_map(Identity::of).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clear();
        }
        process::signal(self.daemon.id(), Signal::TERM);
        if wait::within(ENGINE_PATIENCE, || self.daemon.try_wait().ok().flatten()).is_none() {
            process::kill_and_reap(&mut self.daemon);
        }
    }
}

/// Removes an engine's files in `/run`, as a reboot does.
fn forget(folder: &Path) {
    let _ = fs::remove_dir_all(folder.join("exec"));
    let _ = fs::remove_file(folder.join("dockerd.pid"));
}

fn spawn(folder: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("dockerd.log"))
        .expect("a file for its log");
    let mut command = Command::new("dockerd");
    for (option, name) in [
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "dockerd.pid"),
        ("--config-file", "daemon.json"),
    ] {
        command.arg(option).arg(folder.join(name));
    }
    command.arg("--host").arg(format!("unix://{}", folder.join("docker.sock").display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
