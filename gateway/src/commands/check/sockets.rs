//! The sockets of this machine that listen, as the kernel's tables have them. Nothing is connected to.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sq_shared::config::ListenAddress;

/// How `/proc/net/tcp` writes the state of a socket that listens (proc_net(5)).
const LISTENS: &str = "0A";

/// What `/proc/net/unix` has among the flags of one (`__SO_ACCEPTCON`, linux/net.h).
const ACCEPTS: u32 = 1 << 16;

/// The number of a socket, by which a process's descriptors name it.
pub(super) type Inode = u64;

/// The addresses on which sockets of this machine listen.
pub(super) struct Listening {
    /// As the kernel's tables write them.
    tcp: HashMap<String, Inode>,
    unix: HashMap<PathBuf, Inode>,
}

impl Listening {
    /// A busy machine's tables have some ten thousand lines: they are read once.
    pub(super) fn of_this_machine() -> Self {
        let mut tcp = HashMap::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            tcp.extend(text.lines().skip(1).filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (local, state) = (fields.next()?, fields.nth(1)?);
                let inode = fields.nth(5)?.parse().ok()?;
                (state == LISTENS).then(|| (local.to_owned(), inode))
            }));
        }
        let text = fs::read("/proc/net/unix").unwrap_or_default();
        let unix = String::from_utf8_lossy(&text).lines().skip(1).filter_map(of_unix_line).collect();
        Self { tcp, unix }
    }

    /// The socket that keeps another from listening on this address.
    pub(super) fn find(&self, wanted: &ListenAddress) -> Option<Inode> {
        match wanted {
            ListenAddress::Tcp(address) => self.find_tcp(*address),
            ListenAddress::Unix(path) => self.find_file(path),
        }
    }

    /// The same, of an address and a port.
    pub(super) fn find_tcp(&self, wanted: SocketAddr) -> Option<Inode> {
        // The nearest first. A socket of all IPv6 addresses takes IPv4 too, unless it was told not to.
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let any = any.into_iter().skip(usize::from(wanted.is_ipv6()));
        let mut ips = [wanted.ip()].into_iter().chain(any);
        ips.find_map(|ip| self.tcp.get(&as_listed(SocketAddr::new(ip, wanted.port()))).copied())
    }

    fn find_file(&self, path: &Path) -> Option<Inode> {
        self.unix.get(path).copied()
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path`.
fn of_unix_line(line: &str) -> Option<(PathBuf, Inode)> {
    let mut fields = line.split_whitespace();
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let inode = fields.nth(2)?.parse().ok()?;
    let path = line.find(" /").and_then(|start| line.get(start + 1..))?;
    (flags & ACCEPTS != 0).then(|| (path.into(), inode))
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
    use std::os::unix::net::UnixListener;

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
            assert!(Listening::of_this_machine().find_tcp(asked).is_some(), "{asked}");
            drop(listener);
            assert_eq!(Listening::of_this_machine().find_tcp(asked), None, "{asked}");
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Listening::of_this_machine().find_tcp(datagrams.local_addr().unwrap()), None);
        let folder = sq_tests::root::Root::empty();
        let path = folder.join("a socket");
        let address = ListenAddress::Unix(path.clone());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(Listening::of_this_machine().find(&address).is_some());
        drop(listener);
        assert_eq!(Listening::of_this_machine().find(&address), None);
    }
}
