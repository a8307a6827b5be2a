//! A socket passed to a worker (`LISTEN_FDS`, sd_listen_fds(3)): used if it is meant for this process, and ignored
//! otherwise, because children inherit the variable.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::Outcome;

/// The descriptor of the first passed socket.
const FIRST: i32 = 3;

/// The process that the sockets are for.
#[derive(Clone, Copy, Debug)]
enum For {
    Nobody,
    Itself,
    Another,
    Garbage,
}

/// Starts a worker with this many sockets, of which the first is this descriptor.
fn start(dir: &Path, count: &str, whose: For, passed_on: Option<OwnedFd>) -> Result<LoneWorker, Outcome> {
    let worker = LoneWorker::command(dir);
    let mut command = Command::new("sh");
    // Only the process itself knows its id before exec.
    let line = match whose {
        For::Nobody => "unset LISTEN_PID; exec \"$0\" \"$@\"",
        For::Itself => "LISTEN_PID=$$ exec \"$0\" \"$@\"",
        For::Another => "LISTEN_PID=1 exec \"$0\" \"$@\"",
        For::Garbage => "LISTEN_PID=me exec \"$0\" \"$@\"",
    };
    command.args(["-c", line]).arg(worker.get_program()).args(worker.get_args()).env("LISTEN_FDS", count);
    for (name, value) in worker.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(parent_fd) = passed_on {
        command.fd_mappings(vec![FdMapping { parent_fd, child_fd: FIRST }]).unwrap();
    }
    LoneWorker::spawn(&mut command)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn socket_for_this_process_is_used() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let address = listener.local_addr().unwrap();
        let worker = start(folder.path(), "1", For::Itself, Some(listener.into())).unwrap();
        assert_eq!(worker.client.address, address);
        worker.client.get("/api/v2/toc?p=notes").ok();
        worker.stop();
    }
}

#[test]
fn socket_for_another_process_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    for whose in [For::Nobody, For::Another, For::Garbage] {
        for count in ["1", "2", "many"] {
            let other = listener();
            let address = other.local_addr().unwrap();
            let copy = other.try_clone().unwrap();
            let worker = start(folder.path(), count, whose, Some(copy.into())).unwrap();
            assert_ne!(worker.client.address, address, "{whose:?} {count}");
            worker.client.get("/api/v2/toc?p=notes").ok();
            worker.stop();
        }
        // It does not matter what descriptor 3 is, or whether it is open.
        start(folder.path(), "1", whose, Some(File::open("/dev/null").unwrap().into())).unwrap().stop();
        start(folder.path(), "1", whose, None).unwrap().stop();
    }
    // No socket was passed.
    start(folder.path(), "0", For::Itself, None).unwrap().stop();
}

#[test]
fn unusable_sockets_are_refused_with_an_explanation() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |count: &str, passed_on: Option<OwnedFd>| {
        let outcome = start(folder.path(), count, For::Itself, passed_on).unwrap_err();
        assert!(outcome.stderr.contains("LISTEN_FDS") && !outcome.stderr.contains("panicked"), "{outcome:?}");
        outcome
    };
    // A second socket would never be served.
    for count in ["2", "3", "many", "", "-1", "1.5", "99999999999999999999"] {
        assert_eq!(refused(count, Some(listener().into())).code(), Some(2), "{count}");
    }
    let unconnected =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let unix = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    for (what, passed_on) in [
        ("nothing", None),
        ("a file", Some(File::open("/dev/null").unwrap().into())),
        ("datagrams", Some(UdpSocket::bind("127.0.0.1:0").unwrap().into())),
        ("a socket file", Some(unix.into())),
        ("a socket that does not listen", Some(unconnected.unwrap())),
    ] {
        let outcome = refused("1", passed_on);
        assert_eq!(outcome.code(), Some(1), "{what}: {outcome:?}");
        assert!(outcome.stderr.contains("descriptor 3"), "{what}: {outcome:?}");
    }
}
