//! A system is a config and the files it names: the registry, the keys' CSV and the data root. A root is a folder with all
//! of them: `gateway.toml`, `tenants.toml`, `keys.csv`, `data/`. Commands create what is missing in it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sq_shared::config::Config;
use sq_shared::file_lock::lock_within;
use sq_shared::process::failure::Failure;
use sq_shared::process::service_user;
use sq_shared::secret_file::{PublishError, Replacement};
use sq_shared::token::BearerToken;
use sq_shared::{file_error, file_owner, layout, regular_file, secret_file};

use crate::tenants::keys_file::{ADMIN, KeysOut, NewKey};

/// The config of a new root: the documented sample, with a new admin key's digest.
const SAMPLE_CONFIG: &str = include_str!("../../../config/gateway.toml");

/// The placeholder for the digest in the sample.
const SAMPLE_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// How long another command may take to create the config.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The system to work on, `./sq-data` by default.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SystemOptions {
    /// The folder that holds the whole system.
    #[arg(long, value_name = "DIR", default_value = "./sq-data")]
    root: PathBuf,
    /// The config, if it is not DIR/gateway.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// An existing system, named by one of two options or not at all.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub(super) struct NamedSystem {
    /// The folder that holds the whole system; the config is its gateway.toml.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The config; it names the registry.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl NamedSystem {
    /// The system's config; `None` when no system was named.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| self.root.as_deref().map(layout::config_file))
    }
}

/// A system that a command sets up.
pub(super) struct System {
    pub config: Config,
    /// `keys.csv` beside the config.
    pub keys_file: PathBuf,
    /// This command has created the config, and the key of the admin API with it.
    pub is_new: bool,
}

impl SystemOptions {
    /// Reads the config of an existing system.
    pub(super) fn open(&self) -> Result<Config, Failure> {
        let config_file = self.config_file();
        service_user::act_as_owner_of(&config_file)?;
        if !config_file.exists() {
            let shown = config_file.display();
            return Err(Failure::Failed(format!(
                "{shown} does not exist; create it with `sq-gateway up`, or name yours with --config FILE or --root DIR"
            )));
        }
        load(&config_file)
    }

    /// Reads the config, and creates it first if it is missing in the root. A config named by --config must exist.
    pub(super) fn open_or_create(&self) -> Result<System, Failure> {
        let (config_file, mut is_new) = (self.config_file(), false);
        service_user::act_as_owner_of(&config_file)?;
        if self.config.is_none() {
            file_owner::refuse_wrong_user(&[&self.root, &config_file])?;
            is_new = create_if_missing(&self.root, &config_file)?;
        }
        let config = load(&config_file)?;
        file_owner::refuse_wrong_user(&[&config.gateway.data_root, &config.gateway.tenants])?;
        let keys_file = layout::keys_file(config_file.parent().unwrap_or(Path::new(".")));
        Ok(System { config, keys_file, is_new })
    }

    /// Acts as the system's owner, as far as there is one yet.
    pub(super) fn act_as_owner(&self) -> Result<(), Failure> {
        let config_file = std::path::absolute(self.config_file()).map_err(Failure::from_error)?;
        Ok(service_user::act_for_system(&config_file)?)
    }

    fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| layout::config_file(&self.root))
    }
}

fn load(config_file: &Path) -> Result<Config, Failure> {
    let config_file = std::path::absolute(config_file).map_err(Failure::from_error)?;
    service_user::act_for_system(&config_file)?;
    Config::load(&config_file).map_err(Failure::from_error)
}

/// Whether the config was missing and has been created.
fn create_if_missing(root: &Path, config_file: &Path) -> Result<bool, Failure> {
    let failed = |error| Failure::Failed(format!("failed to write {}: {error}", config_file.display()));
    let exists = || {
        let exists = regular_file::target_of(config_file).and_then(|target| target.try_exists());
        exists.map_err(|error| failed(file_error::explained(config_file, error)))
    };
    if exists()? {
        return Ok(false);
    }
    // These may be links that lead to the user who has the data. That user could not read a config that root creates in a
    // folder of root's.
    for part in ["tenants.toml", "data"] {
        service_user::act_as_owner_of(&root.join(part))?;
    }
    // Two commands may find the config missing at the same time, but its admin key is delivered only once.
    let _lock = lock_root(root).map_err(failed)?;
    if exists()? {
        return Ok(false);
    }
    create(root, config_file).map_err(failed)?;
    Ok(true)
}

fn lock_root(root: &Path) -> io::Result<File> {
    let named = |error| file_error::named(root, error);
    secret_file::create_dir(root).map_err(named)?;
    let folder = File::open(root).map_err(named)?;
    match lock_within(&folder, LOCK_TIMEOUT) {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another command is creating it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Delivers the admin key before it publishes the config. In the other order, a crash between the two would leave an
/// admin API whose key is lost.
fn create(root: &Path, config_file: &Path) -> io::Result<()> {
    let token = BearerToken::generate().map_err(io::Error::other)?;
    let config = SAMPLE_CONFIG.replace(SAMPLE_DIGEST, &token.digest().to_string());
    let admin = NewKey { tenant: ADMIN.to_owned(), port: None, key_id: "admin".to_owned(), token };
    let config = Replacement::write(config_file, config.as_bytes())?;
    let keys_file = layout::keys_file(root);
    let delivered = KeysOut::File(keys_file.clone()).deliver(&[admin]);
    let delivered = delivered.map_err(|error| file_error::named(&keys_file, error))?;
    match config.publish() {
        Err(error @ PublishError::NotReplaced(_)) => {
            delivered.retract()?;
            Err(error.into())
        }
        published => Ok(published?),
    }
}
