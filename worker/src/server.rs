//! Serves the store over HTTP/1.1 on one listening socket, in one thread.
//!
//! A command runs only once its body is complete, and in one step of the store. So no request sees another half done,
//! and a client that disconnects cannot interrupt a write. The answer waits until everything that it depends on is on
//! disk.
//!
//! The socket may be the pool's. A worker that exits closes only its own descriptor: connections that arrive then wait in
//! the backlog for the next worker.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use sq_shared::connections::Connections;
use sq_shared::http_dates;
use sq_shared::process::signals::Signals;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::server::settings_reader::SettingsReader;
use crate::server::worker::Worker;

// The life of a request, in this order.
mod connection;

mod request;

mod authenticate;

mod conditions;

mod body;

mod commits;

mod respond;

// How an answer leaves.
mod answer_body;
mod joined_writes;
mod listing;

// What all requests share.
pub mod worker;

mod activity;
mod answer_budget;
mod client;
mod memory_budget;
pub(crate) mod settings_reader;

/// The most connections at once. The gateway opens as many as a tenant may have requests in flight (64 by default), and
/// keeps a few more open. When all places are taken, the oldest connection that has not sent a valid key is closed; if
/// all have, new ones wait in the backlog. An open connection costs about 10 KiB.
const MAX_CONNECTIONS: usize = 512;

/// Why a worker that did not fail has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// It was told to stop, or was idle.
    Stopped,
    /// Its directory was removed or replaced.
    Displaced,
}

/// The stop reason that is an error. Only a new worker, which reads the disk, can tell what was written.
const STORE_FAILED: &str = "the disk failed, and its contents are unknown until they are read again";

/// How often a worker past its idle timeout checks again while it is busy.
const IDLE_RECHECK: Duration = Duration::from_millis(250);

/// Serves until a signal to stop, the end of standard input, or the idle timeout. The socket must be non-blocking.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    worker: Rc<Worker>,
    mut pool: Option<SettingsReader>,
    mut signals: Signals,
) -> io::Result<ExitReason> {
    // Stays open to the end, because no file may get its descriptor number (`sandbox/system_calls.rs`). Connections in the
    // backlog are the next worker's.
    let listener = Rc::new(TcpListener::from_std(listener)?);
    http_dates::prepare().await;
    let connections = Connections::new(MAX_CONNECTIONS);
    let (stopping, stopped) = watch::channel(false);
    let accepting = tokio::task::spawn_local(accept(
        Rc::clone(&listener),
        Rc::clone(&worker),
        connections.clone(),
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
            return Ok(ExitReason::Displaced);
        }
    };
    if worker.is_displaced() {
        return Ok(ExitReason::Displaced);
    }
    info!(reason, "stopping");
    let _ = stopping.send(true);
    accepting.abort();
    let _ = accepting.await;
    if tokio::time::timeout(worker.drain.get(), connections.ended()).await.is_err() {
        warn!("some connections did not end in time; closing them");
    }
    commits.abort();
    commits::close(&worker).await;
    if worker.store.borrow().is_in_doubt() {
        return Err(io::Error::other(STORE_FAILED));
    }
    Ok(ExitReason::Stopped)
}

/// Serves one connection, which need not be a socket, until the client closes it, and saves everything. It does what
/// [`run`] does per connection, fast enough for a fuzzer.
pub async fn run_connection(stream: impl AsyncRead + AsyncWrite + Unpin, worker: Rc<Worker>) {
    let (_never_stops, stopped) = watch::channel(false);
    let commits = tokio::task::spawn_local(commits::run(Rc::clone(&worker)));
    connection::serve(stream, Rc::clone(&worker), stopped, None).await;
    commits.abort();
    commits::close(&worker).await;
}

/// Serves each connection in a task, until this is dropped.
async fn accept(
    listener: Rc<TcpListener>,
    worker: Rc<Worker>,
    connections: Connections,
    stopped: watch::Receiver<bool>,
) {
    loop {
        let (stream, _, place, eviction) = connections.accept(&listener).await;
        connection::tune(&stream);
        let serving = connection::serve(stream, Rc::clone(&worker), stopped.clone(), Some(place));
        tokio::task::spawn_local(eviction.or(serving));
    }
}

/// The pool's next settings; `None` when the pool is gone. Pending without a pool.
async fn next_settings(pool: &mut Option<SettingsReader>) -> Option<crate::settings::WorkerSettings> {
    let Some(reader) = pool else { return std::future::pending().await };
    loop {
        match reader.next().await {
            Ok(settings) => return settings,
            Err(error) => warn!(%error, "failed to parse the pool's settings; keeping the current ones"),
        }
    }
}

/// Returns once the worker was idle for its idle timeout; pending without one.
async fn idle(worker: &Worker) {
    loop {
        let Some(timeout) = worker.idle_timeout.get() else { return std::future::pending().await };
        let due = worker.activity.last() + timeout;
        let now = tokio::time::Instant::now();
        if now < due {
            tokio::time::sleep_until(due).await;
        } else if worker.activity.is_busy() {
            tokio::time::sleep(IDLE_RECHECK).await;
        } else {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
