//! The whole system: `sq-gateway up` with its pool and workers.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::process::Identity;
use crate::root::Root;
use crate::setup::{ADMIN_KEY, Setup, key_of};
use crate::{address, process, wait};

const STDOUT: &str = "up.stdout";
const LOG: &str = "up.log";

/// A running system in its folder. Dropping it stops it, and fails the test if its log contains a panic.
#[derive(Debug)]
pub struct Deployment {
    root: Arc<Root>,
    child: Child,
    /// The address that it printed.
    pub listen: SocketAddr,
    /// The number of tenants that it printed.
    pub tenants: usize,
    is_stopped: bool,
}

/// A worker that the pool reports as running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its tenant.
    pub tenant: String,
    /// Its slot.
    pub port: u16,
    /// Its process id.
    pub pid: u32,
}

impl Deployment {
    /// Starts the system with this setup, and waits until it is ready.
    pub fn start(setup: &Setup) -> Self {
        Self::up(Root::new(setup), &[])
    }

    /// Runs `up` on a folder, with more arguments.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn up(root: impl Into<Arc<Root>>, arguments: &[&str]) -> Self {
        let root = root.into();
        let folder = root.path().to_str().expect("a path of UTF-8").to_owned();
        let mut command = root.gateway_command(&["up", "--root", &folder]);
        command.args(arguments);
        Self::spawn(root, &mut command)
    }

    /// Runs a command that becomes a whole system.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn spawn(root: impl Into<Arc<Root>>, command: &mut Command) -> Self {
        let root = root.into();
        let output = File::create(root.join(STDOUT)).expect("a file for its output");
        let log = File::options().create(true).append(true).open(root.join(LOG)).expect("a file for its log");
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let listen = root.listen();
        let mut deployment = Self { root, child, listen, tenants: 0, is_stopped: false };
        let (listen, tenants) = wait::until_some("the line that says ready", || deployment.ready());
        (deployment.listen, deployment.tenants) = (listen, tenants);
        deployment
    }

    /// Reads `ready http://ADDR tenants=N`; fails at once if the process has exited.
    fn ready(&mut self) -> Option<(SocketAddr, usize)> {
        let printed = self.printed();
        let line = printed.lines().find_map(|line| line.strip_prefix("ready http://"));
        if line.is_none()
            && let Some(status) = self.child.try_wait().expect("a child of ours")
        {
            panic!("it ended before it was ready: {status}\n{printed}\n{}", self.log());
        }
        let (listen, tenants) = line?.split_once(" tenants=")?;
        Some((listen.parse().ok()?, tenants.trim().parse().ok()?))
    }

    /// Its standard output.
    pub fn printed(&self) -> String {
        self.root.read(STDOUT)
    }

    /// The log of its processes.
    pub fn log(&self) -> String {
        fs::read(self.root.join(LOG))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// A client with this key, or with none.
    pub fn client(&self, key: Option<&str>) -> Client {
        Client::new(self.listen, key)
    }

    /// A client with the key that the harness generated for this tenant.
    pub fn client_of(&self, tenant: &str) -> Client {
        self.client(Some(&key_of(tenant)))
    }

    /// A client of the admin API, with its key.
    pub fn admin(&self) -> Client {
        self.admin_with(Some(ADMIN_KEY))
    }

    /// A client of the admin API with this key, or with none.
    pub fn admin_with(&self, key: Option<&str>) -> Client {
        Client::new(address::at(self.root.address, 1338), key)
    }

    /// A client that connects to the slot, bypassing the gateway.
    pub fn slot(&self, port: u16, key: Option<&str>) -> Client {
        Client::new(address::at(self.root.address, port), key)
    }

    /// The pool's status.
    ///
    /// # Panics
    /// The pool does not respond.
    pub fn pool_status(&self) -> Value {
        let answer = Client::new(address::at(self.root.address, 1339), None).get("/status");
        assert_eq!(answer.status, 200, "{answer}");
        answer.json()
    }

    /// The running workers.
    ///
    /// # Panics
    /// The pool's status does not have the form of the contract.
    pub fn workers(&self) -> Vec<Worker> {
        let status = self.pool_status();
        let running = status.get("running").and_then(Value::as_array).expect("the list of running workers");
        let number = |worker: &Value, name: &str| worker.get(name).and_then(Value::as_u64).expect("a number");
        let read = |worker: &Value| Worker {
            tenant: worker.get("tenant").and_then(Value::as_str).expect("a name").to_owned(),
            port: u16::try_from(number(worker, "port")).expect("a port"),
            pid: u32::try_from(number(worker, "pid")).expect("a process"),
        };
        running.iter().map(read).collect()
    }

    /// The tenant's worker, if it runs.
    pub fn worker_of(&self, tenant: &str) -> Option<Worker> {
        self.workers().into_iter().find(|worker| worker.tenant == tenant)
    }

    /// The process id of `up`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to `up`.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.child.id(), signal);
    }

    /// Waits for the end of `up`.
    pub fn ended(&mut self) -> ExitStatus {
        wait::until_some("the end of up", || self.child.try_wait().expect("a child of ours"))
    }

    /// Stops it with SIGTERM, and returns the folder. It must exit with 0 and leave no process behind.
    ///
    /// # Panics
    /// It exits otherwise, or leaves a process behind.
    pub fn stop(mut self) -> Arc<Root> {
        let family = process::descendants(self.pid());
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.log());
        let left: Vec<Identity> = family.into_iter().filter(|process| process.is_alive()).collect();
        assert!(left.is_empty(), "these outlived it: {left:?}");
        self.is_stopped = true;
        Arc::clone(&self.root)
    }

    fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "a process panicked:\n{log}");
    }

    fn end_now(&mut self) {
        let family = process::descendants(self.pid());
        self.signal(Signal::TERM);
        if wait::within(wait::PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            process::kill_and_reap(&mut self.child);
        }
        for left in family.into_iter().filter(|process| process.is_alive()) {
            process::signal(left.pid, Signal::KILL);
        }
    }
}

impl Deref for Deployment {
    type Target = Root;

    fn deref(&self) -> &Root {
        &self.root
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !self.is_stopped {
            self.end_now();
        }
        if !std::thread::panicking() {
            self.assert_no_panic();
        }
    }
}
