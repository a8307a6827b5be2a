//! Reads the listening sockets of this machine from the kernel's tables, without connecting to them.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use sq_shared::config::ListenAddress;

/// The state of a listening socket in `/proc/net/tcp` (proc_net(5)).
const TCP_LISTEN: &str = "0A";

/// The flag of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`, linux/net.h).
const SO_ACCEPTCON: u32 = 1 << 16;

/// The number that a process's descriptor has for a socket.
pub(super) type Inode = u64;

/// The listening sockets by address.
pub(super) struct ListeningSockets {
    /// Addresses as the kernel's tables write them.
    tcp: HashMap<String, Inode>,
    unix: HashMap<PathBuf, Inode>,
}

impl ListeningSockets {
    /// Reads the tables once for all lookups: a busy machine's have some ten thousand lines.
    pub(super) fn read() -> Self {
        let mut tcp = HashMap::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            tcp.extend(text.lines().skip(1).filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (local, state) = (fields.next()?, fields.nth(1)?);
                let inode = fields.nth(5)?.parse().ok()?;
                (state == TCP_LISTEN).then(|| (local.to_owned(), inode))
            }));
        }
        let text = fs::read("/proc/net/unix").unwrap_or_default();
        let unix = String::from_utf8_lossy(&text).lines().skip(1).filter_map(parse_unix_line).collect();
        Self { tcp, unix }
    }

    /// The socket that prevents another from listening on this address.
    pub(super) fn find(&self, wanted: &ListenAddress) -> Option<Inode> {
        match wanted {
            ListenAddress::Tcp(address) => self.find_tcp(*address),
            ListenAddress::Unix(path) => self.unix.get(path).copied(),
        }
    }

    /// The same for a TCP address.
    pub(super) fn find_tcp(&self, wanted: SocketAddr) -> Option<Inode> {
        // The most specific first. A socket on all IPv6 addresses accepts IPv4 too, unless it has IPV6_V6ONLY.
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let any = any.into_iter().skip(usize::from(wanted.is_ipv6()));
        let mut ips = [wanted.ip()].into_iter().chain(any);
        ips.find_map(|ip| self.tcp.get(&proc_notation(SocketAddr::new(ip, wanted.port()))).copied())
    }
}

/// Parses `Num RefCount Protocol Flags Type St Inode Path`.
fn parse_unix_line(line: &str) -> Option<(PathBuf, Inode)> {
    let mut fields = line.split_whitespace();
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let inode = fields.nth(2)?.parse().ok()?;
    let path = line.find(" /").and_then(|start| line.get(start + 1..))?;
    (flags & SO_ACCEPTCON != 0).then(|| (path.into(), inode))
}

/// An address in the notation of proc_net(5): words of 32 bits, each in the machine's byte order.
fn proc_notation(address: SocketAddr) -> String {
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
    fn listening_sockets_are_found_in_the_kernels_tables() {
        for address in ["127.0.0.1:0", "127.9.8.7:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let bound = listener.local_addr().unwrap();
            let asked = if bound.ip().is_unspecified() {
                SocketAddr::from(([127, 0, 0, 1], bound.port()))
            } else {
                bound
            };
            assert!(ListeningSockets::read().find_tcp(asked).is_some(), "{asked}");
            drop(listener);
            assert_eq!(ListeningSockets::read().find_tcp(asked), None, "{asked}");
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ListeningSockets::read().find_tcp(datagrams.local_addr().unwrap()), None);
        let folder = sq_tests::root::Root::empty();
        let path = folder.join("a socket");
        let address = ListenAddress::Unix(path.clone());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(ListeningSockets::read().find(&address).is_some());
        drop(listener);
        assert_eq!(ListeningSockets::read().find(&address), None);
    }
}
