//! Checks the addresses in a config: whether they can be listened on, and whether other machines can reach them. An address
//! in use by this system itself is fine. Connects only to addresses of this machine.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};
use socket2::{Domain, Socket, Type};
use sq_shared::config::{Config, ListenAddress, SOCKET_PATH_BYTES};
use sq_shared::listen_error::{self, Settings};
use sq_shared::process::healthcheck::{self, Answer};
use sq_shared::{file_error, layout};

use super::owners::{Owner, Owners};
use super::sockets::ListeningSockets;

/// How many slots in use are listed.
const SLOTS_SHOWN: usize = 5;

/// The first port that needs no privilege by default. The kernel may be configured otherwise, so lower ports are tried.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The results of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What keeps the system from starting.
    pub(super) mistakes: Vec<String>,
    /// What does not, but should be known to the operator.
    pub(super) warnings: Vec<String>,
}

/// The listening sockets of this machine, and the processes that have them.
struct Machine {
    listening: ListeningSockets,
    owners: Owners,
}

pub(super) fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let machine = Machine { listening: ListeningSockets::read(), owners: Owners::scan(config) };
    let admin = ListenAddress::Tcp(config.gateway.admin_listen);
    findings.check_server("gateway.listen", &config.gateway.listen, &machine);
    findings.check_server("gateway.admin_listen", &admin, &machine);
    if !findings.is_pool_elsewhere(config) {
        let status = config.pool.status_listen.map(ListenAddress::Tcp);
        let is_pool_running =
            status.is_some_and(|status| findings.check_server("pool.status_listen", &status, &machine));
        findings.check_slots(config, is_pool_running, &machine);
    }
    findings.warn_about_exposed(config);
    findings.warn_about_upgrade_sockets(config);
    findings
}

impl Findings {
    /// Whether a server of this system uses the address already. Use by any other is reported as a mistake.
    fn check_server(&mut self, field: &'static str, address: &ListenAddress, machine: &Machine) -> bool {
        let is_free = match address {
            ListenAddress::Tcp(tcp) => self.is_tcp_free(Settings::one(field), field, *tcp),
            ListenAddress::Unix(path) => self.is_path_free(field, path),
        };
        if is_free {
            return false;
        }
        let shown = format!("{field} = \"{address}\"");
        let owner = machine.owners.owner_of(machine.listening.find(address));
        match (healthcheck::ask(address), owner) {
            // A killed server leaves its socket file, which the next one replaces.
            (Answer::None, _) if matches!(address, ListenAddress::Unix(_)) => return false,
            (Answer::Healthy, Owner::Ours) => return true,
            (Answer::Healthy, Owner::Unknown) => {
                self.warnings.push(format!(
                    "{shown} is in use by an SQ server, and this user cannot see whether it is this system's own; {}",
                    advice(address)
                ));
                return true;
            }
            (_, Owner::Ours) => {
                self.warnings
                    .push(format!("{shown} is in use by this system's own server, which does not respond"));
                return true;
            }
            (Answer::Healthy, Owner::Other(other)) => self
                .mistakes
                .push(format!("{shown} is in use by another SQ system ({other}); {}", advice(address))),
            (answer, owner) => {
                let owner = match owner {
                    Owner::Other(other) => format!(" ({other})"),
                    Owner::Ours | Owner::Unknown => String::new(),
                };
                let state = if answer == Answer::Full { ", whose queue is full" } else { "" };
                let advice = advice(address);
                self.mistakes.push(format!("{shown} is in use by another program{owner}{state}; {advice}"));
            }
        }
        false
    }

    /// Whether the address is not in use. An address that cannot be listened on for another reason is reported as a mistake.
    /// Binds it for a moment, without listening.
    fn is_tcp_free(&mut self, settings: Settings, field: &str, address: SocketAddr) -> bool {
        // With port 0, only an address that is not this machine's fails.
        let bound = try_to_bind(SocketAddr::new(address.ip(), 0)).and_then(|()| try_to_bind(address));
        match bound {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AddrInUse => false,
            Err(error) => {
                let advice = listen_error::tcp_advice(address, &error, settings);
                self.mistakes
                    .push(format!("{field} = \"{address}\" cannot be listened on: {error}; {advice}"));
                true
            }
        }
    }

    /// Whether no socket has this path. A path that no socket can have is reported.
    fn is_path_free(&mut self, field: &str, path: &Path) -> bool {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => false,
            Ok(_) => {
                self.mistakes.push(format!(
                    "{field} = \"unix:{shown}\" is occupied by a file that is not a socket: move it away, or name another path"
                ));
                true
            }
            Err(_) => {
                let folder = path.parent().unwrap_or(Path::new("/"));
                if !folder.is_dir() {
                    let folder = folder.display();
                    self.warnings
                        .push(format!("{field} = \"unix:{shown}\": the folder {folder} does not exist"));
                } else if let Err(error) =
                    rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                {
                    let why = file_error::text(folder, &error.into());
                    self.mistakes.push(format!("{field} = \"unix:{shown}\" cannot be created: {why}"));
                }
                true
            }
        }
    }

    /// Whether both of the pool's addresses belong to another machine or container, where the pool runs with this config.
    fn is_pool_elsewhere(&mut self, config: &Config) -> bool {
        let address = config.pool.slot_address;
        let is_elsewhere = config.pool.status_listen.is_some_and(|status| status.ip() == address)
            && try_to_bind(SocketAddr::new(address, 0))
                .is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable);
        if is_elsewhere {
            self.warnings.push(format!(
                "pool.slot_address and pool.status_listen have {address}, which is not an address of this machine: start the \
                 pool on the machine that has it"
            ));
        }
        is_elsewhere
    }

    /// Does not connect to slots, because a connection wakes the tenant's worker.
    fn check_slots(&mut self, config: &Config, is_pool_running: bool, machine: &Machine) {
        let address = config.pool.slot_address;
        let ports = &config.gateway.slots;
        let settings = Settings { address: "pool.slot_address", port: "gateway.slots" };
        let lowest = *ports.start();
        let tried = if lowest < FIRST_UNPRIVILEGED_PORT { lowest } else { 0 };
        self.is_tcp_free(settings, "pool.slot_address", SocketAddr::new(address, tried));
        if is_pool_running {
            return;
        }
        let (mut taken, mut is_unknown) = (Vec::new(), true);
        for port in ports.clone() {
            let Some(socket) = machine.listening.find_tcp(SocketAddr::new(address, port)) else { continue };
            match machine.owners.owner_of(Some(socket)) {
                Owner::Ours => {}
                owner => {
                    is_unknown &= owner == Owner::Unknown;
                    taken.push(port.to_string());
                }
            }
        }
        if taken.is_empty() {
            return;
        }
        let more = if taken.len() > SLOTS_SHOWN { ", …" } else { "" };
        let (count, shown) = (taken.len(), taken.get(..SLOTS_SHOWN).unwrap_or(&taken).join(", "));
        let text = format!(
            "{count} slots at {address} are in use, and not by this system's pool: {shown}{more}; see `ss -ltnp`"
        );
        // Without pool.status_listen, a pool that this user may not look at may be ours.
        if is_unknown && config.pool.status_listen.is_none() {
            self.warnings.push(text.replace("and not by", "and this user cannot see whether by"));
        } else {
            self.mistakes.push(text);
        }
    }

    fn warn_about_exposed(&mut self, config: &Config) {
        let listen = match &config.gateway.listen {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        };
        let slots = SocketAddr::new(config.pool.slot_address, *config.gateway.slots.start());
        let rows = [
            (
                "gateway.listen",
                listen,
                "keys and texts cross the network unencrypted; put nginx with TLS in front of it",
            ),
            (
                "gateway.admin_listen",
                Some(config.gateway.admin_listen),
                "the admin key crosses the network unencrypted, and the metrics and the status page need no key",
            ),
            ("pool.status_listen", config.pool.status_listen, "it needs no key, and names every tenant"),
            ("pool.slot_address", Some(slots), "clients can bypass the gateway's limits"),
        ];
        for (field, address, why) in rows {
            let Some(address) = address.filter(|address| !address.ip().is_loopback()) else { continue };
            let shown =
                if field == "pool.slot_address" { address.ip().to_string() } else { address.to_string() };
            self.warnings.push(format!(
                "{field} = \"{shown}\" can be reached from other machines: {why}; restrict access with a firewall, or use \
                 a loopback address"
            ));
        }
    }

    /// The socket files through which an upgrade passes the listening sockets. A path that is too long would show only then.
    fn warn_about_upgrade_sockets(&mut self, config: &Config) {
        for path in [layout::gateway_upgrade_socket(&config.path), layout::pool_upgrade_socket(&config.path)]
        {
            let bytes = path.as_os_str().len();
            if bytes > SOCKET_PATH_BYTES {
                self.warnings.push(format!(
                    "an upgrade (`--upgrade`) would fail: the path of its socket {} has {bytes} bytes, and the limit is \
                     {SOCKET_PATH_BYTES}; keep the config in a folder with a shorter path",
                    path.display()
                ));
            }
        }
    }
}

/// Binds an address for a moment, with a server's options, but does not listen.
fn try_to_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn advice(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => {
            format!("`ss -ltnp 'sport = :{}'` shows it; stop it, or use another port", address.port())
        }
        ListenAddress::Unix(path) => {
            format!("`ss -lxp src {}` shows it; stop it, or use another path", path.display())
        }
    }
}
