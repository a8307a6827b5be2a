//! Starts the gateway and stops it: one control thread for signals, reload and housekeeping, and the proxy
//! threads, each with a runtime of its own that steals no work (22 µs of CPU a request here, against 28 with
//! work stealing).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use sq_shared::config::{Config, ListenAddress};
use sq_shared::layout;
use sq_shared::limits::CLIENT_BACKLOG;
use tokio::sync::{Semaphore, watch};

use crate::audit::{AuditError, AuditLog, AuditWriter};
use crate::directory::reload::{Source, keep_current};
use crate::directory::{Directory, SharedDirectory};
use crate::edge::{Edge, Listener};
use crate::proxy::Gateway;

/// How often the limiters forget the addresses that have their full count again; governor never does by itself.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// How soon they do so when no place is left for a newcomer, which only an attack brings about. A sweep takes some
/// milliseconds, on the control thread.
const FORGET_INTERVAL_WHEN_FULL: Duration = Duration::from_secs(1);

/// Idle connections to workers, over all of them; the least recently used is closed first.
const UPSTREAM_IDLE_CONNECTIONS: usize = 2048;

/// What the audit log's disk has at a stop, however long the last requests took.
const AUDIT_STOP_TIME: Duration = Duration::from_secs(1);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}; is another gateway running?")]
    Bind(ListenAddress, io::Error),
    /// There is no audit log, and the config insists on one.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The system gives no thread or no runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A bound socket, before the threads share it.
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A gateway that serves.
pub struct Server {
    directory: SharedDirectory,
    address: ListenAddress,
    connections: Arc<Semaphore>,
    connection_cap: u32,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    audit_writer: Option<AuditWriter>,
}

impl Server {
    /// Binds the address and starts the proxy threads.
    ///
    /// # Errors
    /// The address is taken, or the system gives no thread.
    pub fn start(directory: Directory) -> Result<Self, StartError> {
        let config = directory.config.clone();
        let listen = &config.gateway.listen;
        let bound = Bound::bind(listen).map_err(|error| StartError::Bind(listen.clone(), error))?;
        let (audit, audit_writer) = AuditLog::start(config.gateway.audit, &layout::audit_log(&config.path))?;
        let address = bound.address(listen)?;
        let directory: SharedDirectory = Arc::new(ArcSwap::from_pointee(directory));
        let connection_cap = connection_cap(&config);
        check_open_files(&config);
        let (stop, stopping) = watch::channel(false);
        let edge = Edge {
            proxy: Arc::new(http_proxy(
                &Arc::new(pingora_conf(&config)),
                Gateway::new(Arc::clone(&directory), audit),
            )),
            directory: Arc::clone(&directory),
            connections: Arc::new(Semaphore::new(connection_cap as usize)),
            stopping,
        };
        let connections = Arc::clone(&edge.connections);
        let mut threads = Vec::new();
        for number in 0..thread_count(&config) {
            threads.push(spawn_proxy_thread(number, bound.try_clone()?, edge.clone())?);
        }
        Ok(Self { directory, address, connections, connection_cap, stop, threads, audit_writer })
    }

    /// Where clients reach it; with port 0 in the config, the port that the system chose.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// How many tenants it knows now.
    pub fn tenant_count(&self) -> usize {
        self.directory.load().tenant_count()
    }

    /// Serves until `until` ends, keeping the snapshot current meanwhile.
    ///
    /// # Errors
    /// SIGHUP cannot be taken over.
    pub async fn run_until(&self, source: Source, until: impl Future<Output = ()>) -> io::Result<()> {
        tokio::select! {
            () = until => Ok(()),
            result = keep_current(source, Arc::clone(&self.directory)) => result,
            () = self.forget_idle_addresses() => Ok(()),
        }
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

    /// Stops accepting, waits for what is in flight and then for the audit log's disk, for `timeouts.drain` at most,
    /// and ends the threads.
    pub async fn drain(self) {
        let limit = self.directory.load().config.timeouts.drain;
        tracing::info!(limit_s = limit.as_secs_f32(), "draining");
        let _ = self.stop.send(true);
        let deadline = tokio::time::Instant::now() + limit;
        let all = self.connections.acquire_many(self.connection_cap);
        if tokio::time::timeout_at(deadline, all).await.is_err() {
            tracing::warn!("some requests were still in flight, and are cut off");
        }
        self.connections.close();
        drop(self.stop);
        for thread in self.threads {
            let _ = thread.join();
        }
        // The threads took the last requests with them, and those have left their lines.
        if let Some(writer) = self.audit_writer {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            writer.stop(left.max(AUDIT_STOP_TIME)).await;
        }
        if let ListenAddress::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn pingora_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: thread_count(config),
        upstream_keepalive_pool_size: UPSTREAM_IDLE_CONNECTIONS,
        max_retries: crate::proxy::repeat::MOST_ATTEMPTS as usize,
        ..ServerConf::default()
    }
}

fn thread_count(config: &Config) -> usize {
    match config.gateway.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// "Off" is what a semaphore can count.
fn connection_cap(config: &Config) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    config.limits.connections.map_or(most, |cap| u32::try_from(cap).unwrap_or(most).min(most))
}

/// A client costs a descriptor, and while its request is forwarded another for the worker.
fn check_open_files(config: &Config) {
    let (Some(allowed), Some(cap)) = (sq_shared::open_files::raise_limit(), config.limits.connections) else {
        return;
    };
    if allowed < 2 * cap as u64 {
        tracing::warn!(
            allowed,
            connections = cap,
            "so many open files are fewer than limits.connections may need, two for each: raise the limit \
             (LimitNOFILE=, ulimit -Hn), or lower limits.connections"
        );
    }
}

fn spawn_proxy_thread(number: usize, bound: Bound, edge: Edge) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
        runtime.block_on(async move {
            let mut stopped = edge.stopping.clone();
            match bound.listen() {
                Ok(listener) => edge.accept(listener).await,
                Err(error) => tracing::error!(%error, "a proxy thread cannot listen"),
            }
            // Connections go on until the server, having waited for them, drops its end.
            while stopped.changed().await.is_ok() {}
        });
    })
}

impl Bound {
    fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                // The standard library asks for 128: a crowd that comes at once would keep others waiting for the
                // second after which their kernel tries again.
                rustix::net::listen(&listener, CLIENT_BACKLOG)?;
                Ok(Self::Tcp(listener))
            }
            ListenAddress::Unix(path) => {
                remove_dead_socket(path)?;
                std::os::unix::net::UnixListener::bind(path).map(Self::Unix)
            }
        }
    }

    fn address(&self, configured: &ListenAddress) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_) => Ok(configured.clone()),
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }

    fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Listener::Tcp)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Listener::Unix)
            }
        }
    }
}

/// A socket file that nobody listens on is left over from a gateway that was killed.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() { std::fs::remove_file(path) } else { Ok(()) }
}

/// How the `ready` line and the `curl` lines name an address.
pub fn url(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://{}", SocketAddr::from(([127, 0, 0, 1], address.port())))
        }
        ListenAddress::Tcp(address) => format!("http://{address}"),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
