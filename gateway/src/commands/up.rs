//! `sq-gateway up`: gateway, pool and workers on one machine, in the foreground. The gateway runs in this
//! process; the pool is its child, and ends when this process does, however that ends.

use std::path::PathBuf;

use sq_shared::clock;
use sq_shared::config::ListenAddress;
use sq_shared::config::fields::Reader;
use sq_shared::config_source::{ConfigSource, Overrides};
use sq_shared::data_root::DataRoot;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{self, note};
use sq_shared::process::service_user;
use sq_shared::process::signals::{Signal, Signals};
use sq_shared::process::telemetry::LogFormat;
use sq_shared::registry::TenantState;
use sq_shared::registry::edit::RegistryEdit;

use super::serve::{announce, data_root, on_control_thread};
use super::system::{System, SystemOptions};
use crate::directory::Directory;
use crate::listen::Sockets;
use crate::phase::ShutdownKind;
use crate::server::{Server, url};
use crate::tenants::find_registry;
use crate::tenants::keys_file::{KeysOut, NewKey};
use crate::tenants::new_tenants::{NewTenants, TenantSettings};
use pool_child::PoolChild;

mod pool_child;

/// Options of `up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway up --root /srv/sq --listen 127.0.0.1:9999 --tenants tenants.json"
)]
pub struct Options {
    #[command(flatten)]
    root: SystemOptions,
    /// Where clients come in, instead of the config's address.
    #[arg(long, value_name = "ADDR")]
    listen: Option<ListenAddress>,
    /// The registry, instead of the config's: ours, or any of the old formats.
    #[arg(long, value_name = "FILE")]
    tenants: Option<PathBuf>,
}

/// The tenants of a new root.
const FIRST_TENANTS: [&str; 2] = ["alice", "bob"];

/// Runs until SIGTERM, SIGINT or SIGQUIT (the pool is its child, and goes with it); then drains, and leaves no child behind.
///
/// # Errors
/// Something cannot be made, the config or the registry has mistakes, or an address is taken.
pub fn run(options: &Options, log_format: LogFormat) -> Result<(), Failure> {
    clock::check()?;
    let system = options.root.open_or_create()?;
    let tenants =
        options.tenants.as_ref().map(std::path::absolute).transpose().map_err(Failure::from_error)?;
    if let Some(tenants) = &tenants {
        service_user::act_as_owner_of(tenants)?;
    }
    let new_keys = match tenants {
        None if !find_registry(&system.config, &system.keys_file)? => create_first_tenants(&system)?,
        _ => Vec::new(),
    };
    if new_keys.is_empty() && system.keys_file.exists() {
        note(format_args!("the keys that `up` and `provision` made are in {}", system.keys_file.display()));
    }
    let overrides = Overrides { listen: options.listen.clone(), tenants, admin_key_file: None };
    let source = ConfigSource { reader: Reader::Gateway, config: system.config.path, overrides };
    service_user::give_up_root()?;
    on_control_thread(serve(source, &new_keys, log_format))
}

async fn serve(source: ConfigSource, new_keys: &[NewKey], log_format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::for_pool_owner().map_err(Failure::from_error)?;
    let directory = Directory::load(&source).map_err(Failure::from_error)?;
    let data_root = data_root(&directory)?;
    let mut pool = PoolChild::new(source.clone(), log_format)?;
    let result = tokio::select! {
        started = pool.start() => match started {
            Ok(()) => serve_with_pool(source, (directory, data_root), new_keys, &mut pool, &mut signals).await,
            Err(failure) => Err(failure),
        },
        signal = signals.stop() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
    };
    pool.stop().await;
    result
}

async fn serve_with_pool(
    source: ConfigSource,
    (directory, data_root): (Directory, DataRoot),
    new_keys: &[NewKey],
    pool: &mut PoolChild,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let sockets = Sockets::bind(&directory.config).map_err(Failure::from_error)?;
    let server = Server::start(directory, data_root, sockets).map_err(Failure::from_error)?;
    for key in new_keys {
        output::announce(curl_line(&server, key));
    }
    announce(&server);
    let until = async {
        tokio::select! {
            () = until_stopped(signals, &server) => {}
            () = pool.keep_alive() => {}
        }
    };
    let result = server.run_until(source, until).await;
    server.drain(ShutdownKind::Stop, signals).await;
    result.map_err(Failure::from_error)
}

async fn until_stopped(signals: &mut Signals, server: &Server) {
    loop {
        match signals.next().await {
            Signal::Stop(signal) => return tracing::info!(signal, "stopping"),
            Signal::Reload => server.reload(),
            // `up` is not upgraded: its pool would go with it.
            Signal::Upgrade | Signal::HandOff => {}
        }
    }
}

fn curl_line(server: &Server, key: &NewKey) -> String {
    let (url, tenant, token) = (url(&server.address), &key.tenant, key.token.expose());
    format!(
        "curl -H \"Authorization: Bearer {token}\" \"{url}/api/v2/update?p=hello&c={tenant}.1.1.1/1.1.1/1.1.1&s=Hello+{tenant}\""
    )
}

fn create_first_tenants(system: &System) -> Result<Vec<NewKey>, Failure> {
    let config = &system.config;
    let registry = RegistryEdit::open(&config.gateway.tenants, config).map_err(Failure::from_error)?;
    let names = FIRST_TENANTS.into_iter().map(|name| name.parse().map_err(Failure::from_error));
    let mut tenants = NewTenants::new(config, registry);
    let settings = TenantSettings { state: TenantState::Active, plan: None, quota_bytes: None };
    let keys = tenants.add(names.collect::<Result<_, _>>()?, &settings)?;
    tenants.refuse_used_directories()?;
    tenants.commit(&keys, &KeysOut::File(system.keys_file.clone()), || ())?;
    Ok(keys)
}
