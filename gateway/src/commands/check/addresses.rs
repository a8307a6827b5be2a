//! What `check` says of the addresses in a config: whether they can be listened on, and whether other machines reach them.
//! A system that runs has its own addresses, and that is as it should be. Only addresses of this machine are connected to.

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
use super::sockets::Listening;

/// As many taken slots are named.
const SLOTS_SHOWN: usize = 5;

/// Ports from here on need no privilege; but for a machine that is set otherwise, it is asked.
const FIRST_FREE_PORT: u16 = 1024;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What keeps the system from starting.
    pub(super) mistakes: Vec<String>,
    /// What the operator should know.
    pub(super) warnings: Vec<String>,
}

/// What listens on this machine, and whose that is.
struct Machine {
    listening: Listening,
    owners: Owners,
}

/// Looks at every address.
pub(super) fn look(config: &Config) -> Found {
    let mut found = Found::default();
    let machine = Machine { listening: Listening::of_this_machine(), owners: Owners::of_system(config) };
    let admin = ListenAddress::Tcp(config.gateway.admin_listen);
    found.owner("gateway.listen", &config.gateway.listen, &machine);
    found.owner("gateway.admin_listen", &admin, &machine);
    if !found.pool_is_elsewhere(config) {
        let status = config.pool.status_listen.map(ListenAddress::Tcp);
        let has_pool = status.is_some_and(|status| found.owner("pool.status_listen", &status, &machine));
        found.slots(config, has_pool, &machine);
    }
    found.reachable(config);
    found.upgrade_sockets(config);
    found
}

impl Found {
    /// Whether a server of this system has the address already. Whatever else has it is a mistake.
    fn owner(&mut self, field: &'static str, address: &ListenAddress, machine: &Machine) -> bool {
        let is_free = match address {
            ListenAddress::Tcp(tcp) => self.may_be_bound(Settings::one(field), field, *tcp),
            ListenAddress::Unix(path) => !self.may_be_socket(field, path),
        };
        if is_free {
            return false;
        }
        let shown = format!("{field} = \"{address}\"");
        let owner = machine.owners.of(machine.listening.find(address));
        match (healthcheck::ask(address), owner) {
            // The file of a server that was killed is no obstacle.
            (Answer::None, _) if matches!(address, ListenAddress::Unix(_)) => return false,
            (Answer::Healthy, Owner::Ours) => return true,
            (Answer::Healthy, Owner::Unknown) => {
                self.warnings.push(format!(
                    "{shown} is in use by a server like ours, and whether it is this system's own cannot be seen from here; \
                     {}",
                    advice(address)
                ));
                return true;
            }
            (_, Owner::Ours) => {
                self.warnings
                    .push(format!("{shown} is in use by this system's own server, which does not answer"));
                return true;
            }
            (Answer::Healthy, Owner::Other(other)) => self
                .mistakes
                .push(format!("{shown} is in use by another SQ system ({other}); {}", advice(address))),
            (Answer::Full, other) => self.mistakes.push(format!(
                "{shown} is in use by another program{}, whose queue is full; {}",
                named(&other),
                advice(address)
            )),
            (_, other) => self.mistakes.push(format!(
                "{shown} is in use by another program{}; {}",
                named(&other),
                advice(address)
            )),
        }
        false
    }

    /// False for an address that is in use. One that cannot be listened on for another reason is noted as a mistake. It is bound
    /// for a moment, without a queue for connections.
    fn may_be_bound(&mut self, settings: Settings, field: &str, address: SocketAddr) -> bool {
        // One of this machine's is known by any port.
        let tried = try_to_bind(SocketAddr::new(address.ip(), 0)).and_then(|()| try_to_bind(address));
        match tried {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AddrInUse => false,
            Err(error) => {
                let advice = listen_error::of_tcp(address, &error, settings);
                self.mistakes
                    .push(format!("{field} = \"{address}\" cannot be listened on: {error}; {advice}"));
                true
            }
        }
    }

    /// Whether a server's socket has this path, that can be asked.
    fn may_be_socket(&mut self, field: &str, path: &Path) -> bool {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => true,
            Ok(_) => {
                self.mistakes.push(format!(
                    "{field} = \"unix:{shown}\" is occupied by a file that is not a socket: move it away, or name another path"
                ));
                false
            }
            Err(_) => {
                let folder = path.parent().unwrap_or(Path::new("/"));
                if !folder.is_dir() {
                    let folder = folder.display();
                    self.warnings.push(format!("{field} = \"unix:{shown}\": there is no folder {folder}"));
                } else if let Err(error) =
                    rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                {
                    let why = file_error::text(folder, &error.into());
                    self.mistakes.push(format!("{field} = \"unix:{shown}\" cannot be made: {why}"));
                }
                false
            }
        }
    }

    /// Whether both of the pool's addresses are another machine's, or another container's: it is run there, with this config.
    fn pool_is_elsewhere(&mut self, config: &Config) -> bool {
        let address = config.pool.slot_address;
        let is_elsewhere = config.pool.status_listen.is_some_and(|status| status.ip() == address)
            && try_to_bind(SocketAddr::new(address, 0))
                .is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable);
        if is_elsewhere {
            self.warnings.push(format!(
                "pool.slot_address and pool.status_listen have {address}, which this machine has not: the pool does not start \
                 here, but where that address is"
            ));
        }
        is_elsewhere
    }

    /// Nothing connects to a slot here: a connection wakes the tenant's worker.
    fn slots(&mut self, config: &Config, has_pool: bool, machine: &Machine) {
        let address = config.pool.slot_address;
        let ports = &config.gateway.slots;
        let settings = Settings { address: "pool.slot_address", port: "gateway.slots" };
        let privileged = SocketAddr::new(address, *ports.start());
        let asked =
            if privileged.port() < FIRST_FREE_PORT { privileged } else { SocketAddr::new(address, 0) };
        self.may_be_bound(settings, "pool.slot_address", asked);
        if has_pool {
            return;
        }
        let (mut taken, mut is_unknown) = (Vec::new(), true);
        for port in ports.clone() {
            let Some(socket) = machine.listening.find_tcp(SocketAddr::new(address, port)) else { continue };
            match machine.owners.of(Some(socket)) {
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
            "of the slots at {address}, {count} are in use, and not by this system's pool: {shown}{more}; see `ss -ltnp`"
        );
        // A pool that does not tell its status may be ours.
        if is_unknown && config.pool.status_listen.is_none() {
            self.warnings.push(text.replace("not by", "it cannot be seen whether by"));
        } else {
            self.mistakes.push(text);
        }
    }

    fn reachable(&mut self, config: &Config) {
        let listen = match &config.gateway.listen {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        };
        let slots = SocketAddr::new(config.pool.slot_address, *config.gateway.slots.start());
        let rows = [
            (
                "gateway.listen",
                listen,
                "keys and texts cross the network in clear; put nginx with TLS in front of it",
            ),
            (
                "gateway.admin_listen",
                Some(config.gateway.admin_listen),
                "the admin key crosses the network in clear, and metrics and status page need no key",
            ),
            ("pool.status_listen", config.pool.status_listen, "it needs no key, and names every tenant"),
            ("pool.slot_address", Some(slots), "workers can be asked past the gateway's limits"),
        ];
        for (field, address, why) in rows {
            let Some(address) = address.filter(|address| !address.ip().is_loopback()) else { continue };
            let shown =
                if field == "pool.slot_address" { address.ip().to_string() } else { address.to_string() };
            self.warnings.push(format!(
                "{field} = \"{shown}\" can be reached from other machines: {why}; restrict it with a firewall, or take a \
                 loopback address"
            ));
        }
    }

    /// Where the processes of an upgrade meet. A path that is too long would be found out only then.
    fn upgrade_sockets(&mut self, config: &Config) {
        for path in [layout::gateway_upgrade_socket(&config.path), layout::pool_upgrade_socket(&config.path)]
        {
            let bytes = path.as_os_str().len();
            if bytes > SOCKET_PATH_BYTES {
                self.warnings.push(format!(
                    "an upgrade (`--upgrade`) cannot be made: its socket {} would have a path of {bytes} bytes, and the \
                     system takes {SOCKET_PATH_BYTES}; keep the config in a folder with a shorter path",
                    path.display()
                ));
            }
        }
    }
}

/// Binds an address for a moment, as a server does; does not listen.
fn try_to_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn named(owner: &Owner) -> String {
    match owner {
        Owner::Other(other) => format!(" ({other})"),
        Owner::Ours | Owner::Unknown => String::new(),
    }
}

fn advice(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => {
            format!("`ss -ltnp 'sport = :{}'` shows which; stop it, or take another port", address.port())
        }
        ListenAddress::Unix(path) => {
            format!("`ss -lxp src {}` shows which; stop it, or take another path", path.display())
        }
    }
}
