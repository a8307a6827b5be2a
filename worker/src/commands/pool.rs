//! `sq-worker pool`: the supervisor of the workers.

use std::path::PathBuf;

use sq_shared::config::fields::Reader;
use sq_shared::config::{Config, Enforcement};
use sq_shared::config_source::{ConfigSource, Overrides};
use sq_shared::data_root::DataRoot;
use sq_shared::process::signals::Signals;
use sq_shared::process::telemetry::LogFormat;

use crate::pool::Pool;
use crate::pool::process::Launcher;
use crate::pool::program::Program;
use crate::pool::upgrade::Inherited;
use sq_shared::clock;
use sq_shared::process::failure::Failure;
use sq_shared::process::{open_files, service_user};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-worker pool --config /etc/sq/gateway.toml")]
pub(crate) struct Options {
    /// The config, the same one that the gateway reads.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A registry other than the one that the config names.
    #[arg(long, value_name = "FILE")]
    tenants: Option<PathBuf>,
    /// Stop when standard input ends, so that the pool ends with the program that started it.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Take the sockets over from the pool that runs: start this one, then send SIGQUIT to that one.
    #[arg(long, conflicts_with = "until_stdin_closes")]
    upgrade: bool,
}

/// Runs until it is told to stop; no worker is left behind.
pub(crate) fn run(options: &Options, log_format: LogFormat) -> Result<(), Failure> {
    service_user::act_for_system(&options.config)?;
    if let Some(tenants) = &options.tenants {
        service_user::act_as_owner_of(tenants)?;
    }
    service_user::give_up_root()?;
    service_user::refuse_wrong_user_of(&options.config)?;
    clock::check()?;
    let source = ConfigSource {
        reader: Reader::Pool,
        config: options.config.clone(),
        overrides: Overrides { tenants: options.tenants.clone(), ..Overrides::default() },
    };
    let (config, registry) = source.load().map_err(Failure::from_error)?;
    let data_root = DataRoot::establish_to_serve(&config, &registry).map_err(Failure::from_error)?;
    let program = Program::current().map_err(|error| {
        Failure::Failed(format!(
            "failed to open the workers' program, /proc/self/exe: {error}; is /proc mounted?"
        ))
    })?;
    let launcher = Launcher::new(program, log_format, config.pool.sandbox.unwrap_or(Enforcement::Try));
    note_confinement(&launcher, &config)?;
    // A slot costs up to five descriptors: its socket, and its worker's standard input, standard output and process, which
    // the runtime has open, too.
    open_files::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    let result = runtime.block_on(async {
        let signals =
            if options.until_stdin_closes { Signals::for_owned_pool() } else { Signals::for_upgradable() };
        let mut signals = signals.map_err(Failure::from_error)?;
        let mut inherited = Inherited::default();
        if options.upgrade {
            // Signals but those to stop are meant for the running pool.
            inherited = tokio::select! {
                biased;
                _ = signals.stop() => return Ok(()),
                inherited = Inherited::wait_for_offer(&config.path) => inherited.map_err(Failure::from_error)?,
            };
            signals.drop_upgrades();
        }
        let pool = Pool::start(source, config, &registry, data_root, launcher, inherited, signals).await;
        let pool = pool.map_err(Failure::Failed)?;
        if options.until_stdin_closes {
            pool.stop_when_stdin_closes();
        }
        pool.run().await;
        Ok(())
    });
    // A `stat` on a disk that hangs does not end.
    runtime.shutdown_background();
    result
}

/// Says once, for all the workers to come, what confines them: a trial of it, in a process that ends.
fn note_confinement(launcher: &Launcher, config: &Config) -> Result<(), Failure> {
    let wanted = config.pool.sandbox;
    if wanted == Some(Enforcement::Off) {
        tracing::warn!("workers are NOT confined: [pool] sandbox is off");
        return Ok(());
    }
    let trial = launcher.sandbox_trial(&config.gateway.data_root).output().map_err(Failure::from_error)?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if trial.status.success() {
        tracing::info!("{}", said(&trial.stdout));
        return Ok(());
    }
    let why = format!("{} ({})", said(&trial.stderr), trial.status);
    if wanted == Some(Enforcement::Require) {
        return Err(Failure::Failed(format!(
            "[pool] sandbox = \"require\" is not possible here: {why}; it needs Linux 6.7 with `landlock` in its `lsm=`; \
             \"try\" uses what there is"
        )));
    }
    tracing::warn!("{why}");
    Ok(())
}
