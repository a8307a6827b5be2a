//! Starts the gateway and stops it: one control thread for signals, reload and housekeeping, and the proxy threads,
//! each with its own runtime that steals no work: a quarter less processor time per request than with work stealing.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sq_shared::config::{Config, ListenAddress};
use sq_shared::config_source::ConfigSource;
use sq_shared::data_root::{DataRoot, RootWatch};
use sq_shared::layout;
use sq_shared::process::service_manager;
use sq_shared::process::signals::{Signal, Signals};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle as Task;

use crate::admin::{self, Admin};
use crate::audit::{AuditError, AuditLog, AuditWriter};
use crate::directory::reload::Reloader;
use crate::directory::{Directory, SharedDirectory};
use crate::edge::Edge;
use crate::listen::{BindError, Listening, Sockets};
use crate::metrics::Metrics;
use crate::phase::{Phase, ShutdownKind, handshake_time};
use crate::proxy::Gateway;
use crate::proxy::upstream_pool::UpstreamPool;
use crate::traces::{Traces, TracesError};

/// How often the limiters forget the addresses that have their full count again; governor never forgets one.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// How often when they are full, which only an attack brings about. A sweep takes some milliseconds, on the control
/// thread.
const FORGET_INTERVAL_WHEN_FULL: Duration = Duration::from_secs(1);

/// How many tasks a proxy thread runs before it polls the kernel for events. A request is some five; with tokio's 61 the
/// kernel was polled more than once per round of 32 busy connections.
const TASKS_PER_POLL: u32 = 256;

/// How often a gateway that stops checks whether a client is connected.
const PRESENCE_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// How long the audit log's disk has at a stop, however long the last requests took.
const AUDIT_STOP_TIME: Duration = Duration::from_secs(1);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("failed to register a metric: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error("failed to start: {0}")]
    System(#[from] io::Error),
}

/// A gateway that serves.
pub(crate) struct Server {
    directory: SharedDirectory,
    metrics: Arc<Metrics>,
    pub sockets: Sockets,
    /// Where clients reach it; with port 0 in the config, the port that the system chose.
    pub address: ListenAddress,
    phase: watch::Sender<Phase>,
    /// Ends when the accept loops and the connections have: each has a sender.
    present: mpsc::Receiver<Infallible>,
    /// The admin listener, once it serves.
    admin: OnceCell<Task<()>>,
    threads: Vec<JoinHandle<()>>,
    audit_writer: Option<AuditWriter>,
    traces: Arc<Traces>,
    /// SIGHUP, for what reads files again and for the audit log.
    reload: watch::Sender<()>,
}

impl Server {
    /// Starts the proxy threads on these sockets.
    pub(crate) fn start(
        directory: Directory,
        data_root: DataRoot,
        sockets: Sockets,
    ) -> Result<Self, StartError> {
        let config = directory.config.clone();
        let metrics = Arc::new(Metrics::new()?);
        let missing = metrics.data_root_missing.clone();
        RootWatch::new(data_root).spawn(move |is_lost| {
            missing.set(is_lost.into());
            true
        })?;
        let traces = Arc::new(Traces::from_environment()?);
        let (reload, reloads) = watch::channel(());
        let (audit, audit_writer) =
            AuditLog::start(config.gateway.audit, &layout::audit_log(&config.path), reloads)?;
        let address = sockets.clients.address()?;
        let directory: SharedDirectory = Arc::new(ArcSwap::from_pointee(directory));
        check_open_files(&config);
        let (phase, now) = watch::channel(Phase::Serving);
        let (presence, present) = mpsc::channel(1);
        let gateway = Arc::new(Gateway::new(
            Arc::clone(&directory),
            audit,
            Arc::clone(&metrics),
            Arc::clone(&traces),
            now.clone(),
        ));
        let connections = Arc::new(Semaphore::new(connection_cap(&config)));
        let mut threads = Vec::new();
        for number in 0..thread_count(&config) {
            let edge = Edge {
                gateway: Arc::clone(&gateway),
                upstreams: Arc::new(UpstreamPool::default()),
                directory: Arc::clone(&directory),
                metrics: Arc::clone(&metrics),
                connections: Arc::clone(&connections),
                phase: now.clone(),
                _presence: presence.clone(),
            };
            threads.push(spawn_proxy_thread(number, sockets.clients.try_clone()?, edge)?);
        }
        let admin = OnceCell::new();
        Ok(Self {
            directory,
            metrics,
            sockets,
            address,
            phase,
            present,
            admin,
            threads,
            audit_writer,
            traces,
            reload,
        })
    }

    /// Reads the files again, and opens the audit log again: SIGHUP.
    pub(crate) fn reload(&self) {
        self.reload.send_replace(());
    }

    pub(crate) fn tenant_count(&self) -> usize {
        self.directory.load().tenant_count()
    }

    /// Serves until `until` ends, and keeps the snapshot current to the end of the runtime: a key that is revoked while the
    /// gateway drains is refused on the connections that are left.
    pub(crate) async fn run_until(
        &self,
        source: ConfigSource,
        until: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (directory, metrics) = (Arc::clone(&self.directory), Arc::clone(&self.metrics));
        let reloader = Arc::new(Reloader::new(source, directory, metrics));
        self.serve_admin(Arc::clone(&reloader))?;
        self.log_start();
        let current = tokio::spawn(reloader.keep_current(self.reload.subscribe()));
        tokio::select! {
            () = until => Ok(()),
            ended = current => Err(ended.map_or_else(io::Error::other, |()| io::Error::other("the file watch ended"))),
            () = self.forget_idle_addresses() => Ok(()),
        }
    }

    fn log_start(&self) {
        let (version, threads, tenants) =
            (env!("CARGO_PKG_VERSION"), self.threads.len(), self.tenant_count());
        let (listen, admin) = (&self.address, self.directory.load().config.gateway.admin_listen);
        tracing::info!(version, %listen, %admin, threads, tenants, "serving");
        if !admin.ip().is_loopback() {
            tracing::warn!(
                %admin,
                "other machines can reach the admin API, and without a key the metrics and the status page; restrict \
                 access with a firewall"
            );
        }
    }

    /// Serves the admin API until the gateway ends; what is in flight then is finished.
    fn serve_admin(&self, reloader: Arc<Reloader>) -> io::Result<()> {
        let (directory, metrics) = (Arc::clone(&self.directory), Arc::clone(&self.metrics));
        let admin = Admin { directory, metrics, reloader };
        let mut phase = self.phase.subscribe();
        let end = async move { _ = phase.wait_for(|phase| phase.is_ending()).await };
        let listener = self.sockets.admin.try_clone()?;
        let _ = self.admin.set(tokio::spawn(async move {
            if let Err(error) = admin::serve(listener, admin, end).await {
                tracing::error!(%error, "the admin listener has failed");
            }
        }));
        Ok(())
    }

    async fn forget_idle_addresses(&self) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(FORGET_INTERVAL_WHEN_FULL).await;
            let directory = self.directory.load_full();
            if directory.client_limits.are_full() || last.elapsed() >= FORGET_INTERVAL {
                directory.client_limits.forget_idle();
                last = Instant::now();
            }
        }
    }

    /// Ends the gateway, which SIGHUP concerns until then: the operator may rotate the audit log.
    pub(crate) async fn drain(self, end: ShutdownKind, signals: &mut Signals) {
        let reload = self.reload.clone();
        let reloads = async {
            loop {
                if signals.next().await == Signal::Reload {
                    reload.send_replace(());
                }
            }
        };
        tokio::select! {
            () = self.finish(end) => {}
            () = reloads => {}
        }
    }

    /// Accepts the queued connections, finishes what is in flight, and gives a connection without a request time for one
    /// more. All that takes up to `timeouts.drain`; the audit log's disk and the collector of traces have some time more.
    async fn finish(mut self, end: ShutdownKind) {
        let limit = self.directory.load().config.timeouts.drain;
        let deadline = tokio::time::Instant::now() + limit;
        self.stop_accepting(end, limit).await;
        // The threads drop theirs when the queue is empty; with the last one the socket is closed.
        drop(self.sockets);
        let admin = self.admin.into_inner();
        let all_gone = async {
            self.present.recv().await;
            if let Some(admin) = admin {
                let _ = admin.await;
            }
        };
        if tokio::time::timeout_at(deadline, all_gone).await.is_err() {
            tracing::warn!("some requests did not finish in time and are cut off");
        }
        drop(self.phase);
        for thread in self.threads {
            let _ = thread.join();
        }
        // With the threads the last requests have ended, and have queued their lines.
        if let Some(writer) = self.audit_writer {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            writer.stop(left.max(AUDIT_STOP_TIME)).await;
        }
        // Blocks this thread, which has nothing else to do.
        self.traces.stop();
        tracing::info!("gateway stopped");
    }

    /// A client may connect, or use its connection, before it can notice the stop: its request is refused, where it would
    /// otherwise be reset. When no client is connected there is nothing to wait for but handshakes.
    async fn stop_accepting(&self, end: ShutdownKind, drain: Duration) {
        // Logged after the phase has changed, so that a reader of the log can rely on it.
        let log = |end: &str| tracing::info!(limit_s = drain.as_secs_f32(), %end, "draining");
        match end {
            ShutdownKind::Stop => {
                service_manager::stopping();
                self.phase.send_replace(Phase::Refusing);
                log("stop");
                let last_call = Phase::Refusing.idle_time(drain).unwrap_or_default();
                let last_call = last_call.saturating_sub(handshake_time(drain));
                let _ = tokio::time::timeout(last_call, self.clients_gone()).await;
                self.shut_queue(drain).await;
                self.phase.send_replace(Phase::Leaving);
            }
            ShutdownKind::HandedOver { has_client_socket } => {
                if !has_client_socket {
                    self.shut_queue(drain).await;
                }
                self.phase.send_replace(Phase::HandedOver { has_client_socket });
                log("handed over");
            }
        }
    }

    /// Keeps new clients out of the queue; those whose handshake has begun still join it.
    async fn shut_queue(&self, drain: Duration) {
        if self.sockets.clients.shut() {
            tokio::time::sleep(handshake_time(drain)).await;
        }
    }

    /// Ends when only the accept loops are left.
    async fn clients_gone(&self) {
        while self.present.sender_strong_count() > self.threads.len() {
            tokio::time::sleep(PRESENCE_CHECK_INTERVAL).await;
        }
    }
}

fn thread_count(config: &Config) -> usize {
    match config.gateway.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// "Off" is as many as a semaphore can count.
fn connection_cap(config: &Config) -> usize {
    config.limits.connections.map_or(Semaphore::MAX_PERMITS, |cap| cap.min(Semaphore::MAX_PERMITS))
}

/// A client costs a descriptor, and while its request is forwarded another for the worker.
fn check_open_files(config: &Config) {
    let (Some(allowed), Some(cap)) =
        (sq_shared::process::open_files::raise_limit(), config.limits.connections)
    else {
        return;
    };
    if allowed < 2 * cap as u64 {
        tracing::warn!(
            allowed,
            connections = cap,
            "the limit of open files is too low for limits.connections, which may need two for each: raise it \
             (LimitNOFILE=, ulimit -Hn), or lower limits.connections"
        );
    }
}

fn spawn_proxy_thread(number: usize, listening: Listening, edge: Edge) -> io::Result<JoinHandle<()>> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.event_interval(TASKS_PER_POLL).enable_all().build()?;
    std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
        runtime.block_on(async move {
            let mut phase = edge.phase.clone();
            tokio::spawn(Arc::clone(&edge.upstreams).close_idle(Arc::clone(&edge.directory)));
            match listening.listen() {
                Ok(listener) => edge.accept(listener).await,
                Err(error) => {
                    // A stop must not wait for this thread.
                    drop(edge);
                    tracing::error!(%error, "a proxy thread failed to listen");
                }
            }
            // Connections go on until the server, having waited for them, drops its end.
            while phase.changed().await.is_ok() {}
        });
    })
}

/// How the `ready` line and the `curl` lines name an address.
pub(crate) fn url(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://{}", SocketAddr::from(([127, 0, 0, 1], address.port())))
        }
        ListenAddress::Tcp(address) => format!("http://{address}"),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
