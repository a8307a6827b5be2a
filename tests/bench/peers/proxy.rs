//! A proxy in front of the fleet, with the same job whoever it is.

mod caddy;
mod gateway;
mod haproxy;
mod nginx;
mod sq_route;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::setup::Tenant;
use sq_tests::{address, binaries, process, wait};

use super::fleet::Fleet;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Gateway,
    Haproxy,
    Caddy,
    SqRoute,
}

/// What an address may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// More than anybody reaches.
    Never,
    /// One request a minute: all but the first are refused.
    OneAMinute,
    /// 1,440 a day: who came once is remembered for a minute.
    RememberedForAMinute,
}

/// What a proxy has to do.
pub(crate) struct Site<'f> {
    /// The workers behind.
    pub(crate) fleet: &'f Fleet,
    /// The tenants that it knows.
    pub(crate) tenants: &'f [Tenant],
    /// The limit of an address.
    pub(crate) rate: Rate,
}

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    /// Whose it is.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Kind {
    /// All of them; the first is what the others are compared with.
    pub(crate) const ALL: [Self; 5] = [Self::Nginx, Self::Gateway, Self::Haproxy, Self::Caddy, Self::SqRoute];

    /// How the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Gateway => "sq-gateway",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::SqRoute => "sq route",
        }
    }

    /// Its program, if it is here.
    pub(crate) fn program(self) -> Option<PathBuf> {
        match self {
            Self::Gateway => Some(binaries::gateway()),
            Self::SqRoute => sq_tests::peers::sq_if_any(),
            Self::Nginx | Self::Haproxy | Self::Caddy => binaries::on_path(self.name()),
        }
    }

    /// What its program says about itself.
    pub(crate) fn version(self, program: &Path) -> String {
        let arguments: &[&str] = match self {
            Self::Nginx | Self::Haproxy => &["-v"],
            Self::Caddy => &["version"],
            Self::Gateway => &["--version"],
            Self::SqRoute => &["version"],
        };
        let outcome = process::run(Command::new(program).args(arguments));
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        said.lines().next().unwrap_or_default().to_owned()
    }

    /// Whether it can refuse by a rate: Debian's Caddy has no such module, and the router has nothing like it.
    pub(crate) fn has_rates(self) -> bool {
        matches!(self, Self::Nginx | Self::Gateway | Self::Haproxy)
    }

    /// Starts it.
    pub(crate) fn start(self, site: &Site<'_>) -> Proxy {
        let address = next_address(site);
        let folder = site.fleet.root.join(format!("{}-{}", self.name().replace(' ', "-"), address.port()));
        std::fs::create_dir_all(&folder).expect("a folder for its files");
        let program = self.program().expect("a program that was found before");
        let command = match self {
            Self::Nginx => nginx::command(&program, &folder, site, address),
            Self::Gateway => gateway::command(&program, &folder, site, address),
            Self::Haproxy => haproxy::command(&program, &folder, site, address),
            Self::Caddy => caddy::command(&program, &folder, site, address),
            Self::SqRoute => sq_route::command(&program, &folder, site, address),
        };
        let mut command = on_its_processor(&command);
        let log = std::fs::File::create(folder.join("log")).expect("a file for its log");
        let other = log.try_clone().expect("its handle");
        command.current_dir(&folder).stdin(Stdio::null()).stdout(other).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut proxy = Proxy { kind: self, address, child };
        wait::until("the proxy listens", || {
            let ended = proxy.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{} ended, see {}", self.name(), folder.display());
            Client::new(address, None).try_connect().is_ok()
        });
        proxy
    }
}

impl Proxy {
    /// Its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::TERM);
        if wait::within(wait::PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            process::kill_and_reap(&mut self.child);
        }
    }
}

/// The same command on the first processor, which it has for itself: `tests/bench/run` keeps everything else off it.
/// Where the scheduler places the programs, the same proxy differs by more from run to run than two proxies do.
fn on_its_processor(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", "0"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    pinned
}

/// One after the other, on the address of the fleet.
fn next_address(site: &Site<'_>) -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(7001);
    address::at(site.fleet.root.address, PORT.fetch_add(1, Ordering::Relaxed))
}
