//! Serves the store over HTTP/1.1 on one listening socket, in one thread.
//!
//! A request is handled whole: its body is complete before the store is asked, and the store's work on it is
//! one step. So requests never see each other half done, and a client that goes away cannot stop a write in
//! the middle. The answer waits until the disk has all that it rests on.
//!
//! The socket may be the pool's. When this worker ends, it only lets go of its own descriptor:
//! connections that arrive meanwhile wait in the backlog for the next worker.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sq_shared::connection_places::{Places, Stage};
use sq_shared::http_dates;
use sq_shared::process::signals::Signals;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::server::settings::SettingsReader;
use crate::server::worker::Worker;

mod activity;
mod answer_body;
mod answer_room;
mod authenticate;
mod body;
mod commits;
mod conditions;
mod connection;
mod joined_writes;
mod listing;
mod request;
mod respond;
mod room;
mod served;
pub mod settings;
pub mod worker;

/// Most connections at once. The gateway opens at most as many as a tenant may have requests in flight (64 by default), and
/// a few more that it keeps open. When all places are taken, the oldest connection without a right key loses its own. If
/// every connection has a right key, more wait in the backlog. An open connection costs about 10 KiB.
const CONNECTIONS: usize = 512;

/// How a worker ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was told to, or was idle.
    Stopped,
    /// Its directory was removed, or another one has its place.
    Displaced,
}

/// The reason to stop that is an error: the next worker reads from the disk what there is.
const STORE_FAILED: &str = "the disk failed, and what it holds is in doubt until it is read again";

/// How long accepting rests when the system has no descriptor or memory left for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How often a worker that is due to end, but busy, looks again.
const IDLE_RECHECK: Duration = Duration::from_millis(250);

/// Serves until told to stop, until standard input ends, or until no request came for the idle time. The socket must
/// not block.
///
/// # Errors
/// The runtime cannot take the socket over, or the store failed so that only a new start can tell what is on
/// disk.
pub async fn run(
    listener: std::net::TcpListener,
    worker: Rc<Worker>,
    mut pool: Option<SettingsReader>,
    mut signals: Signals,
) -> io::Result<Ending> {
    // It stays open to the end: its number must not become that of a file (`sandbox/system_calls.rs`). The worker stops
    // listening only then, and what waits in the backlog is the next one's.
    let listener = Rc::new(TcpListener::from_std(listener)?);
    http_dates::prepare().await;
    let places = Places::new(CONNECTIONS);
    let (stopping, stopped) = watch::channel(false);
    let accepting = tokio::task::spawn_local(accept(
        Rc::clone(&listener),
        Rc::clone(&worker),
        Arc::clone(&places),
        stopped,
    ));
    let commits = tokio::task::spawn_local(commits::run(Rc::clone(&worker)));
    let reason = loop {
        tokio::select! {
            signal = signals.stop() => break signal,
            settings = next_settings(&mut pool) => match settings {
                Some(settings) => worker.apply_settings(settings),
                None => break "standard input ended",
            },
            () = idle(&worker) => break "idle",
            () = worker.store_failed.notified() => break STORE_FAILED,
        }
        if worker.is_displaced() {
            return Ok(Ending::Displaced);
        }
    };
    if worker.is_displaced() {
        return Ok(Ending::Displaced);
    }
    info!(reason, "stopping");
    let _ = stopping.send(true);
    accepting.abort();
    let _ = accepting.await;
    if tokio::time::timeout(worker.drain(), places.emptied()).await.is_err() {
        warn!("some connections did not end in time and are cut off");
    }
    commits.abort();
    commits::close(&worker).await;
    if worker.store.borrow().is_in_doubt() {
        return Err(io::Error::other(STORE_FAILED));
    }
    Ok(Ending::Stopped)
}

/// Serves one connection that needs no socket, until the client closes it, and saves everything: what [`run`] does
/// for each connection, where a fuzzer can do it a thousand times a second.
pub async fn run_connection(stream: impl AsyncRead + AsyncWrite + Unpin, worker: Rc<Worker>) {
    let (_never_stops, stopped) = watch::channel(false);
    let commits = tokio::task::spawn_local(commits::run(Rc::clone(&worker)));
    connection::serve(stream, Rc::clone(&worker), stopped, None).await;
    commits.abort();
    commits::close(&worker).await;
}

/// Serves connections as there are places for them. A place is taken first, so that no connection is lost when this ends.
async fn accept(
    listener: Rc<TcpListener>,
    worker: Rc<Worker>,
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
) {
    loop {
        let (place, evicted) = Places::take(&places).await;
        let stream = next_connection(&listener).await;
        place.enter(Stage::Silent);
        connection::tune(&stream);
        let serving = connection::serve(stream, Rc::clone(&worker), stopped.clone(), Some(place));
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = serving => {}
                _ = evicted => {}
            }
        });
    }
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client gave up while it waited in the backlog.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// What the pool says next; without a pool, nothing ever.
async fn next_settings(pool: &mut Option<SettingsReader>) -> Option<crate::settings::WorkerSettings> {
    let Some(reader) = pool else { return std::future::pending().await };
    loop {
        match reader.next().await {
            Ok(settings) => return settings,
            Err(error) => warn!(%error, "the pool sent settings that cannot be read; the old ones stay"),
        }
    }
}

/// Ends when the worker has been idle for long enough.
async fn idle(worker: &Worker) {
    loop {
        let Some(timeout) = worker.idle_timeout() else { return std::future::pending().await };
        let due = worker.last_active() + timeout;
        let now = tokio::time::Instant::now();
        if now < due {
            tokio::time::sleep_until(due).await;
        } else if worker.is_busy() {
            tokio::time::sleep(IDLE_RECHECK).await;
        } else {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
