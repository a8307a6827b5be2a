//! A Docker engine of the tests' own, with its data in a folder of the tests' own: it can be stopped and killed like a
//! host, and nothing of the machine's own engine is touched. `tests/deploy/run` gives it a network of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::notice::skip;
use crate::process::{Identity, Outcome};
use crate::{process, wait};

/// Names the engine's folder; set by `tests/deploy/run`, in namespaces where nothing can be in anybody's way.
const FOLDER_VARIABLE: &str = "SQ_ENGINE_DIR";

/// Not the machine's own settings. Control groups by files: a host's systemd would be told process numbers that mean others
/// to it.
const SETTINGS: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;

/// How long the engine may take to start, or to stop with all its containers: their grace period, and some.
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
    /// Its number.
    pub id: String,
    /// `running`, `exited` …
    pub status: String,
    /// `healthy`, `unhealthy`, `starting`; `none` when nobody looks.
    pub health: String,
    /// Its main process, as this side sees it; 0 when there is none.
    pub pid: u32,
    /// What the main process ended with, if it has.
    pub exit_code: i32,
    /// How often the engine has started it again.
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
    /// Starts one that has these images of the machine's own engine. Where the tests were not started by their script,
    /// says what is skipped.
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

    /// Stops it as a host's shutdown does: SIGTERM, and each container has its grace period.
    pub fn stop(&mut self) {
        process::signal(self.daemon.id(), Signal::TERM);
        let ended = wait::within(ENGINE_PATIENCE, || self.daemon.try_wait().expect("a child of ours"));
        assert!(ended.is_some(), "the engine does not stop:\n{}", self.log());
    }

    /// Ends all that runs, engine and containers, at one moment and unasked, and what is in memory alone with it: mounts,
    /// and what lies in `/run`. So it is when a host crashes, but that its disk's own cache is kept.
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

    /// What is mounted in its folder, the innermost first (proc_pid_mountinfo(5)).
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

    /// `docker` with these arguments, asked of this engine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    /// Runs `docker` to its end.
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        process::run_within(self.command("docker").args(arguments), ENGINE_PATIENCE)
    }

    /// The containers that `docker ps` finds with these filters, those that have ended too.
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

    /// What a run before left, which may have been ended in its midst.
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

    /// Brings an image over from the machine's engine, unless it is here already.
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

    /// The daemon, what it has started for itself, and what keeps the containers: whoever names the folder.
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

/// Removes what an engine keeps in `/run`, which no reboot leaves behind.
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
