//! `sq-gateway serve`: the gateway alone; and its upgrade, in which one such process takes the place of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sq_shared::clock;
use sq_shared::config::fields::Reader;
use sq_shared::config_source::{ConfigSource, Overrides};
use sq_shared::data_root::DataRoot;
use sq_shared::layout;
use sq_shared::process::failure::Failure;
use sq_shared::process::signals::{self, StopSignal};
use sq_shared::process::{output, service_manager, service_user, successor};

use crate::directory::Directory;
use crate::handover::{self, GiveError, Taken, Taker};
use crate::listen::{Role, Sockets};
use crate::phase::ShutdownKind;
use crate::server::{Server, url};

/// What a change by the admin API has at a stop, after the drain.
const LAST_CHANGE_TIME: Duration = Duration::from_secs(3);

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway serve --config /etc/sq/gateway.toml\n\nUpgrade, without a request lost:\n  \
                        sq-gateway serve --config /etc/sq/gateway.toml --upgrade &\n  kill -QUIT PID-OF-THE-RUNNING-ONE"
)]
pub struct Options {
    /// The config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A file that holds the admin's key, instead of `gateway.admin_key_sha256`: a secret of Docker's, a credential of
    /// systemd's. Read again when it changes.
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    /// Take the listening sockets over from the gateway that runs with this config, once SIGQUIT is sent to it.
    #[arg(long)]
    upgrade: bool,
}

/// Serves until SIGTERM or SIGINT, then drains; or until another process has taken over after SIGQUIT.
///
/// # Errors
/// The config or the registry has mistakes, an address is taken, or there are no sockets to take over.
pub fn run(options: Options) -> Result<(), Failure> {
    let Options { config, admin_key_file, upgrade } = options;
    service_user::act_for_system(&config)?;
    service_user::give_up_root()?;
    service_user::refuse_wrong_user_of(&config)?;
    clock::check()?;
    let source = ConfigSource {
        reader: Reader::Gateway,
        config,
        overrides: Overrides { admin_key_file, ..Overrides::default() },
    };
    on_control_thread(serve(source, upgrade))
}

async fn serve(source: ConfigSource, is_upgrade: bool) -> Result<(), Failure> {
    let mut stop = StopSignal::without_quit().map_err(Failure::from_error)?;
    let waiting = signals::meant_for_the_running_one().map_err(Failure::from_error)?;
    let meeting = layout::handover_socket(&source.config);
    let taken = match is_upgrade {
        false => None,
        true => {
            // What cannot be read fails here, before the running gateway is asked for anything.
            data_root(&Directory::load(&source).map_err(Failure::from_error)?)?;
            tokio::select! {
                taken = handover::take(&meeting) => Some(taken.map_err(Failure::from_error)?),
                _ = stop.received() => return Ok(()),
            }
        }
    };
    let mut asked = Asked {
        quit: signals::quits().map_err(Failure::from_error)?,
        upgrade: signals::upgrades().map_err(Failure::from_error)?,
    };
    drop(waiting);
    let server = start(&source, taken).await?;
    let mut end = ShutdownKind::Stop;
    let until = async { end = ending(&mut stop, &mut asked, &meeting, server.sockets()).await };
    let result = server.run_until(source, until).await;
    server.drain(end).await;
    result.map_err(Failure::from_error)
}

/// Starts on sockets of its own, or on those of the running gateway, which is told.
async fn start(source: &ConfigSource, taken: Option<Taken>) -> Result<Server, Failure> {
    // What was read first may be as old as the wait for the sockets.
    let directory = Directory::load(source).map_err(Failure::from_error)?;
    let data_root = data_root(&directory)?;
    let (handed, giver) = taken.map_or((Vec::new(), None), |taken| (taken.sockets, Some(taken.giver)));
    let sockets = Sockets::take_or_bind(&directory.config, handed).map_err(Failure::from_error)?;
    let roles = sockets.taken.clone();
    let server = Server::start(directory, data_root, sockets).map_err(Failure::from_error)?;
    let Some(giver) = giver else {
        announce(&server);
        return Ok(server);
    };
    if let Err(error) = giver.acknowledge(&roles).await {
        // The old one has its sockets still, and this one may have accepted somebody.
        server.drain(ShutdownKind::HandedOver { has_client_socket: roles.contains(&Role::Clients) }).await;
        return Err(Failure::from_error(error));
    }
    announce(&server);
    let taken: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    tracing::info!(taken = taken.join(", "), "this gateway serves in the place of the one before");
    Ok(server)
}

/// The data root of what was read. Without it nothing is served.
///
/// # Errors
/// It is not there.
pub fn data_root(directory: &Directory) -> Result<DataRoot, Failure> {
    DataRoot::establish_to_serve(&directory.config, &directory.registry).map_err(Failure::from_error)
}

/// The signals that ask for an upgrade.
struct Asked {
    /// A new process is there, or is about to be.
    quit: signals::Signal,
    /// It is to be started.
    upgrade: signals::Signal,
}

impl Asked {
    /// Ends when there is, or soon will be, a process to hand over to.
    async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.quit.recv() => {
                    tracing::info!("SIGQUIT: looking for the gateway that takes over");
                    return;
                }
                _ = self.upgrade.recv() => match successor::start() {
                    Ok(()) => {
                        tracing::info!("SIGUSR2: the gateway that takes over is asked for");
                        return;
                    }
                    Err(error) => tracing::error!(%error, "SIGUSR2: the program cannot be started; serving on"),
                },
            }
        }
    }
}

/// Ends when it is told to stop, or when another process serves on the sockets. While there is none, this one goes on.
async fn ending(stop: &mut StopSignal, asked: &mut Asked, meeting: &Path, sockets: &Sockets) -> ShutdownKind {
    loop {
        let found = async {
            asked.wait().await;
            handover::find_taker(meeting).await
        };
        let taker = tokio::select! {
            biased;
            signal = stop.received() => {
                tracing::info!(signal, "stopping");
                return ShutdownKind::Stop;
            }
            taker = found => taker,
        };
        // From the offer on, no signal is obeyed: the other process is told yes or no first.
        let successor = taker.as_ref().ok().and_then(Taker::pid);
        let given = match taker {
            Ok(taker) => taker.give(sockets).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(taken) => {
                service_manager::handed_over_to(successor, "serving, after an upgrade");
                return ShutdownKind::HandedOver { has_client_socket: taken.contains(&Role::Clients) };
            }
            Err(error) => say_that_it_goes_on(&error),
        }
    }
}

fn say_that_it_goes_on(error: &GiveError) {
    tracing::error!(
        %error,
        "not handed over, and serving on: start `sq-gateway serve --upgrade` with this config, then send SIGQUIT; \
         SIGTERM stops"
    );
}

/// Runs on the control thread to the end; the proxy threads have runtimes of their own. What the admin API still does
/// then has some seconds, and no more: it may be waiting for a lock or for a worker.
///
/// # Errors
/// The system gives no runtime, or what ran has failed.
pub fn on_control_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from_error)?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_CHANGE_TIME);
    result
}

/// What `serve` and `up` say when a request would be answered: in a line, and to the service manager.
pub fn announce(server: &Server) {
    let serving = format!("{} tenants={}", url(server.address()), server.tenant_count());
    output::announce(format_args!("ready {serving}"));
    service_manager::ready(&format!("serving {serving}"));
}
