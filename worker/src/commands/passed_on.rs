//! The socket that a worker is given by whoever starts it: the pool, or a service manager (sd_listen_fds(3)).

use std::net::TcpListener;

use listenfd::ListenFd;
use rustix::net::sockopt;
use sq_shared::process::failure::Failure;

/// How many sockets there are; they are the descriptors from 3 on.
const COUNT: &str = "LISTEN_FDS";

/// For which process they are.
const PROCESS: &str = "LISTEN_PID";

/// The sockets that are meant for this process; none when there are none.
///
/// A service manager says for which process they are, because the variable reaches that process's children too. The pool
/// cannot say it: it learns a worker's number when the worker runs. A worker of the pool (`is_of_pool`) has no such
/// parent, for its environment is made by the pool.
///
/// # Errors
/// It cannot be understood how many there are, or they are more than the one that a worker serves.
pub fn sockets(is_of_pool: bool) -> Result<ListenFd, Failure> {
    let Some(count) = std::env::var_os(COUNT) else { return Ok(ListenFd::empty()) };
    let count = count.to_string_lossy();
    let is_own = match std::env::var_os(PROCESS) {
        Some(process) => process.to_str().is_some_and(|process| process.parse() == Ok(std::process::id())),
        None => is_of_pool,
    };
    if !is_own {
        tracing::warn!(
            "LISTEN_FDS={count} is not for this process, for LISTEN_PID is not its number: no socket is taken from it"
        );
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

/// The socket that was passed on, if one was.
///
/// # Errors
/// It is not a TCP socket that listens.
pub fn listener(mut passed_on: ListenFd) -> Result<Option<TcpListener>, Failure> {
    let refused = |why: String| {
        Failure::Failed(format!(
            "LISTEN_FDS: {why}; pass a listening TCP socket as descriptor 3, or unset LISTEN_FDS"
        ))
    };
    let Some(listener) = passed_on.take_tcp_listener(0).map_err(|error| refused(error.to_string()))? else {
        return Ok(None);
    };
    match sockopt::socket_acceptconn(&listener) {
        Ok(true) => Ok(Some(listener)),
        Ok(false) => Err(refused("descriptor 3 is a TCP socket that does not listen".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}
