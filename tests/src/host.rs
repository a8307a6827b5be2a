//! A Debian host with systemd and nginx, and nothing of ours, as operators have it: a container of an [`Engine`] that
//! can be shut down and started again.

use std::time::Duration;

use crate::engine::Engine;
use crate::process::Outcome;
use crate::{binaries, process, wait};

/// The image; `tests/deploy/base-images` builds it.
pub const HOST_IMAGE: &str = "sq-base/systemd:latest";

const NAME: &str = "host";

/// How long a command on the host may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running host.
#[derive(Debug)]
pub struct Host {
    /// Its address.
    pub address: String,
}

impl Host {
    /// Starts it, with a copy of the workspace's `config/` and the programs under test in `/opt`.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(engine: &Engine) -> Self {
        let mut arguments =
            vec!["run", "--detach", "--name", NAME, "--hostname", "sq-host", "--stop-signal", "SIGRTMIN+3"];
        // systemd needs these for the units' namespaces and filters; the container's content is trusted.
        for capability in ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"] {
            arguments.extend(["--cap-add", capability]);
        }
        arguments.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]);
        arguments.extend(["--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup"]);
        arguments.extend(["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", HOST_IMAGE]);
        engine.docker(&arguments).success();
        for (from, to) in [
            (binaries::workspace().join("config"), "/opt/config"),
            (binaries::gateway(), "/opt/sq-gateway"),
            (binaries::worker(), "/opt/sq-worker"),
        ] {
            let from = from.to_str().expect("a path of UTF-8").to_owned();
            engine.docker(&["cp", &from, &format!("{NAME}:{to}")]).success();
        }
        let host = Self { address: address(engine) };
        host.wait_running(engine);
        host
    }

    /// Shuts it down as `poweroff` does, and starts it again.
    pub fn reboot(&mut self, engine: &Engine) {
        engine.docker(&["stop", "-t", "90", NAME]).success();
        engine.docker(&["start", NAME]).success();
        self.address = address(engine);
        self.wait_running(engine);
    }

    fn wait_running(&self, engine: &Engine) {
        let state = || self.run(engine, "systemctl is-system-running").stdout;
        let is_up = || ["running", "degraded"].contains(&state().trim()).then_some(());
        assert!(wait::within(PATIENCE, is_up).is_some(), "the host does not start: {}", state());
    }

    /// Runs a script on it as root, in `/opt`; stops at the first command that fails.
    pub fn run(&self, engine: &Engine, script: &str) -> Outcome {
        let mut command = engine.command("docker");
        command.args(["exec", "--workdir", "/opt", NAME, "bash", "-euo", "pipefail", "-c", script]);
        process::run_within(&mut command, PATIENCE)
    }
}

fn address(engine: &Engine) -> String {
    let form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    engine.docker(&["inspect", "--format", form, NAME]).success().trim().to_owned()
}
