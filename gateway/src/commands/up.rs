//! `sq-gateway up`: gateway, pool and workers on one machine, in the foreground. The gateway runs in this
//! process; the pool is its child, and ends when this process does, however that ends.

use std::path::PathBuf;

use sq_shared::config::ListenAddress;
use sq_shared::failure::Failure;
use sq_shared::layout;
use sq_shared::registry::edit::RegistryEdit;
use sq_shared::registry::{Tenant, TenantState};
use sq_shared::shutdown::StopSignal;
use sq_shared::telemetry::LogFormat;

use super::keys_file::{self, NewKey};
use super::root::{RootOptions, System, create_private_dir};
use super::serve::{control_runtime, ready_line};
use crate::cli::say;
use crate::directory::reload::Source;
use crate::server::{Server, url};
use pool_child::PoolChild;

mod pool_child;

/// Options of `up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway up --root /srv/sq --listen 127.0.0.1:9999 --tenants tenants.json"
)]
pub struct Options {
    #[command(flatten)]
    root: RootOptions,
    /// Where clients come in, instead of the config's address.
    #[arg(long, value_name = "ADDR")]
    listen: Option<ListenAddress>,
    /// The registry, instead of the config's: ours, or any of the old formats.
    #[arg(long, value_name = "FILE")]
    tenants: Option<PathBuf>,
}

/// The tenants of a new root.
const FIRST_TENANTS: [&str; 2] = ["alice", "bob"];

/// Runs until SIGTERM or SIGINT; then drains, and leaves no child behind.
///
/// # Errors
/// Something cannot be made, the config or the registry has mistakes, or an address is taken.
pub fn run(options: &Options, log_format: LogFormat) -> Result<(), Failure> {
    let system = options.root.open_or_create()?;
    let tenants =
        options.tenants.as_ref().map(std::path::absolute).transpose().map_err(Failure::from_error)?;
    let new_keys = match tenants {
        None if !system.config.gateway.tenants.exists() => create_first_tenants(&system)?,
        _ => Vec::new(),
    };
    let source = Source { config: system.config_file, listen: options.listen.clone(), tenants };
    control_runtime()?.block_on(serve(source, &new_keys, log_format))
}

async fn serve(source: Source, new_keys: &[NewKey], log_format: LogFormat) -> Result<(), Failure> {
    let mut stop = StopSignal::new().map_err(Failure::from_error)?;
    let directory = source.load(None).map_err(Failure::from_error)?;
    let pool = PoolChild::start(&source, log_format).await?;
    let server = match Server::start(directory) {
        Ok(server) => server,
        Err(error) => {
            pool.stop().await;
            return Err(Failure::from_error(error));
        }
    };
    for key in new_keys {
        say(curl_line(&server, key));
    }
    say(ready_line(&server));
    let mut pool = pool;
    let until = async {
        tokio::select! {
            signal = stop.received() => tracing::info!(signal, "stopping"),
            () = pool.keep_alive(&source, log_format) => {}
        }
    };
    let result = server.run_until(source.clone(), until).await;
    server.drain().await;
    pool.stop().await;
    result.map_err(Failure::from_error)
}

fn curl_line(server: &Server, key: &NewKey) -> String {
    let (url, tenant, token) = (url(server.address()), &key.tenant, key.token.expose());
    format!(
        "curl -H \"Authorization: Bearer {token}\" \"{url}/api/v2/update?p=hello&c={tenant}.1.1.1/1.1.1/1.1.1&s=Hello+{tenant}\""
    )
}

fn create_first_tenants(system: &System) -> Result<Vec<NewKey>, Failure> {
    let config = &system.config;
    let mut registry = RegistryEdit::open(&config.gateway.tenants, config).map_err(Failure::from_error)?;
    let mut keys = Vec::new();
    for (name, port) in FIRST_TENANTS.into_iter().zip(config.gateway.slots.clone()) {
        let (key, entry) = NewKey::generate(name, port, "k1".to_owned()).map_err(Failure::from_error)?;
        let name = name.parse().map_err(Failure::from_error)?;
        let state = TenantState::Active;
        let tenant =
            Tenant { name, port, state, plan: None, quota_bytes: None, data_dir: None, keys: vec![entry] };
        create_private_dir(&layout::tenant_dir(&config.gateway.data_root, &tenant))
            .map_err(Failure::from_error)?;
        registry.add(&tenant);
        keys.push(key);
    }
    keys_file::append(&system.keys_file, &keys).map_err(Failure::from_error)?;
    registry.commit(config).map_err(Failure::from_error)?;
    Ok(keys)
}
