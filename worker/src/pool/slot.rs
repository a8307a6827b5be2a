//! A slot's listening socket. The pool holds it for ever; a worker gets a copy. It never accepts for a
//! tenant: it only asks the kernel whether a connection waits.

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

use super::Event;
use super::observed::Attention;

/// Where the config has a slot's address.
const SETTINGS: Settings = Settings { address: "[pool] slot_address", port: "[gateway] slots" };

/// So many connections to a free slot are closed without a pause.
const REFUSED_AT_ONCE: usize = 64;

/// The pause after them, and after a failure to accept: a client that connects in a loop to a slot
/// without a tenant must not keep the pool busy.
const REFUSAL_PAUSE: Duration = Duration::from_millis(50);

/// A bound slot, and the line to the task that attends to its connections.
pub struct SlotSocket {
    listener: Arc<OwnedFd>,
    attention: watch::Sender<Attention>,
}

impl SlotSocket {
    /// Binds a slot and listens; connections wait from now on. Call it inside a runtime.
    ///
    /// # Errors
    /// The address cannot be had; the text names it and says what to do.
    pub fn bind(address: IpAddr, port: u16, events: &mpsc::UnboundedSender<Event>) -> Result<Self, String> {
        let address = SocketAddr::new(address, port);
        let listener = listen(address)
            .map_err(|error| listen_error::explain(&ListenAddress::Tcp(address), &error, SETTINGS))?;
        Ok(Self::take_over(listener, port, events))
    }

    /// A slot whose socket listens already: the pool before this one bound it.
    pub fn take_over(listener: OwnedFd, port: u16, events: &mpsc::UnboundedSender<Event>) -> Self {
        let listener = Arc::new(listener);
        let (attention, changes) = watch::channel(Attention::Left);
        tokio::spawn(attend(port, Arc::clone(&listener), changes, events.clone()));
        Self { listener, attention }
    }

    /// The socket itself, for the next pool.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Treats the slot's connections so from now on. Asking for what is already done asks the kernel
    /// anew whether a connection waits.
    pub fn attend(&self, attention: Attention) {
        // The task ends only after this sender is gone.
        let _ = self.attention.send(attention);
    }

    /// A copy of the socket for a worker.
    ///
    /// # Errors
    /// The process has too many files open, or the socket cannot listen any more.
    pub fn share(&self) -> io::Result<OwnedFd> {
        restore(&self.listener)?;
        self.listener.try_clone()
    }
}

/// Makes sure that the socket listens and does not block. A worker's copy is the same socket: where seccomp could not
/// be had, one that was taken over may have changed both.
fn restore(listener: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(listener, true)?;
    Ok(rustix::net::listen(listener, SLOT_BACKLOG)?)
}

/// Binds and listens. The socket does not block.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Close-on-exec: a worker gets its own slot's socket and no other.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A pool that is started again must not wait for the connections of the one before to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, SLOT_BACKLOG)?;
    Ok(socket)
}

/// Attends to a slot's connections until the slot is dropped. One task owns the registration with the
/// kernel, so there is never a second one for the same socket.
async fn attend(
    port: u16,
    listener: Arc<OwnedFd>,
    mut changes: watch::Receiver<Attention>,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let attention = *changes.borrow_and_update();
        let attending = async {
            match attention {
                Attention::Watched => watch_once(port, &listener, &events).await,
                Attention::Refused => refuse(&listener).await,
                Attention::Left | Attention::Waiting => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = attending => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Asks the kernel to tell of waiting connections while the result lives.
#[expect(
    deprecated,
    reason = "the new constructor is unsafe for descriptors that may be closed; a borrowed one cannot be"
)]
fn register(listener: &OwnedFd) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(listener.as_fd(), Interest::READABLE)
}

/// Reports the first waiting connection, also one that came before; then the socket is no longer
/// registered, so the connections that its worker accepts do not wake the pool.
async fn watch_once(port: u16, listener: &OwnedFd, events: &mpsc::UnboundedSender<Event>) {
    let ready = async { register(listener)?.readable().await.map(|_| ()) };
    if let Err(error) = ready.await {
        // Blind, the slot would sleep for ever: better one worker too many.
        tracing::error!(port, %error, "cannot watch a slot; its worker is started");
        tokio::time::sleep(REFUSAL_PAUSE).await;
    }
    // The loop that receives ends only with the process.
    let _ = events.send(Event::ConnectionWaits(port, Instant::now()));
}

/// Closes connections as they come, so that nobody waits for ever and nobody fills the backlog.
async fn refuse(listener: &OwnedFd) {
    if let Err(error) = restore(listener) {
        return tracing::error!(%error, "a slot without a tenant cannot listen");
    }
    let registered = match register(listener) {
        Ok(registered) => registered,
        Err(error) => return tracing::error!(%error, "cannot watch a slot without a tenant"),
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
    async fn a_connection_that_came_before_the_watch_is_reported_each_time_it_is_watched() {
        let (slot, address, mut events) = bind();
        let _waiting = TcpStream::connect(address).unwrap();
        for _ in 0..3 {
            slot.attend(Attention::Watched);
            assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(0, _))));
            slot.attend(Attention::Left);
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_closed_and_what_is_left_waits() {
        let (slot, address, mut events) = bind();
        slot.attend(Attention::Refused);
        for _ in 0..2 * REFUSED_AT_ONCE {
            let mut refused = TcpStream::connect(address).unwrap();
            let read = tokio::task::spawn_blocking(move || refused.read(&mut [0])).await.unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        slot.attend(Attention::Left);
        // The change is seen by the slot's task before the next connection comes.
        tokio::task::yield_now().await;
        let waiting = TcpStream::connect(address).unwrap();
        waiting.set_nonblocking(true).unwrap();
        slot.attend(Attention::Watched);
        assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(0, _))));
        let read = (&waiting).read(&mut [0]).unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_socket_that_a_worker_has_spoiled_is_mended() {
        // A slot's port is always a given one: only such a port stays a socket's own when it no longer listens.
        let address = TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let slot = SlotSocket::bind(LOCALHOST, address.port(), &sender).unwrap();
        let copy = slot.share().unwrap();
        rustix::io::ioctl_fionbio(&copy, false).unwrap();
        rustix::net::shutdown(&copy, rustix::net::Shutdown::Read).unwrap();
        assert!(TcpStream::connect(address).is_err(), "it was not spoiled");
        let copy = slot.share().unwrap();
        assert_eq!(rustix::net::accept(&copy).unwrap_err(), rustix::io::Errno::WOULDBLOCK);
        let _waiting = TcpStream::connect(address).unwrap();
        slot.attend(Attention::Watched);
        assert!(matches!(events.recv().await, Some(Event::ConnectionWaits(..))));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let (_slot, address, _events) = bind();
        let (sender, _) = mpsc::unbounded_channel();
        let error = SlotSocket::bind(LOCALHOST, address.port(), &sender).err().unwrap();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{error}");
    }
}
