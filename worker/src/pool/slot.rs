//! A slot's listening socket. The pool keeps it open as long as it runs, and gives a copy to each worker. The pool never
//! accepts a tenant's connection; it only watches whether one waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use sq_shared::config::ListenAddress;
use sq_shared::limits::SLOT_BACKLOG;
use sq_shared::listen_error::{self, Settings};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::event::Event;
use super::observed::SocketMode;

/// The config's fields with a slot's address.
const SETTINGS: Settings = Settings { address: "[pool] slot_address", port: "[gateway] slots" };

/// How many connections to a slot without a tenant are closed before a pause.
const REFUSED_AT_ONCE: usize = 64;

/// The pause after these, and after a failure to accept, so that a client that connects in a loop doesn't keep the pool
/// busy.
const REFUSAL_PAUSE: Duration = Duration::from_millis(50);

/// A listening slot, and the channel to the task that watches it.
pub(crate) struct SlotSocket {
    listener: Arc<OwnedFd>,
    mode: watch::Sender<SocketMode>,
}

impl SlotSocket {
    /// Binds a slot and listens, so that connections wait from now on. Call it inside a runtime.
    pub(crate) fn bind(
        address: IpAddr,
        port: u16,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<Self, String> {
        let address = SocketAddr::new(address, port);
        let listener = listen(address)
            .map_err(|error| listen_error::explain(&ListenAddress::Tcp(address), &error, SETTINGS))?;
        Ok(Self::take_over(listener, port, events))
    }

    /// A slot whose socket was inherited from the previous pool.
    pub(crate) fn take_over(listener: OwnedFd, port: u16, events: &mpsc::UnboundedSender<Event>) -> Self {
        let listener = Arc::new(listener);
        let (mode, changes) = watch::channel(SocketMode::Unwatched);
        tokio::spawn(serve_modes(port, Arc::clone(&listener), changes, events.clone()));
        Self { listener, mode }
    }

    /// The socket itself, for the next pool.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Sets what happens to the slot's connections. Setting `Watched` again reports a waiting connection again.
    pub(crate) fn set_mode(&self, mode: SocketMode) {
        // Never fails: the task ends only after this sender is dropped.
        let _ = self.mode.send(mode);
    }

    /// A copy of the socket for a worker.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        restore(&self.listener)?;
        self.listener.try_clone()
    }
}

/// Makes the socket listen and non-blocking again. A worker's copy is the same socket, and without seccomp a compromised
/// worker could have changed both.
fn restore(listener: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(listener, true)?;
    Ok(rustix::net::listen(listener, SLOT_BACKLOG)?)
}

/// Binds and listens on a non-blocking socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Close-on-exec: a worker gets its own slot's socket and no other.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restarted pool must not wait until the connections of the previous one have timed out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, SLOT_BACKLOG)?;
    Ok(socket)
}

/// Watches or refuses a slot's connections, as its mode says, until the slot is dropped. One task owns the registration
/// with epoll, so there is never a second one for the same socket.
async fn serve_modes(
    port: u16,
    listener: Arc<OwnedFd>,
    mut changes: watch::Receiver<SocketMode>,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let mode = *changes.borrow_and_update();
        let serving = async {
            match mode {
                SocketMode::Watched => watch_once(port, &listener, &events).await,
                SocketMode::Refusing => refuse(&listener).await,
                SocketMode::Unwatched | SocketMode::ConnectionWaits => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Registers the socket with epoll until the result is dropped.
#[expect(
    deprecated,
    reason = "the new constructor is unsafe for descriptors that may be closed; a borrowed one cannot be"
)]
fn register(listener: &OwnedFd) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(listener.as_fd(), Interest::READABLE)
}

/// Reports the first waiting connection, even if it arrived earlier. The socket is not registered after that, so that
/// connections for the worker don't wake the pool.
async fn watch_once(port: u16, listener: &OwnedFd, events: &mpsc::UnboundedSender<Event>) {
    let ready = async { register(listener)?.readable().await.map(|_| ()) };
    if let Err(error) = ready.await {
        // Without a watch, connections would wait indefinitely. Start a worker to be safe.
        tracing::error!(port, %error, "failed to watch a slot; starting its worker");
        tokio::time::sleep(REFUSAL_PAUSE).await;
    }
    // The loop that receives ends only with the process.
    let _ = events.send(Event::ConnectionWaits(port, Instant::now()));
}

/// Closes connections as they arrive, so that no client waits in vain and the backlog doesn't fill up.
async fn refuse(listener: &OwnedFd) {
    if let Err(error) = restore(listener) {
        return tracing::error!(%error, "failed to listen on a slot without a tenant");
    }
    let registered = match register(listener) {
        Ok(registered) => registered,
        Err(error) => return tracing::error!(%error, "failed to watch a slot without a tenant"),
    };
    loop {
        let Ok(mut ready) = registered.readable().await else { return };
        let refused = (0..REFUSED_AT_ONCE).try_for_each(|_| rustix::net::accept(listener).map(drop));
        match refused {
            Err(rustix::io::Errno::WOULDBLOCK) => ready.clear_ready(),
            _ => tokio::time::sleep(REFUSAL_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn bind() -> (SlotSocket, SocketAddr, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        let slot = SlotSocket::bind(LOCALHOST, 0, &sender).unwrap();
        let address = TcpListener::from(slot.share().unwrap()).local_addr().unwrap();
        (slot, address, events)
    }

    #[tokio::test]
    async fn a_connection_that_arrived_before_the_watch_is_reported_by_every_watch() {
        let (slot, address, mut events) = bind();
        let _waiting = TcpStream::connect(address).unwrap();
        for _ in 0..3 {
            slot.set_mode(SocketMode::Watched);
            assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(0, _))));
            slot.set_mode(SocketMode::Unwatched);
        }
    }

    #[tokio::test]
    async fn connections_are_closed_while_refusing_and_wait_while_unwatched() {
        let (slot, address, mut events) = bind();
        slot.set_mode(SocketMode::Refusing);
        for _ in 0..2 * REFUSED_AT_ONCE {
            let mut refused = TcpStream::connect(address).unwrap();
            let read = tokio::task::spawn_blocking(move || refused.read(&mut [0])).await.unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        slot.set_mode(SocketMode::Unwatched);
        // Lets the slot's task see the change before the next connection.
        tokio::task::yield_now().await;
        let waiting = TcpStream::connect(address).unwrap();
        waiting.set_nonblocking(true).unwrap();
        slot.set_mode(SocketMode::Watched);
        assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(0, _))));
        let read = (&waiting).read(&mut [0]).unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_socket_that_a_worker_has_changed_is_restored() {
        // As in production the port is given: only then does a socket that no longer listens keep its port.
        let address = TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let slot = SlotSocket::bind(LOCALHOST, address.port(), &sender).unwrap();
        let copy = slot.share().unwrap();
        rustix::io::ioctl_fionbio(&copy, false).unwrap();
        rustix::net::shutdown(&copy, rustix::net::Shutdown::Read).unwrap();
        assert!(TcpStream::connect(address).is_err(), "the socket still listens");
        let copy = slot.share().unwrap();
        assert_eq!(rustix::net::accept(&copy).unwrap_err(), rustix::io::Errno::WOULDBLOCK);
        let _waiting = TcpStream::connect(address).unwrap();
        slot.set_mode(SocketMode::Watched);
        assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(..))));
    }

    #[tokio::test]
    async fn the_error_for_a_used_port_says_what_to_do() {
        let (_slot, address, _events) = bind();
        let (sender, _) = mpsc::unbounded_channel();
        let error = SlotSocket::bind(LOCALHOST, address.port(), &sender).err().unwrap();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{error}");
    }
}
