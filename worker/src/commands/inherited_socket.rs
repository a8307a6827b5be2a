//! The listening socket that a worker inherits from the pool or from a service manager (sd_listen_fds(3)).

use std::net::TcpListener;

use listenfd::ListenFd;
use rustix::net::sockopt;
use sq_shared::process::failure::Failure;

/// The number of inherited sockets, which are the descriptors from 3 on.
const COUNT: &str = "LISTEN_FDS";

/// The process that they are for.
const PROCESS: &str = "LISTEN_PID";

/// The sockets that the environment passes to this process, if any.
///
/// A service manager names the process, because its children inherit the variable too. The pool cannot: it learns a
/// worker's process id only once the worker runs. For its workers (`is_of_pool`) the variable is enough, because the pool
/// sets their whole environment.
pub(crate) fn sockets(is_of_pool: bool) -> Result<ListenFd, Failure> {
    let Some(count) = std::env::var_os(COUNT) else { return Ok(ListenFd::empty()) };
    let count = count.to_string_lossy();
    let is_own = match std::env::var_os(PROCESS) {
        Some(process) => process.to_str().is_some_and(|process| process.parse() == Ok(std::process::id())),
        None => is_of_pool,
    };
    if !is_own {
        tracing::warn!("ignoring LISTEN_FDS={count}: LISTEN_PID is not this process");
        return Ok(ListenFd::empty());
    }
    match count.parse::<u32>() {
        Ok(0) => Ok(ListenFd::empty()),
        Ok(1) => Ok(ListenFd::from_env()),
        Ok(_) => Err(Failure::Usage(format!(
            "LISTEN_FDS={count}: a worker serves one socket; name one ListenStream= in its socket unit"
        ))),
        Err(_) => Err(Failure::Usage(format!(
            "LISTEN_FDS={count:?} is not a number of sockets; a worker takes one"
        ))),
    }
}

/// The inherited socket, if there is one.
pub(crate) fn listener(mut sockets: ListenFd) -> Result<Option<TcpListener>, Failure> {
    let refused = |why: String| {
        Failure::Failed(format!(
            "LISTEN_FDS: {why}; pass a listening TCP socket as descriptor 3, or unset LISTEN_FDS"
        ))
    };
    let Some(listener) = sockets.take_tcp_listener(0).map_err(|error| refused(error.to_string()))? else {
        return Ok(None);
    };
    match sockopt::socket_acceptconn(&listener) {
        Ok(true) => Ok(Some(listener)),
        Ok(false) => Err(refused("descriptor 3 is a TCP socket that does not listen".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}
