//! A pool's part in an upgrade. `sq_shared::process::upgrade` has the protocol.
//!
//! The old pool offers its listening sockets, a list of the workers that still run, and a descriptor of each one's process.
//! Which socket is which, its own address says. After the commit the old pool stops its workers and exits; the new one
//! starts a tenant's worker when the process of the old one has ended, whether or not the old pool still lives.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sq_shared::layout;
use sq_shared::process::service_manager;
use sq_shared::process::signals::Signal;
use sq_shared::process::upgrade::{
    self, AcceptError, OfferError, Predecessor, ProcessExit, Successor, find_successor, launch,
};
use sq_shared::tenant::TenantName;
use tokio::sync::mpsc;

use super::desired::Assignment;
use super::observed::Observed;
use super::process::Exit;
use super::status::StatusServer;
use super::{Event, Pool};
use crate::settings::WorkerSettings;

/// A worker of the old pool. The new one only waits for its end, and so need not know its settings.
#[derive(Debug, Serialize, Deserialize)]
struct RunningWorker {
    port: u16,
    pid: u32,
    tenant: TenantName,
    data_dir: PathBuf,
}

impl Pool {
    /// Looks for the new pool while everything goes on. At [`Signal::Upgrade`] it is started first.
    pub(super) fn find_successor(&mut self, signal: Signal) {
        if self.is_finding_successor {
            return tracing::warn!("an upgrade is already under way; signal ignored");
        }
        if self.desired.is_closing || (signal == Signal::Upgrade && !launch()) {
            return;
        }
        self.is_finding_successor = true;
        tracing::info!("looking for the new pool");
        let (path, sender) = (layout::pool_upgrade_socket(&self.config.path), self.sender.clone());
        tokio::spawn(async move {
            let _ = sender.send(Event::SuccessorFound(find_successor(&path).await));
        });
    }

    /// Hands the sockets to the new pool, if it is there; otherwise, or when that fails, this one goes on. The loop waits:
    /// no worker may start while the list of them is on its way.
    pub(super) async fn hand_off(&mut self, found: Result<Successor, OfferError>) {
        self.is_finding_successor = false;
        if self.desired.is_closing {
            return;
        }
        let offered = async {
            let successor = found?;
            let pid = successor.pid;
            self.offer(successor).await?;
            Ok::<_, OfferError>(pid)
        };
        let pid = match offered.await {
            Ok(pid) => pid,
            Err(error) => {
                return tracing::error!(
                    %error,
                    "not upgraded, this pool goes on: start `sq-worker pool --upgrade` with the same --config, then send \
                     SIGQUIT"
                );
            }
        };
        let workers = self.observed.worker_count();
        tracing::info!(
            workers,
            "upgraded: the new pool has the sockets; this one stops its workers and exits"
        );
        self.status.iter().for_each(StatusServer::stop);
        self.desired.close(self.config.timeouts.drain);
        service_manager::upgraded_to(pid, "ready, after an upgrade");
    }

    async fn offer(&self, successor: Successor) -> Result<(), OfferError> {
        let sockets = self.sockets.values().map(|socket| socket.listener());
        let sockets = sockets.chain(self.status.iter().map(|status| status.listener.as_fd()));
        let (mut workers, mut pidfds) = (Vec::new(), Vec::new());
        for (port, slot) in &self.observed.slots {
            let Some(worker) = &slot.worker else { continue };
            let own = self.processes.get(port).map(|process| &process.pidfd);
            // The new pool must not take the slot of a worker that it does not know to be free.
            let pidfd = own.or_else(|| self.inherited.get(port)).ok_or_else(|| {
                OfferError::NotAccepted(io::Error::other(format!(
                    "no descriptor of the worker on port {port}"
                )))
            })?;
            let Assignment { tenant, data_dir, .. } = worker.assignment.as_ref();
            let (tenant, data_dir) = (tenant.clone(), data_dir.clone());
            workers.push(RunningWorker { port: *port, pid: worker.pid, tenant, data_dir });
            pidfds.push(pidfd.as_fd());
        }
        let descriptors: Vec<BorrowedFd<'_>> = sockets.chain(pidfds).collect();
        successor.offer(&workers, &descriptors).await
    }
}

/// What the old pool leaves to this one; nothing when there was none.
#[derive(Default)]
pub(crate) struct Inherited {
    sockets: BTreeMap<SocketAddr, OwnedFd>,
    workers: Vec<(RunningWorker, OwnedFd)>,
    predecessor: Option<Predecessor>,
}

impl Inherited {
    /// Waits for the running pool to offer its sockets.
    pub(crate) async fn wait_for_offer(config: &Path) -> Result<Self, AcceptError> {
        let path = layout::pool_upgrade_socket(config);
        let (workers, mut sockets, predecessor): (Vec<RunningWorker>, Vec<OwnedFd>, _) =
            upgrade::wait_for_offer(&path).await?;
        if sockets.len() < workers.len() {
            return Err(AcceptError::OtherVersion("its list of workers is malformed".to_owned()));
        }
        let pidfds = sockets.split_off(sockets.len() - workers.len());
        let by_address = |socket: OwnedFd| {
            let listener = TcpListener::from(socket);
            Some((listener.local_addr().ok()?, OwnedFd::from(listener)))
        };
        let sockets = sockets.into_iter().filter_map(by_address).collect();
        Ok(Self {
            sockets,
            workers: workers.into_iter().zip(pidfds).collect(),
            predecessor: Some(predecessor),
        })
    }

    /// The socket that listens there.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<OwnedFd> {
        self.sockets.remove(&address)
    }

    /// Accepts the offer, and notes the old pool's workers: each holds its slot and its directory until it has ended.
    /// Sockets that were not taken are closed. Gives descriptors of the workers' processes, for the next upgrade.
    pub(super) async fn accept(
        self,
        observed: &mut Observed,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<BTreeMap<u16, OwnedFd>, String> {
        let Some(predecessor) = self.predecessor else { return Ok(BTreeMap::new()) };
        let watched = self
            .workers
            .into_iter()
            .map(|(worker, pidfd)| Ok((worker, pidfd.try_clone()?, ProcessExit::watch(pidfd)?)));
        let watched: Vec<_> = watched
            .collect::<io::Result<_>>()
            .map_err(|error| format!("failed to watch the old pool's workers: {error}"))?;
        predecessor.accept(&()).await.map_err(|error| error.to_string())?;
        tracing::info!(
            workers = watched.len(),
            "upgraded: this pool has the sockets; the old one's workers finish"
        );
        let mut pidfds = BTreeMap::new();
        for (RunningWorker { port, pid, tenant, data_dir }, pidfd, exit) in watched {
            // A worker that is stopping is sent no settings.
            let assignment = Assignment { tenant, data_dir, settings: WorkerSettings::default() };
            observed.add_old_pool_worker(port, Arc::new(assignment), pid, Instant::now());
            pidfds.insert(port, pidfd);
            let events = events.clone();
            tokio::spawn(async move {
                exit.wait().await;
                // How it ended, the old pool logs.
                let exit = Exit { status: Ok(ExitStatus::default()), has_served: false };
                let _ = events.send(Event::WorkerEnded(port, exit));
            });
        }
        Ok(pidfds)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::time::timeout;

    use super::*;

    fn sleeping() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn sockets_are_known_by_address_and_a_worker_holds_its_slot_until_its_process_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (first, second) = (sleeping(), sleeping());
        let worker = |(port, child): (u16, &Child)| RunningWorker {
            port,
            pid: child.id(),
            tenant: "alice".parse().unwrap(),
            data_dir: "/nonexistent".into(),
        };
        let workers: Vec<_> = [(1341, &first), (1342, &second)].into_iter().map(worker).collect();
        let pidfd = |child| pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
        let pidfds = [pidfd(&first), pidfd(&second)];
        let offering = async {
            let path = layout::pool_upgrade_socket(&config);
            let descriptors = [socket.as_fd(), pidfds[0].as_fd(), pidfds[1].as_fd()];
            find_successor(&path).await?.offer::<()>(&workers, &descriptors).await
        };

        let mut observed = Observed::new([1341]);
        let (sender, mut events) = mpsc::unbounded_channel();
        let accepting = async {
            let mut inherited = Inherited::wait_for_offer(&config).await.unwrap();
            assert!(inherited.take(address).is_some() && inherited.take(address).is_none());
            inherited.accept(&mut observed, &sender).await.unwrap()
        };
        let (offered, inherited) = tokio::join!(offering, accepting);
        offered.unwrap();
        assert!(inherited.keys().eq(&[1341, 1342]));
        assert_eq!(observed.worker_count(), 2, "one is on a slot that this pool does not have");

        assert!(timeout(Duration::from_millis(100), events.recv()).await.is_err(), "both still run");
        end(second);
        assert!(matches!(events.recv().await, Some(Event::WorkerEnded(1342, _))));
        end(first);
        assert!(matches!(events.recv().await, Some(Event::WorkerEnded(1341, _))));
    }
}
