//! What a pool does when it hands over to the next one, and when it is that next one; `handover.rs` has what they say
//! to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use sq_shared::layout;
use sq_shared::process::{service_manager, successor};
use tokio::sync::mpsc;

use super::desired::Assignment;
use super::handover::{self, Endings, Handover, OldWorker, WAIT_FOR_NEW};
use super::observed::Observed;
use super::process::End;
use super::status::StatusServer;
use super::{Event, Pool};
use crate::settings::WorkerSettings;

/// How far a pool is in handing over.
#[derive(Debug, Default)]
pub(super) enum Succession {
    /// Nobody has asked for it.
    #[default]
    None,
    /// It looks for the new pool.
    Seeking,
    /// The sockets are this pool's, which is told when a worker ends.
    HandedOver(UnixStream),
    /// It belongs to the program that started it, and hands over to nobody.
    Never,
}

impl Succession {
    pub(super) fn successor(&self) -> Option<&UnixStream> {
        match self {
            Self::HandedOver(successor) => Some(successor),
            _ => None,
        }
    }
}

impl Pool {
    /// Whether this pool may hand over, and does not do so already.
    fn may_hand_over(&self, signal: &str) -> bool {
        if matches!(self.succession, Succession::Never) {
            tracing::warn!("{signal} is ignored: this pool goes with the program that started it");
        }
        matches!(self.succession, Succession::None) && !self.desired.is_closing
    }

    /// Starts the new pool, and looks for it.
    pub(super) fn start_successor(&mut self) {
        if !self.may_hand_over("SIGUSR2") {
            return;
        }
        match successor::start() {
            Ok(()) => {
                tracing::info!("SIGUSR2: the pool that takes over is asked for");
                self.seek_successor();
            }
            Err(error) => {
                tracing::error!(%error, "SIGUSR2: the program cannot be started; this pool goes on")
            }
        }
    }

    /// Looks for the new pool, while everything goes on.
    pub(super) fn seek_successor(&mut self) {
        if !self.may_hand_over("SIGQUIT") {
            return;
        }
        self.succession = Succession::Seeking;
        tracing::info!(patience_s = WAIT_FOR_NEW.as_secs(), "looking for the pool that takes over");
        let (path, sender) = (layout::pool_handover_socket(&self.config.path), self.sender.clone());
        tokio::spawn(async move {
            let _ = sender.send(Event::SuccessorFound(handover::find_successor(&path).await));
        });
    }

    /// Hands over to the new pool, if it is there; otherwise, or when that fails, this one goes on. The loop waits:
    /// no worker may start while the list of them is on its way.
    pub(super) async fn meet_successor(&mut self, found: Result<UnixStream, String>) {
        self.succession = Succession::None;
        if self.desired.is_closing {
            return;
        }
        let handed_over = match found {
            Ok(successor) => self.hand_over(successor).await,
            Err(error) => Err(error),
        };
        match handed_over {
            Ok(successor) => {
                let workers = self.observed.worker_count();
                tracing::info!(workers, "the new pool has the sockets; this one stops its workers and goes");
                self.status.iter().for_each(StatusServer::stop);
                self.desired.close(self.config.timeouts.drain);
                service_manager::handed_over_to(handover::pid_of(&successor), "ready, after an upgrade");
                self.succession = Succession::HandedOver(successor);
            }
            Err(error) => tracing::error!(error, "no pool takes over; this one goes on"),
        }
    }

    async fn hand_over(&self, successor: UnixStream) -> Result<UnixStream, String> {
        let mut sockets: Vec<Arc<OwnedFd>> = self.sockets.values().map(|socket| socket.listener()).collect();
        sockets.extend(self.status.iter().map(|status| Arc::clone(&status.listener)));
        let old_worker = |(port, slot): (&u16, &super::observed::Slot)| {
            let worker = slot.worker.as_ref()?;
            let Assignment { tenant, data_dir, .. } = worker.assignment.as_ref();
            Some(OldWorker {
                port: *port,
                pid: worker.pid,
                tenant: tenant.clone(),
                data_dir: data_dir.clone(),
            })
        };
        let workers: Vec<OldWorker> = self.observed.slots.iter().filter_map(old_worker).collect();
        let giving = tokio::task::spawn_blocking(move || handover::give(successor, &sockets, &workers));
        match giving.await {
            Ok(given) => given.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What the pool before this one hands on.
pub(super) struct Inherited {
    sockets: BTreeMap<SocketAddr, OwnedFd>,
    handover: Option<Handover>,
}

impl Inherited {
    pub(super) fn new(mut handover: Option<Handover>) -> Self {
        let received = handover.as_mut().map(|handover| std::mem::take(&mut handover.sockets));
        let by_address = |socket: OwnedFd| {
            let listener = TcpListener::from(socket);
            Some((listener.local_addr().ok()?, OwnedFd::from(listener)))
        };
        Self { sockets: received.into_iter().flatten().filter_map(by_address).collect(), handover }
    }

    /// The socket that listens there.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<OwnedFd> {
        self.sockets.remove(&address)
    }

    /// Tells the old pool that its sockets are taken over, and notes its workers: each holds its slot and its
    /// directory until it has ended. Sockets that nobody took are closed.
    ///
    /// # Errors
    /// The old pool goes on after all.
    pub(super) fn accept(
        self,
        observed: &mut Observed,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<(), String> {
        let Some(mut handover) = self.handover else { return Ok(()) };
        let workers = std::mem::take(&mut handover.workers);
        let endings = handover.accept()?;
        tracing::info!(workers = workers.len(), "the sockets are taken over; the old pool's workers finish");
        let ports = workers.iter().map(|worker| worker.port).collect();
        for OldWorker { port, pid, tenant, data_dir } in workers {
            let assignment = Assignment { tenant, data_dir, settings: unknown_settings() };
            observed.add_old_pool_worker(port, Arc::new(assignment), pid, Instant::now());
        }
        let events = events.clone();
        // A thread of its own: it reads until the old pool has gone, and must not hold up this one's end.
        std::thread::spawn(move || note_endings(endings, ports, &events));
        Ok(())
    }
}

/// A worker that is on its way out is told nothing any more.
fn unknown_settings() -> WorkerSettings {
    WorkerSettings {
        keys: Vec::new(),
        quota_bytes: None,
        phexts: None,
        coordinate: None,
        memory_bytes: 0,
        body_bytes: None,
        idle_timeout_ms: 0,
        drain_ms: 0,
        directory: None,
    }
}

fn note_endings(mut endings: Endings, mut ports: BTreeSet<u16>, events: &mpsc::UnboundedSender<Event>) {
    // How it ended, the old pool has logged.
    let ended = |port| Event::WorkerEnded(port, End { status: Ok(ExitStatus::default()), has_served: false });
    while let Some(port) = endings.next_port() {
        if ports.remove(&port) {
            let _ = events.send(ended(port));
        }
    }
    for port in ports {
        let _ = events.send(ended(port));
    }
}
