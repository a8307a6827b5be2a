//! `sq-worker serve`: one tenant's worker, alone or as a child of the pool.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use sq_shared::config::{Enforcement, ListenAddress};
use sq_shared::process::signals::{self, Signals};
use sq_shared::registry::{Key, Scope};
use sq_shared::tenant::TenantName;
use sq_shared::token::{BearerToken, TokenDigest};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::commands::inherited_socket;
use crate::sandbox::{self, Confinement};
use crate::server::settings_reader::SettingsReader;
use crate::server::worker::{Access, Worker};
use crate::server::{self, ExitReason};
use crate::settings::{EXIT_DISPLACED, MissingData};
use crate::store::{DataDirectory, Limits, LoopTick, OpenError, Store};
use sq_shared::limits::COORDINATE_PART;
use sq_shared::listen_error::{self, Settings};
use sq_shared::process::failure::Failure;
use sq_shared::process::{output, service_user};
use sq_shared::{clock, file_owner};

/// The first slot's port, where a worker that is started alone listens unless told otherwise.
const DEFAULT_PORT: u16 = 1341;

/// The longest body of a worker that is started alone: the gateway's default.
const BODY_BYTES: u64 = 64 * 1024 * 1024;

/// What a worker that is started alone may keep of its phexts in memory: the pool's default.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// How many phexts it may have: the gateway's default.
const PHEXTS: usize = 100_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  SQ_KEY=secret sq-worker serve --data-dir ./notes --listen 127.0.0.1:1341
  curl -H 'Authorization: Bearer secret' 'http://127.0.0.1:1341/api/v2/toc?p=notes'")]
pub(crate) struct Options {
    /// The tenant's directory; made when it is missing, unless the pool has started this worker.
    #[arg(long, env = "SQ_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Refuse every command, because this is missing; the pool uses this, when there is no directory to serve.
    #[arg(long, value_name = "WHAT", requires = "settings_from_stdin", hide = true)]
    stand_in: Option<MissingData>,
    /// The tenant's name, which may stand in front of a coordinate and stands in the logs.
    #[arg(long, env = "SQ_TENANT", value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Where to listen [default: 127.0.0.1, on the port in SQ_PORT or 1341]. A socket that systemd passes
    /// on (LISTEN_FDS, LISTEN_PID) comes first.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A key that may read and write; may be given more than once. Better in the environment, where
    /// other users do not see it.
    #[arg(long, env = "SQ_KEY", hide_env_values = true, value_name = "KEY", value_parser = GivenKey::parse)]
    key: Vec<GivenKey>,
    /// Serve every client without a key; only on a loopback address.
    #[arg(long, conflicts_with = "settings_from_stdin")]
    no_auth: bool,
    /// Take keys and limits from standard input, a line of JSON each time; the pool uses this.
    #[arg(long)]
    settings_from_stdin: bool,
    /// How far the worker locks itself in before it serves: `require` refuses to start where the kernel cannot
    /// do all of it, `try` does what it can and says what is missing [default: try].
    #[arg(long, value_name = "require|try|off")]
    sandbox: Option<Enforcement>,
}

/// A key from the command line. The key itself is forgotten at once; whether it was one is said later,
/// because the message of a failed option shows its value.
#[derive(Debug, Clone)]
struct GivenKey(Option<TokenDigest>);

impl GivenKey {
    #[expect(clippy::unnecessary_wraps, reason = "the form that the command line's parser wants")]
    fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(Self(BearerToken::parse(text.as_bytes()).ok().map(|token| token.digest())))
    }
}

/// What a worker that stands in has for a directory: nothing in it can be changed, and it leads nowhere.
const NO_DIRECTORY: &str = "/proc/self/fdinfo";

/// Locks itself in, then serves until it is told to stop. Gives the exit code.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    // Started through a descriptor, as the pool does it, a process is called after the descriptor's number.
    rustix::thread::set_name(c"sq-worker").map_err(Failure::from_error)?;
    // `try` logs whether it works. The pool has tried what it passes to its workers.
    let enforcement = options.sandbox.unwrap_or(Enforcement::Try);
    let inherited = inherited_socket::sockets(options.settings_from_stdin)?;
    if enforcement != Enforcement::Off {
        sandbox::close_inherited(inherited.len() > 0).map_err(Failure::from_error)?;
    }
    clock::check()?;
    let access = if options.settings_from_stdin { None } else { Some(access(&options)?) };
    let listener = match inherited_socket::listener(inherited)? {
        Some(listener) => listener,
        None => bind(&options)?,
    };
    let address = listener.local_addr().map_err(Failure::from_error)?;
    if options.no_auth && !address.ip().is_loopback() {
        return Err(not_loopback(address));
    }
    if !options.settings_from_stdin {
        // The pool has seen to it. The address may be one that only root gets.
        act_as_owner(&options.data_dir)?;
    }
    let Some(directory) = open_directory(&options)? else { return Ok(ExitCode::from(EXIT_DISPLACED)) };
    // Its flags are the pool's too, so that they cannot be changed from inside.
    listener.set_nonblocking(true).map_err(Failure::from_error)?;
    if options.settings_from_stdin {
        sandbox::prefer_for_oom_kill();
    }
    // Known only from outside the walls. The pool stops its workers itself.
    let ends_with_terminal = !options.settings_from_stdin && signals::ends_with_terminal();
    let tick = LoopTick::default();
    let (confinement, runtime) =
        sandbox::confine(directory.as_fd(), enforcement, || runtime(&tick)).map_err(Failure::from_error)?;
    // Hundreds of workers write to one log.
    let _span = options.tenant.as_ref().map(|tenant| tracing::error_span!("worker", %tenant).entered());
    // From here on nothing can be opened but what is in the directory.
    let mut serving = pin!(async {
        let signals = Signals::for_worker(ends_with_terminal).map_err(Failure::from_error)?;
        let (worker, pool) = match access {
            Some(access) => (alone(&options, directory, tick.clone(), access)?, None),
            None => match pool_worker(&options, directory, tick.clone()).await? {
                Some((worker, pool)) => (worker, Some(pool)),
                None => return Ok(ExitReason::Displaced),
            },
        };
        match pool {
            Some(_) => tracing::debug!("confined: {confinement}"),
            None => {
                note_confinement(&confinement);
                output::announce(format_args!("ready http://{address}"));
            }
        }
        server::run(listener, Rc::new(worker), pool, signals).await.map_err(Failure::from_error)
    });
    // When this is due, the runtime does not park: it asks for news in passing, and comes here before it serves them.
    let ending = runtime.block_on(poll_fn(|context| {
        tick.end();
        serving.as_mut().poll(context)
    }));
    match ending? {
        ExitReason::Stopped => Ok(ExitCode::SUCCESS),
        ExitReason::Displaced if options.settings_from_stdin => Ok(ExitCode::from(EXIT_DISPLACED)),
        ExitReason::Displaced => Err(Failure::Failed(format!(
            "{} was removed or replaced while it was served; put it back, and start this again",
            options.data_dir.display()
        ))),
    }
}

/// What is made in the directory is its owner's to use. Where that user's link leads to a directory of another's, it is not
/// served, even if the user might read it.
fn act_as_owner(data_dir: &Path) -> Result<(), Failure> {
    if let Ok(directory) = rustix::fs::open(data_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        service_user::refuse_foreign(data_dir, &directory.into())
            .map_err(|source| OpenError::Io { path: data_dir.to_owned(), source })
            .map_err(Failure::from_error)?;
    }
    service_user::act_as_owner_of(data_dir)?;
    service_user::give_up_root()?;
    Ok(file_owner::refuse_wrong_user(&[data_dir])?)
}

/// The directory to serve; `None` when it is missing or not to be used, and the pool says so.
fn open_directory(options: &Options) -> Result<Option<DataDirectory>, Failure> {
    let opened = match options.stand_in {
        Some(_) => DataDirectory::open_existing(Path::new(NO_DIRECTORY)),
        None if options.settings_from_stdin => DataDirectory::open_existing(&options.data_dir),
        None => DataDirectory::open(&options.data_dir),
    };
    match opened {
        Err(error)
            if is_for_the_pool(&error) && options.settings_from_stdin && options.stand_in.is_none() =>
        {
            Ok(None)
        }
        opened => opened.map(Some).map_err(Failure::from_error),
    }
}

/// Whether the pool finds out by itself what is wrong with the directory, and has the tenant told.
fn is_for_the_pool(error: &OpenError) -> bool {
    let is_denied =
        matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    error.is_missing() || is_denied
}

/// One thread, and others for what waits for the disk once there is any of that.
fn runtime(tick: &LoopTick) -> io::Result<LocalRuntime> {
    let tick = tick.clone();
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || tick.end())
        .build_local(LocalOptions::default())
}

fn note_confinement(confinement: &Confinement) {
    if confinement.is_complete() {
        tracing::info!("confined: {confinement}");
    } else {
        tracing::warn!("NOT all confined: {confinement}");
    }
}

fn alone(
    options: &Options,
    directory: DataDirectory,
    tick: LoopTick,
    access: Access,
) -> Result<Worker, Failure> {
    let limits = Limits {
        quota_bytes: None,
        phexts: Some(PHEXTS),
        coordinate: Some(COORDINATE_PART),
        memory_bytes: MEMORY_BYTES,
    };
    let store = Store::open(directory, limits).map_err(Failure::from_error)?;
    let store = store.with_loop_tick(tick).with_read_jobs();
    Ok(Worker::standalone(options.tenant.clone(), store, access, Some(BODY_BYTES)))
}

async fn pool_worker(
    options: &Options,
    directory: DataDirectory,
    tick: LoopTick,
) -> Result<Option<(Worker, SettingsReader)>, Failure> {
    let fail = |error| Failure::Failed(format!("--settings-from-stdin: {error}"));
    let mut pool = SettingsReader::from_stdin().map_err(fail)?;
    let settings = pool.next().await.map_err(fail)?.ok_or_else(|| {
        Failure::Failed("--settings-from-stdin: standard input ended before the first line".into())
    })?;
    let tenant = options.tenant.clone();
    if let Some(missing) = options.stand_in {
        return Ok(Some((Worker::without_data(tenant, missing, settings), pool)));
    }
    let id = directory.id().map_err(Failure::from_error)?;
    if settings.directory.is_some_and(|at_path| at_path != id) {
        return Ok(None);
    }
    let store = Store::open(directory, Limits::from(&settings)).map_err(Failure::from_error)?;
    let store = store.with_loop_tick(tick).with_read_jobs();
    Ok(Some((Worker::for_pool(tenant, store, settings).with_directory(id), pool)))
}

/// Who may ask a worker that is started alone.
fn access(options: &Options) -> Result<Access, Failure> {
    if let Some(address) = options.listen.filter(|address| options.no_auth && !address.ip().is_loopback()) {
        return Err(not_loopback(address));
    }
    let digests: Option<Vec<TokenDigest>> = options.key.iter().map(|key| key.0).collect();
    let digests = digests.ok_or_else(|| {
        Failure::Usage("a key (--key or SQ_KEY) is 1 to 512 visible ASCII characters".into())
    })?;
    match (digests.is_empty(), options.no_auth) {
        (true, true) => Ok(Access::Open),
        (false, true) => {
            Err(Failure::Usage("--no-auth and a key (--key or SQ_KEY) exclude each other: drop one".into()))
        }
        (true, false) => Err(Failure::Usage(
            "without a key, any client could read and write: set SQ_KEY, or give --key KEY, \
             or --no-auth to serve this machine alone"
                .into(),
        )),
        (false, false) => Ok(Access::Keys(digests.into_iter().zip(1..).map(given_key).collect())),
    }
}

fn given_key((sha256, number): (TokenDigest, u32)) -> Key {
    Key { id: format!("k{number}"), sha256, scope: Scope::Write, expires_s: None }
}

/// A socket of our own.
fn bind(options: &Options) -> Result<TcpListener, Failure> {
    let address = match options.listen {
        Some(address) => address,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, port_from_environment()?)),
    };
    TcpListener::bind(address).map_err(|error| {
        let settings = Settings::one("it with --listen ADDR");
        Failure::Failed(listen_error::explain(&ListenAddress::Tcp(address), &error, settings))
    })
}

fn port_from_environment() -> Result<u16, Failure> {
    match std::env::var("SQ_PORT") {
        Err(std::env::VarError::NotPresent) => Ok(DEFAULT_PORT),
        port => port
            .ok()
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| Failure::Usage("SQ_PORT is a port number from 0 to 65535".into())),
    }
}

fn not_loopback(address: SocketAddr) -> Failure {
    Failure::Usage(format!(
        "--no-auth is refused on {address}, which is not loopback: listen on 127.0.0.1, or set SQ_KEY"
    ))
}
