//! The system under test: gateway and pool as processes of their own, and what can be done to each of them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{Setup, Tenant, config_text, key_of, registry_text};
use sq_tests::{process, wait};

use crate::disk::Disk;
use crate::programs::Programs;

/// The tenants. All have their data on one disk.
pub(crate) const TENANTS: [&str; 2] = ["alice", "bob"];

/// How many keys a tenant has; one of them may be revoked at a time.
pub(crate) const KEYS: usize = 2;

/// A request to a worker that does not answer ends soon, so that a client is not held up for long.
const TIMEOUTS: &str = "answer = \"1s\"\n";

/// What the registry says of a tenant, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    pub is_suspended: bool,
    /// The index of the key that is missing.
    pub revoked: Option<usize>,
}

/// A running system.
pub(crate) struct System {
    gateway: Option<Gateway>,
    pool: Option<Pool>,
    /// Behind those that use it: fields are dropped in their order.
    pub(crate) disk: Disk,
    programs: Programs,
    pool_program: PathBuf,
    pub(crate) root: Arc<Root>,
    reloads: usize,
}

/// The text of a tenant's key.
pub(crate) fn key(tenant: &str, index: usize) -> String {
    if index == 0 { key_of(tenant) } else { format!("{}-{index}", key_of(tenant)) }
}

fn setup(standing: impl Fn(&str) -> Standing) -> Setup {
    let tenant = |(name, port): (&str, u16)| {
        let Standing { is_suspended, revoked } = standing(name);
        let mut tenant = Tenant::new(name, port).with_key(&key(name, 1), "write", None);
        if let Some(index) = revoked {
            tenant.keys.remove(index);
        }
        tenant.in_state(if is_suspended { "suspended" } else { "active" })
    };
    let tenants = TENANTS.into_iter().zip(1341..).map(tenant).collect();
    Setup { tenants, timeouts: TIMEOUTS.to_owned(), ..Setup::default() }
}

impl System {
    /// Starts everything.
    pub(crate) fn start() -> Self {
        let root = Arc::new(Root::empty());
        let disk = Disk::new(&root);
        let programs = Programs::new(&root);
        let mut system = Self {
            root,
            disk,
            gateway: None,
            pool: None,
            programs,
            pool_program: PathBuf::new(),
            reloads: 0,
        };
        system.write_config("");
        system.write_registry(|_| Standing::default());
        system.run();
        system
    }

    fn run(&mut self) {
        self.start_pool();
        self.gateway = Some(Gateway::serve(&self.root));
    }

    /// Starts a pool, and another as long as it finds a slot taken, as a service manager does: workers of a pool that was
    /// killed have their sockets until they notice.
    fn start_pool(&mut self) {
        let program = self.programs.for_pool();
        let pool = wait::until_some("a pool that has its slots", || {
            let mut pool = Pool::begin(&self.root, &program, &[]);
            let is_ready = |pool: &Pool| pool.printed().starts_with("ready");
            wait::until("a pool's start, or its end", || is_ready(&pool) || !pool.is_running());
            is_ready(&pool).then_some(pool)
        });
        self.has_pool(pool, program);
    }

    fn has_pool(&mut self, pool: Pool, program: PathBuf) {
        self.pool = Some(pool);
        let old = std::mem::replace(&mut self.pool_program, program);
        self.programs.remove(&old);
        if self.programs.have_clock() {
            self.upgrade_workers();
        }
    }

    /// A client with one of a tenant's keys.
    pub(crate) fn client(&self, tenant: &str, index: usize) -> Client {
        Client::new(self.root.listen(), Some(&key(tenant, index)))
    }

    /// Where a tenant's files are.
    pub(crate) fn data_dir(&self, tenant: &str) -> PathBuf {
        self.disk.path().join(tenant)
    }

    fn write_config(&self, limits: &str) {
        let mut setup = setup(|_| Standing::default());
        setup.limits = limits.to_owned();
        setup.gateway = format!("data_root = \"{}\"\n", self.disk.path().display());
        let text = config_text(&setup, self.root.address);
        self.root.write("gateway.toml.new", &text);
        fs::rename(self.root.join("gateway.toml.new"), self.root.config()).expect("the config");
    }

    /// Replaces the registry; both processes watch it.
    pub(crate) fn write_registry(&self, standing: impl Fn(&str) -> Standing) {
        self.root.write_registry(&registry_text(&setup(standing).tenants));
    }

    /// Puts another config in force.
    pub(crate) fn reload_config(&mut self) {
        self.reloads += 1;
        self.write_config(&format!("in_flight = {}\n", 64 + self.reloads % 2));
        for pid in [self.gateway_pid(), self.pool_pid()] {
            process::signal(pid, Signal::HUP);
        }
    }

    pub(crate) fn gateway_pid(&self) -> u32 {
        self.gateway.as_ref().expect("a gateway").pid()
    }

    pub(crate) fn pool_pid(&self) -> u32 {
        self.pool.as_ref().expect("a pool").pid()
    }

    /// A tenant's worker, if it runs.
    pub(crate) fn worker_pid(&self, tenant: &str) -> Option<u32> {
        let is_worker = |pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains(&format!("--tenant\0{tenant}\0"))
        };
        process::descendants(self.pool_pid()).into_iter().map(|process| process.pid).find(is_worker)
    }

    /// Ends a tenant's worker at once, if it runs.
    pub(crate) fn kill_worker(&self, tenant: &str) {
        if let Some(pid) = self.worker_pid(tenant) {
            process::signal(pid, Signal::KILL);
        }
    }

    /// Ends the gateway at once, and starts another.
    pub(crate) fn kill_gateway(&mut self) {
        let mut gateway = self.gateway.take().expect("a gateway");
        gateway.signal(Signal::KILL);
        gateway.ended();
        self.gateway = Some(Gateway::serve(&self.root));
    }

    /// Ends the pool at once, and starts another.
    pub(crate) fn kill_pool(&mut self) {
        let mut pool = self.pool.take().expect("a pool");
        pool.signal(Signal::KILL);
        pool.ended();
        self.start_pool();
    }

    pub(crate) fn upgrade_gateway(&mut self) {
        self.gateway = self.gateway.take().map(Gateway::upgrade);
    }

    pub(crate) fn upgrade_pool(&mut self) {
        let program = self.programs.for_pool();
        let pool = self.pool.take().expect("a pool").upgrade(&program);
        self.has_pool(pool, program);
    }

    /// Puts another program in the workers' place, and waits until the pool has tried it.
    pub(crate) fn upgrade_workers(&mut self) {
        let pool = self.pool.as_ref().expect("a pool");
        let tried = || pool.log().matches("there is a new program").count();
        let before = tried();
        self.programs.replace_for_workers(&self.pool_program);
        pool.signal(Signal::HUP);
        wait::until("a trial of the new program", || tried() > before);
    }

    /// Whether the clock of workers can be stepped.
    pub(crate) fn has_clock(&self) -> bool {
        self.programs.have_clock()
    }

    /// Sets the clock of a tenant's worker so far ahead of the machine's, for those that come after it too.
    pub(crate) fn set_clock(&self, tenant: &str, ahead_s: i64) {
        fs::write(self.data_dir(tenant).join(".clock"), format!("{ahead_s:+}\n")).expect("a clock");
    }

    /// Stops everything in order, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Stops everything in order.
    pub(crate) fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
        if let Some(pool) = self.pool.take() {
            pool.stop();
        }
    }
}
