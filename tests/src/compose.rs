//! What `compose/` describes, running on an [`Engine`]: in a copy of it with secrets of its own, on images that stand for
//! those of a registry.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::engine::{Container, Engine};
use crate::process::Outcome;
use crate::root::Root;
use crate::tls_curl::TlsCurl;
use crate::{binaries, process, tree, wait};

/// The name that the certificate is for.
pub const NAME: &str = "sq.example.org";

/// The images that the tests run: ours, and what `tests/deploy/base-images` makes.
pub const PROGRAM_IMAGE: &str = "sq-gateway:deploy";
/// Debian's nginx, in the place of the official image.
pub const NGINX_IMAGE: &str = "sq-base/nginx:latest";

/// How long a command of Compose's may take: it waits for each service's health, and for each one's grace period.
const COMPOSE_PATIENCE: Duration = Duration::from_secs(120);

/// What `compose.yaml` asks for.
const OPEN_FILES: u64 = 65536;

/// How long the services may take to be healthy.
pub const HEALTHY_PATIENCE: Duration = Duration::from_secs(60);

/// A project in its folder, running or not.
#[derive(Debug)]
pub struct Project {
    root: Root,
    file: &'static str,
}

impl Project {
    /// A copy of `compose/` and of what it mounts, made ready by its own `setup`, with more lines in `.env`.
    ///
    /// # Panics
    /// It cannot be copied, or `setup` fails.
    pub fn new(file: &'static str, environment: &str) -> Self {
        let project = Self { root: Root::empty(), file };
        for folder in ["compose", "config"] {
            tree::copy(&binaries::workspace().join(folder), &project.root.join(folder));
        }
        // Whoever runs the tests may have a project of his own beside the sources.
        let _ = fs::remove_dir_all(project.root.join("compose/secrets"));
        let _ = fs::remove_file(project.root.join("compose/.env"));
        process::run(Command::new(project.root.join("compose/setup")).arg(NAME)).success();
        let env = project.root.join("compose/.env");
        let mut env = File::options().append(true).open(env).expect("what setup made");
        writeln!(env, "SQ_IMAGE={PROGRAM_IMAGE}\nSQ_NGINX_IMAGE={NGINX_IMAGE}\n{}{environment}", granted())
            .expect("more of it");
        project
    }

    /// The same project with more lines in `.env`: the last of a name counts.
    #[must_use]
    pub fn with_more(self, environment: &str) -> Self {
        let env = File::options()
            .append(true)
            .open(self.path(".env"))
            .and_then(|mut env| write!(env, "{environment}"));
        env.expect("more lines in .env");
        self
    }

    /// Runs `docker-compose` (or `docker compose`) in the project.
    pub fn compose(&self, engine: &Engine, arguments: &[&str]) -> Outcome {
        process::run_within(&mut self.command(engine, arguments), COMPOSE_PATIENCE)
    }

    /// Runs a program in a service's container.
    pub fn exec(&self, engine: &Engine, service: &str, command: &[&str]) -> Outcome {
        self.compose(engine, &[&["exec", "-T", service], command].concat())
    }

    fn command(&self, engine: &Engine, arguments: &[&str]) -> Command {
        let mut command = match binaries::on_path("docker-compose") {
            Some(_) => engine.command("docker-compose"),
            None => {
                let mut command = engine.command("docker");
                command.arg("compose");
                command
            }
        };
        command.current_dir(self.root.join("compose")).args(["--file", self.file]).args(arguments);
        command
    }

    /// A file of the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join("compose").join(name)
    }

    /// Starts all of it, and waits until every service is healthy. Gives the time that it took.
    ///
    /// # Panics
    /// It does not come up.
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
    /// One is not in time.
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

    /// All of its containers.
    pub fn containers(&self, engine: &Engine) -> Vec<Container> {
        engine.containers(&["label=com.docker.compose.project=sq"])
    }

    /// The container of a service.
    ///
    /// # Panics
    /// There is none, or more than one.
    pub fn container(&self, engine: &Engine, service: &str) -> Container {
        let label = format!("label=com.docker.compose.service={service}");
        let mut found = engine.containers(&["label=com.docker.compose.project=sq", &label]);
        assert_eq!(found.len(), 1, "{service}: {found:?}");
        found.remove(0)
    }

    /// What the containers have logged.
    pub fn logs(&self, engine: &Engine) -> String {
        let logs = self.compose(engine, &["logs", "--no-color", "--tail", "200"]);
        logs.stdout + &logs.stderr
    }

    /// Adds tenants up to this number, as the operations page says. Gives their keys, in the order of their slots.
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

    /// Puts an edited config in the place of the one in the volume, as the operations page says.
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

    /// Asks through nginx and TLS, as a customer does.
    pub fn customer(&self) -> TlsCurl {
        let certificate = self.path("secrets/tls_certificate.pem");
        TlsCurl { name: NAME, address: "127.0.0.1".to_owned(), certificate }
    }
}

/// What this machine cannot give, an engine refuses to be asked for: more open files than its own, and, where the kernel
/// has none to give, shares of processors.
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
