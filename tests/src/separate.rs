//! Gateway and pool as separate processes, as systemd starts them: each can be stopped, restarted and upgraded while
//! the other runs.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use crate::client::Client;
use crate::process::Identity;
use crate::root::Root;
use crate::setup::key_of;
use crate::{binaries, process, wait};

/// A gateway without a pool: `sq-gateway serve`.
#[derive(Debug)]
pub struct Gateway(Program);

/// A pool without a gateway: `sq-worker pool`.
#[derive(Debug)]
pub struct Pool(Program);

/// A process with its output in files of the root. Dropping it stops it, and fails the test if its log contains a
/// panic.
#[derive(Debug)]
pub struct Program {
    root: Arc<Root>,
    child: Child,
    /// Its files are `<name>.stdout` and `<name>.log`.
    name: String,
}

impl Gateway {
    /// Starts one, and waits until it is ready.
    pub fn serve(root: &Arc<Root>) -> Self {
        let gateway = Self::begin(root, &[]);
        gateway.wait_ready();
        gateway
    }

    /// Starts one that is to replace the running one, and waits until it waits for the sockets.
    pub fn begin_upgrade(root: &Arc<Root>) -> Self {
        let gateway = Self::begin(root, &["--upgrade"]);
        gateway.wait_for_turn();
        gateway
    }

    /// Starts one with more arguments, without waiting.
    pub fn begin(root: &Arc<Root>, arguments: &[&str]) -> Self {
        Self::begin_with(root, arguments, &[])
    }

    /// The same, with more environment variables.
    pub fn begin_with(root: &Arc<Root>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = root.gateway_command(&["serve", "--config"]);
        command.arg(root.config()).args(arguments).envs(environment.iter().copied());
        Self(Program::start(root, "gateway", &mut command))
    }

    /// Replaces it with another gateway, and waits until it exits, which must be with success.
    #[must_use]
    pub fn upgrade(self) -> Self {
        let next = Self::begin_upgrade(&self.root);
        self.0.hand_over_to(&next);
        next
    }

    /// A client with the key that the harness generated for this tenant.
    pub fn client_of(&self, tenant: &str) -> Client {
        Client::new(self.root.listen(), Some(&key_of(tenant)))
    }

    /// Stops it with SIGTERM; it must exit with 0.
    pub fn stop(self) {
        self.0.stop();
    }
}

impl Pool {
    /// Starts one, and waits until it has every slot's socket.
    pub fn start(root: &Arc<Root>) -> Self {
        let pool = Self::begin(root, &binaries::worker(), &[]);
        pool.wait_ready();
        pool
    }

    /// Starts one that is to replace the running one, and waits until it waits for the sockets.
    pub fn begin_upgrade(root: &Arc<Root>, program: &Path) -> Self {
        let pool = Self::begin(root, program, &["--upgrade"]);
        pool.wait_for_turn();
        pool
    }

    /// Starts one of this program with more arguments, without waiting.
    pub fn begin(root: &Arc<Root>, program: &Path, arguments: &[&str]) -> Self {
        let mut command = Self::command(root, program);
        Self(Program::start(root, "pool", command.args(arguments)))
    }

    /// Starts one with more environment variables, without waiting.
    pub fn begin_with(root: &Arc<Root>, environment: &[(&str, &str)]) -> Self {
        let mut command = Self::command(root, &binaries::worker());
        Self(Program::start(root, "pool", command.envs(environment.iter().copied())))
    }

    fn command(root: &Root, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(root.path()).args(["pool", "--config"]).arg(root.config()).env_remove("RUST_LOG");
        command
    }

    /// Replaces it with another pool of this program, and waits until it exits, which must be with success.
    #[must_use]
    pub fn upgrade(self, program: &Path) -> Self {
        let next = Self::begin_upgrade(&self.root, program);
        self.0.hand_over_to(&next);
        next
    }

    /// Stops it with SIGTERM, and starts another when it has exited.
    #[must_use]
    pub fn restart(self) -> Self {
        let root = Arc::clone(&self.root);
        self.stop();
        Self::start(&root)
    }

    /// Stops it with SIGTERM; it must exit with 0.
    pub fn stop(self) {
        self.0.stop();
    }
}

impl Program {
    fn start(root: &Arc<Root>, kind: &str, command: &mut Command) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{kind}-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let file =
            |suffix| File::create(root.join(format!("{name}.{suffix}"))).expect("a file for its output");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("log"));
        // A copied program is busy while a child that another test has just forked has the copy open for writing.
        let spawned = wait::until_some("end of the copying", || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            spawned => Some(spawned),
        });
        let child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { root: Arc::clone(root), child, name }
    }

    /// Waits for its `ready` line.
    ///
    /// # Panics
    /// It exits instead.
    pub fn wait_ready(&self) {
        self.wait_for("line that says ready", || {
            self.printed().lines().any(|line| line.starts_with("ready"))
        });
    }

    /// Waits until it tells the operator to send SIGQUIT to the running one. Its socket file proves less: a killed
    /// process may have left it.
    ///
    /// # Panics
    /// It exits instead.
    fn wait_for_turn(&self) {
        self.wait_for("line that asks for SIGQUIT", || self.log().contains("SIGQUIT"));
    }

    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        wait::until(&format!("{}'s {what}", self.name), || {
            // In this order: it may have printed that just before it exited.
            let is_running = Identity::of(self.pid()).is_some_and(Identity::is_alive);
            let is_met = condition();
            assert!(is_met || is_running, "{} ended:\n{}", self.name, self.log());
            is_met
        });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let name = &self.name;
        wait::until_some(&format!("the end of {name}"), || self.child.try_wait().expect("a child of ours"))
    }

    /// Its standard output.
    pub fn printed(&self) -> String {
        self.root.read(format!("{}.stdout", self.name))
    }

    /// Its log; for a pool, with its workers' logs.
    pub fn log(&self) -> String {
        self.root.read(format!("{}.log", self.name))
    }

    fn hand_over_to(self, next: &Self) {
        self.signal(Signal::QUIT);
        next.wait_ready();
        self.end_well();
    }

    fn stop(self) {
        self.signal(Signal::TERM);
        self.end_well();
    }

    fn end_well(mut self) {
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_running() {
            // A killed pool leaves its workers to notice; a stopped one ends them.
            self.signal(Signal::TERM);
            if wait::within(wait::PATIENCE, || (!self.is_running()).then_some(())).is_none() {
                process::kill_and_reap(&mut self.child);
            }
        }
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked"), "{} panicked:\n{log}", self.name);
        }
    }
}

impl Deref for Gateway {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}

impl Deref for Pool {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Pool {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}
