//! `sq-gateway serve`: the gateway alone, and its upgrade.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use sq_shared::clock;
use sq_shared::config::fields::Reader;
use sq_shared::config_source::{ConfigSource, Overrides};
use sq_shared::data_root::DataRoot;
use sq_shared::layout;
use sq_shared::process::failure::Failure;
use sq_shared::process::signals::{Signal, Signals};
use sq_shared::process::upgrade::{OfferError, Successor, find_successor, launch};
use sq_shared::process::{output, service_manager, service_user};

use crate::directory::Directory;
use crate::listen::{Role, Sockets};
use crate::phase::ShutdownKind;
use crate::server::{Server, url};
use crate::upgrade::{self, Offered};

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
    let mut signals = Signals::for_upgradable().map_err(Failure::from_error)?;
    let path = layout::gateway_upgrade_socket(&source.config);
    let mut offered = None;
    if is_upgrade {
        // What cannot be read fails here, before the running gateway is asked for anything.
        data_root(&Directory::load(&source).map_err(Failure::from_error)?)?;
        // Signals but those to stop are meant for the running gateway: a script may send them to every process of the name.
        offered = tokio::select! {
            biased;
            _ = signals.stop() => return Ok(()),
            offered = upgrade::wait_for_offer(&path) => Some(offered.map_err(Failure::from_error)?),
        };
        signals.drop_upgrades();
    }
    let server = start(&source, offered, &mut signals).await?;
    let mut end = ShutdownKind::Stop;
    let until = async { end = until_end(&mut signals, &path, &server).await };
    let result = server.run_until(source, until).await;
    server.drain(end, &mut signals).await;
    result.map_err(Failure::from_error)
}

/// Starts on new sockets, or on those of the running gateway.
async fn start(
    source: &ConfigSource,
    offered: Option<Offered>,
    signals: &mut Signals,
) -> Result<Server, Failure> {
    // What was read first may be as old as the wait for the sockets.
    let directory = Directory::load(source).map_err(Failure::from_error)?;
    let data_root = data_root(&directory)?;
    let (inherited, predecessor) =
        offered.map_or((Vec::new(), None), |offered| (offered.sockets, Some(offered.predecessor)));
    let sockets = Sockets::take_or_bind(&directory.config, inherited).map_err(Failure::from_error)?;
    let roles = sockets.taken.clone();
    let server = Server::start(directory, data_root, sockets).map_err(Failure::from_error)?;
    let Some(predecessor) = predecessor else {
        announce(&server);
        return Ok(server);
    };
    if let Err(error) = predecessor.accept(&roles).await {
        // The running gateway has the sockets still, and this one may have accepted connections.
        let end = ShutdownKind::HandedOver { has_client_socket: roles.contains(&Role::Clients) };
        server.drain(end, signals).await;
        return Err(Failure::from_error(error));
    }
    announce(&server);
    let sockets: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    tracing::info!(
        sockets = sockets.join(", "),
        "upgraded: this gateway serves on the sockets of the one before"
    );
    Ok(server)
}

/// The data root of what was read. Without it nothing is served.
pub(super) fn data_root(directory: &Directory) -> Result<DataRoot, Failure> {
    DataRoot::establish_to_serve(&directory.config, &directory.registry).map_err(Failure::from_error)
}

/// Obeys signals until one stops this gateway, or a new one has taken over. While there is no new one, this one goes on.
async fn until_end(signals: &mut Signals, path: &Path, server: &Server) -> ShutdownKind {
    let mut search: Option<Pin<Box<_>>> = None;
    loop {
        let found = async {
            match &mut search {
                Some(search) => search.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    return ShutdownKind::Stop;
                }
                Signal::Reload => server.reload(),
                Signal::Upgrade | Signal::HandOff if search.is_some() => {
                    tracing::warn!("an upgrade is already under way; signal ignored");
                }
                Signal::Upgrade if !launch() => {}
                Signal::Upgrade | Signal::HandOff => {
                    tracing::info!("looking for the new gateway");
                    search = Some(Box::pin(find_successor(path)));
                }
            },
            successor = found => {
                search = None;
                if let Some(end) = hand_off(successor, &server.sockets).await {
                    return end;
                }
            }
        }
    }
}

/// Hands the sockets to the new gateway. No signal is obeyed meanwhile: the new gateway is told the decision first.
async fn hand_off(successor: Result<Successor, OfferError>, sockets: &Sockets) -> Option<ShutdownKind> {
    let offered = async {
        let successor = successor?;
        let pid = successor.pid;
        Ok((pid, upgrade::offer(successor, sockets).await?))
    };
    match offered.await {
        Ok((pid, taken)) => {
            service_manager::upgraded_to(pid, "serving, after an upgrade");
            Some(ShutdownKind::HandedOver { has_client_socket: taken.contains(&Role::Clients) })
        }
        Err::<_, OfferError>(error) => {
            tracing::error!(
                %error,
                "not upgraded, serving on: start `sq-gateway serve --upgrade` with this config, then send SIGQUIT; SIGTERM \
                 stops"
            );
            None
        }
    }
}

/// Runs on the control thread to the end; each proxy thread has its own runtime. What the admin API still does at the end
/// has a few seconds: it may be waiting for a lock or for a worker.
pub(super) fn on_control_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from_error)?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_CHANGE_TIME);
    result
}

/// What `serve` and `up` say when a request would be answered: in a line, and to the service manager.
pub(super) fn announce(server: &Server) {
    let serving = format!("{} tenants={}", url(&server.address), server.tenant_count());
    output::announce(format_args!("ready {serving}"));
    service_manager::ready(&format!("serving {serving}"));
}
