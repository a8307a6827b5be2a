//! What `check` says of the addresses in a config: whether something else has them, and whether other machines reach them.
//! A system that runs has its own addresses, and that is as it should be.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use sq_shared::config::{Config, ListenAddress, SOCKET_PATH_BYTES};
use sq_shared::healthcheck::{self, Answer};
use sq_shared::layout;

/// How `/proc/net/tcp` writes the state of a socket that listens (proc_net(5)).
const LISTENS: &str = "0A";

/// As many taken slots are named.
const SLOTS_SHOWN: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What keeps the system from starting.
    pub(super) mistakes: Vec<String>,
    /// What the operator should know.
    pub(super) warnings: Vec<String>,
}

/// Looks at every address.
pub(super) fn look(config: &Config) -> Found {
    let mut found = Found::default();
    let admin = ListenAddress::Tcp(config.gateway.admin_listen);
    let status = config.pool.status_listen.map(ListenAddress::Tcp);
    found.owner("gateway.listen", &config.gateway.listen);
    found.owner("gateway.admin_listen", &admin);
    let has_pool = status.is_some_and(|status| found.owner("pool.status_listen", &status));
    if !has_pool {
        found.slots(config);
    }
    found.reachable(config);
    found.meeting_places(config);
    found
}

impl Found {
    /// Whether a server of ours has the address already. Whatever else has it is a mistake.
    fn owner(&mut self, field: &str, address: &ListenAddress) -> bool {
        if let ListenAddress::Unix(path) = address
            && !self.may_be_socket(field, path)
        {
            return false;
        }
        match healthcheck::ask(address) {
            Answer::Healthy => return true,
            Answer::None => {}
            Answer::Other => self.mistakes.push(format!(
                "{field} = \"{address}\" is in use by another program; {}",
                advice(address)
            )),
            Answer::Silent => self.warnings.push(format!(
                "{field} = \"{address}\" is in use, and what has it does not say that it is a server of ours; {}",
                advice(address)
            )),
        }
        false
    }

    /// Whether there may be a server's socket of this path.
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
                }
                false
            }
        }
    }

    /// Nothing connects to a slot here: a connection wakes the tenant's worker.
    fn slots(&mut self, config: &Config) {
        let listening = Listening::of_this_machine();
        let address = config.pool.slot_address;
        let taken: Vec<u16> = config
            .gateway
            .slots
            .clone()
            .filter(|port| listening.includes(SocketAddr::new(address, *port)))
            .collect();
        if taken.is_empty() {
            return;
        }
        let shown: Vec<String> = taken.iter().take(SLOTS_SHOWN).map(u16::to_string).collect();
        let more = if taken.len() > SLOTS_SHOWN { ", …" } else { "" };
        self.warnings.push(format!(
            "of the slots at {address}, {} are in use, and no pool answers at pool.status_listen: {}{more}; see `ss -ltnp`",
            taken.len(),
            shown.join(", ")
        ));
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

    /// Where an upgrade hands the sockets over. It would be found out only then.
    fn meeting_places(&mut self, config: &Config) {
        for path in [layout::handover_socket(&config.path), layout::pool_handover_socket(&config.path)] {
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

/// The addresses on which sockets of this machine listen, as the kernel's tables write them.
struct Listening(HashSet<String>);

impl Listening {
    /// A busy machine's tables have some ten thousand lines: they are read once.
    fn of_this_machine() -> Self {
        let mut found = HashSet::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            found.extend(text.lines().skip(1).filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (local, state) = (fields.next()?, fields.nth(1)?);
                (state == LISTENS).then(|| local.to_owned())
            }));
        }
        Self(found)
    }

    fn includes(&self, wanted: SocketAddr) -> bool {
        // A socket of all IPv6 addresses takes IPv4 too.
        let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let any = any.into_iter().take(if wanted.is_ipv4() { 2 } else { 1 });
        any.chain([wanted.ip()]).any(|ip| self.0.contains(&as_listed(SocketAddr::new(ip, wanted.port()))))
    }
}

/// An address as proc_net(5) has it: in words of 32 bits, each in the machine's order.
fn as_listed(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
    let ip: String = words.map(|word| format!("{word:08X}")).collect();
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_that_listens_is_found_in_the_kernels_tables() {
        for address in ["127.0.0.1:0", "127.9.8.7:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let bound = listener.local_addr().unwrap();
            let asked = if bound.ip().is_unspecified() {
                SocketAddr::from(([127, 0, 0, 1], bound.port()))
            } else {
                bound
            };
            assert!(Listening::of_this_machine().includes(asked), "{asked}");
            drop(listener);
            assert!(!Listening::of_this_machine().includes(asked), "{asked}");
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!Listening::of_this_machine().includes(datagrams.local_addr().unwrap()));
    }
}
