//! The project in `compose/`, running on an [`Engine`]: a copy with separate secrets, on images that replace those of
//! a registry.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::engine::{Container, Engine};
use crate::process::Outcome;
use crate::root::Root;
use crate::tls_curl::TlsCurl;
use crate::{binaries, process, tree, wait};

/// The name in the certificate.
pub const NAME: &str = "sq.example.org";

/// The images that the tests run: ours, and those that `tests/deploy/base-images` builds.
pub const PROGRAM_IMAGE: &str = "sq-gateway:deploy";
/// Debian's nginx, instead of the official image.
pub const NGINX_IMAGE: &str = "sq-base/nginx:latest";

/// How long a Compose command may take: it waits for each service's health, and for its grace period.
const COMPOSE_PATIENCE: Duration = Duration::from_secs(120);

/// The open-file limit in `compose.yaml`.
const OPEN_FILES: u64 = 65536;

/// How long the services may take to become healthy.
pub const HEALTHY_PATIENCE: Duration = Duration::from_secs(60);

/// A project in its folder, running or not.
#[derive(Debug)]
pub struct Project {
    root: Root,
    /// The environment of each Compose command, as in the documentation.
    options: &'static [&'static str],
    /// Its project name.
    name: &'static str,
    /// The folder with its settings.
    env_file: &'static str,
}

impl Project {
    /// The whole system, prepared by its own `setup`, with more lines in `.env`.
    ///
    /// # Panics
    /// It cannot be copied, or `setup` fails.
    pub fn whole(environment: &str) -> Self {
        let project = Self::copy(&[], "sq", ".env");
        process::run(Command::new(project.path("setup")).arg(NAME)).success();
        project.with_more(&format!("SQ_NGINX_IMAGE={NGINX_IMAGE}\n{environment}"))
    }

    /// One worker alone, with these settings.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn single(environment: &str) -> Self {
        let options = &["--project-name", "sq-single", "--file", "single.yaml", "--env-file", "single.env"];
        Self::copy(options, "sq-single", "single.env").with_more(environment)
    }

    /// A copy of `compose/` and of what it mounts, without files that other runs created there.
    fn copy(options: &'static [&'static str], name: &'static str, env_file: &'static str) -> Self {
        let project = Self { root: Root::empty(), options, name, env_file };
        for folder in ["compose", "config"] {
            tree::copy(&binaries::workspace().join(folder), &project.root.join(folder));
        }
        let _ = fs::remove_dir_all(project.path("secrets"));
        for file in [".env", "single.env"] {
            let _ = fs::remove_file(project.path(file));
        }
        project
    }

    /// The same project with more settings; of equal names, the last one applies.
    ///
    /// # Panics
    /// They cannot be written.
    #[must_use]
    pub fn with_more(self, environment: &str) -> Self {
        let file = File::options().create(true).append(true).open(self.path(self.env_file));
        let given = format!("SQ_IMAGE={PROGRAM_IMAGE}\n{}{environment}", granted());
        file.and_then(|mut file| file.write_all(given.as_bytes())).expect("more settings");
        self
    }

    /// Runs `docker compose` (or `docker-compose`) in the project.
    pub fn compose(&self, engine: &Engine, arguments: &[&str]) -> Outcome {
        let (program, first) = compose_program();
        let mut command = engine.command(program);
        command.current_dir(self.path("")).args(first).args(self.options).args(arguments);
        process::run_within(&mut command, COMPOSE_PATIENCE)
    }

    /// Runs a script from the documentation in the project's folder, as an operator does, with the backup in a folder
    /// of the test.
    pub fn shell(&self, engine: &Engine, script: &str) -> Outcome {
        let (program, first) = compose_program();
        let compose = [&[program], first].concat().join(" ");
        let script = script
            .replace("BACKUP=/backup", &format!("BACKUP={}", self.root.join("backup").display()))
            .replace(" sq-gateway sq-worker", &format!(" {PROGRAM_IMAGE} sq-worker"))
            .replace("docker compose", &compose);
        let mut command = engine.command("bash");
        command.current_dir(self.path("")).args(["-euo", "pipefail", "-c", &script]);
        process::run_within(&mut command, COMPOSE_PATIENCE)
    }

    /// Runs a program in a service's container.
    pub fn exec(&self, engine: &Engine, service: &str, command: &[&str]) -> Outcome {
        self.compose(engine, &[&["exec", "-T", service], command].concat())
    }

    /// A file of the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join("compose").join(name)
    }

    /// Starts all services, waits until they are healthy, and returns the time that took.
    ///
    /// # Panics
    /// They do not become healthy.
    pub fn up(&self, engine: &Engine) -> Duration {
        let begun = Instant::now();
        let outcome = self.compose(engine, &["up", "--detach"]);
        assert!(outcome.status.success(), "{}\n{}", outcome.stderr, self.logs(engine));
        self.wait_healthy(engine);
        begun.elapsed()
    }

    /// Waits until every service runs and is healthy.
    ///
    /// # Panics
    /// One does not in time.
    pub fn wait_healthy(&self, engine: &Engine) {
        let is_well = |container: &Container| container.status == "running" && container.health == "healthy";
        let all_well = || {
            let containers = self.containers(engine);
            (!containers.is_empty() && containers.iter().all(is_well)).then_some(())
        };
        if wait::within(HEALTHY_PATIENCE, all_well).is_none() {
            panic!("not healthy: {:?}\n{}", self.containers(engine), self.logs(engine));
        }
    }

    fn project_label(&self) -> String {
        format!("label=com.docker.compose.project={}", self.name)
    }

    /// All of its containers.
    pub fn containers(&self, engine: &Engine) -> Vec<Container> {
        engine.containers(&[&self.project_label()])
    }

    /// The container of a service.
    ///
    /// # Panics
    /// There is no such container, or more than one.
    pub fn container(&self, engine: &Engine, service: &str) -> Container {
        let label = format!("label=com.docker.compose.service={service}");
        let mut found = engine.containers(&[&self.project_label(), &label]);
        assert_eq!(found.len(), 1, "{service}: {found:?}");
        found.remove(0)
    }

    /// The containers' logs.
    pub fn logs(&self, engine: &Engine) -> String {
        let logs = self.compose(engine, &["logs", "--no-color", "--tail", "200"]);
        logs.stdout + &logs.stderr
    }

    /// Adds tenants up to this number, as in the operations page. Returns their keys in the order of their slots.
    ///
    /// # Panics
    /// It fails.
    pub fn provision(&self, engine: &Engine, slots: usize) -> Vec<String> {
        let count = slots.to_string();
        let provision = [
            "sq-gateway",
            "provision",
            "--slots",
            &count,
            "--config",
            "/etc/sq/gateway.toml",
            "--keys-out",
            "-",
        ];
        let printed = self.exec(engine, "gateway", &provision).success();
        let keys = printed.lines().skip(1).filter_map(|line| line.rsplit(',').next());
        keys.map(|key| key.trim().to_owned()).collect()
    }

    /// Replaces the config in the volume with an edited one, as in the operations page.
    ///
    /// # Panics
    /// It fails.
    pub fn edit_config(&self, engine: &Engine, edit: impl Fn(&str) -> String) {
        let id = self.container(engine, "gateway").id;
        let inside = format!("{id}:/etc/sq/gateway.toml");
        let outside = self.root.join("gateway.toml");
        let outside_text = outside.to_str().expect("a path of UTF-8");
        engine.docker(&["cp", &inside, outside_text]).success();
        fs::write(&outside, edit(&self.root.read("gateway.toml"))).expect("the edited config");
        engine.docker(&["cp", outside_text, &inside]).success();
    }

    /// Sends a request through nginx and TLS, as a customer does.
    pub fn customer(&self) -> TlsCurl {
        let certificate = self.path("secrets/tls_certificate.pem");
        TlsCurl { name: NAME, address: "127.0.0.1".to_owned(), certificate }
    }
}

/// The plugin of newer engines, or the program of older ones.
fn compose_program() -> (&'static str, &'static [&'static str]) {
    static HAS_PLUGIN: OnceLock<bool> = OnceLock::new();
    let asks = || process::run(Command::new("docker").args(["compose", "version"])).status.success();
    if *HAS_PLUGIN.get_or_init(asks) { ("docker", &["compose"]) } else { ("docker-compose", &[]) }
}

/// An engine refuses settings that this machine cannot satisfy: more open files than its own limit, and CPU shares
/// without kernel support.
fn granted() -> String {
    let open_files = getrlimit(Resource::Nofile).maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    format!("SQ_OPEN_FILES={open_files}\n{}", processors())
}

fn processors() -> &'static str {
    let has_quotas = ["/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cgroup.controllers"];
    if has_quotas.iter().any(|path| fs::exists(path).unwrap_or(false)) {
        ""
    } else {
        "SQ_POOL_CPUS=0\nSQ_GATEWAY_CPUS=0\nSQ_NGINX_CPUS=0\nSQ_WORKER_CPUS=0\n"
    }
}
