//! `sq-gateway serve`: the gateway alone.

use std::path::PathBuf;

use sq_shared::failure::Failure;
use sq_shared::shutdown::StopSignal;

use crate::cli::say;
use crate::directory::reload::Source;
use crate::server::{Server, url};

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway serve --config /etc/sq/gateway.toml")]
pub struct Options {
    /// The config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// The config or the registry has mistakes, or the address is taken.
pub fn run(options: Options) -> Result<(), Failure> {
    let source = Source { config: options.config, listen: None, tenants: None };
    let directory = source.load(None).map_err(Failure::from_error)?;
    let runtime = control_runtime()?;
    runtime.block_on(async {
        let mut stop = StopSignal::new().map_err(Failure::from_error)?;
        let server = Server::start(directory).map_err(Failure::from_error)?;
        say(ready_line(&server));
        let until = async {
            let signal = stop.received().await;
            tracing::info!(signal, "stopping");
        };
        server.run_until(source, until).await.map_err(Failure::from_error)?;
        server.drain().await;
        Ok(())
    })
}

/// The runtime of the control thread; the proxy threads have their own.
///
/// # Errors
/// The system gives none.
pub fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from_error)
}

/// What `serve` and `up` print when a request would be answered.
pub fn ready_line(server: &Server) -> String {
    format!("ready {} tenants={}", url(server.address()), server.tenant_count())
}
