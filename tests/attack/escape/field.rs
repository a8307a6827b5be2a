//! What an attempt is made on: the own directory, a neighbour's, a process, sockets that were open before.

use std::ffi::CString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, socket};

/// What is there to be attacked.
pub(super) struct Field {
    /// The own directory.
    pub(super) own: CString,
    /// A neighbour's directory.
    pub(super) neighbour: CString,
    /// A process of the same user.
    pub(super) pid: usize,
    /// A port of 127.0.0.1 on which somebody listens.
    pub(super) port: u16,
    /// The slot's socket, as number 3.
    pub(super) slot: TcpListener,
    /// A port that nobody has.
    pub(super) free_port: u16,
    /// A socket from before the walls, as are the next two.
    pub(super) stream: OwnedFd,
    /// For UDP.
    pub(super) datagram: UdpSocket,
    /// For socket files and abstract names.
    pub(super) unix_stream: OwnedFd,
    /// A terminal's other side; `None` where there is none to be had.
    pub(super) terminal: Option<File>,
    /// How much the machine has.
    pub(super) memory_bytes: usize,
}

impl Field {
    /// Prepares an attempt.
    pub(super) fn new(own: &Path, neighbour: &Path, pid: &str, port: &str) -> Self {
        let machine = rustix::system::sysinfo();
        let memory_bytes = usize::try_from(machine.totalram).expect("an address") * machine.mem_unit as usize;
        let slot = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        assert_eq!(slot.as_raw_fd(), 3, "the first descriptor after the standard ones");
        Self {
            slot,
            own: text(own),
            neighbour: text(neighbour),
            pid: pid.parse().expect("a process"),
            port: port.parse().expect("a port"),
            free_port: free_port(),
            stream: socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket"),
            datagram: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket"),
            unix_stream: socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket"),
            terminal: File::options().read(true).write(true).open("/dev/ptmx").ok(),
            memory_bytes,
        }
    }

    /// A path in the own directory.
    pub(super) fn in_own(&self, name: &str) -> CString {
        join(&self.own, name)
    }

    /// A path in the neighbour's directory.
    pub(super) fn in_neighbour(&self, name: &str) -> CString {
        join(&self.neighbour, name)
    }

    /// The same from the root directory of the process.
    pub(super) fn by_root_of_process(&self) -> CString {
        let path = self.in_neighbour("secret.phext");
        let prefix = format!("/proc/{}/root", self.pid);
        CString::new([prefix.as_bytes(), path.as_bytes()].concat()).expect("no zero in it")
    }

    /// Where somebody listens.
    pub(super) fn listener(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)
    }

    /// The number of a descriptor as an argument.
    pub(super) fn number(fd: &impl AsRawFd) -> usize {
        fd.as_raw_fd() as usize
    }
}

fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    probe.local_addr().expect("its address").port()
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero in it")
}

fn join(folder: &CString, name: &str) -> CString {
    CString::new([folder.as_bytes(), b"/", name.as_bytes()].concat()).expect("no zero in it")
}
