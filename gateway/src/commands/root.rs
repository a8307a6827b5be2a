//! A root is a folder that holds a whole system: `gateway.toml`, `tenants.toml`, `keys.csv`, `data/`. What is
//! missing in it is made; what is there is used as it is.

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
use sq_shared::{file_error, layout, regular_file, secret_file};

use crate::tenants::keys_file::{ADMIN, KeysOut, NewKey};

/// The config of a new root: the documented sample, with a key of its own.
const SAMPLE_CONFIG: &str = include_str!("../../../config/gateway.toml");

/// Where the sample has a digest that is no key's.
const SAMPLE_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Which system a command is about.
#[derive(Debug, Clone, clap::Args)]
pub struct RootOptions {
    /// The folder that holds the whole system.
    #[arg(long, value_name = "DIR", default_value = "./sq-data")]
    root: PathBuf,
    /// The config, when it is not DIR/gateway.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A system that must be there, named by one of two options.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub struct NamedSystem {
    /// The folder that holds the whole system; the config is its gateway.toml.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The config; the registry is the one it names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl NamedSystem {
    /// Its config; `None` when no system was named.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| self.root.as_deref().map(layout::config_file))
    }
}

/// A config and the file that new keys go to.
pub struct System {
    /// The config's file.
    pub config_file: PathBuf,
    /// The config.
    pub config: Config,
    /// `keys.csv`, beside the config unless a root was named.
    pub keys_file: PathBuf,
    /// The config was made by this command, and the key of its admin API with it.
    pub is_new: bool,
}

impl RootOptions {
    /// The system as it is.
    ///
    /// # Errors
    /// The config is not there or has mistakes.
    pub fn open(&self) -> Result<System, Failure> {
        let config_file = self.config_file();
        service_user::act_as_owner_of(&config_file)?;
        if !config_file.exists() {
            let shown = config_file.display();
            return Err(Failure::Failed(format!(
                "{shown} is not there; `sq-gateway up` makes one, or name yours with --config FILE or --root DIR"
            )));
        }
        self.load(config_file)
    }

    /// The system, with a config made when there is none. A config named by --config must be there.
    ///
    /// # Errors
    /// The root cannot be written, or the config has mistakes.
    pub fn open_or_create(&self) -> Result<System, Failure> {
        let (config_file, mut is_new) = (self.config_file(), false);
        service_user::act_as_owner_of(&config_file)?;
        if self.config.is_none() {
            service_user::refuse_wrong_user(&[&self.root, &config_file])?;
            let cannot = |error| Failure::Failed(format!("cannot write {}: {error}", config_file.display()));
            let is_there = || {
                let found = regular_file::target_of(&config_file).and_then(|target| target.try_exists());
                found.map_err(|error| file_error::explained(&config_file, error))
            };
            if !is_there().map_err(cannot)? {
                // Where the config will lead. One that root makes in a folder of root's could not be read by the user who
                // has the data.
                for part in ["tenants.toml", "data"] {
                    service_user::act_as_owner_of(&self.root.join(part))?;
                }
                // Two commands may find it missing at once; its admin key is given out once.
                let _lock = lock_root(&self.root).map_err(cannot)?;
                if !is_there().map_err(cannot)? {
                    create(&self.root, &config_file).map_err(cannot)?;
                    is_new = true;
                }
            }
        }
        let system = System { is_new, ..self.load(config_file)? };
        let gateway = &system.config.gateway;
        service_user::refuse_wrong_user(&[&gateway.data_root, &gateway.tenants])?;
        Ok(system)
    }

    /// Acts as the user who controls the system, as far as there is one yet.
    ///
    /// # Errors
    /// A path cannot be looked at, or this process may not act as its owner.
    pub fn act_for_its_user(&self) -> Result<(), Failure> {
        let config_file = std::path::absolute(self.config_file()).map_err(Failure::from_error)?;
        service_user::act_for_system(&config_file)
    }

    fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| layout::config_file(&self.root))
    }

    fn load(&self, config_file: PathBuf) -> Result<System, Failure> {
        let folder = match &self.config {
            Some(config) => config.parent().unwrap_or(Path::new(".")),
            None => &self.root,
        };
        let keys_file = layout::keys_file(folder);
        let config_file = std::path::absolute(config_file).map_err(Failure::from_error)?;
        service_user::act_for_system(&config_file)?;
        let config = Config::load(&config_file).map_err(Failure::from_error)?;
        Ok(System { config_file, config, keys_file, is_new: false })
    }
}

/// How long another command may take to make the config.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

fn lock_root(root: &Path) -> io::Result<File> {
    let named = |error| file_error::named(root, error);
    secret_file::create_dir(root).map_err(named)?;
    let folder = File::open(root).map_err(named)?;
    match lock_within(&folder, LOCK_PATIENCE) {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another command is making it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The admin's key goes to the CSV first: were it the other way round, a crash between the two would leave
/// an admin API that nobody can open.
fn create(root: &Path, config_file: &Path) -> io::Result<()> {
    let token = BearerToken::generate().map_err(io::Error::other)?;
    let config = SAMPLE_CONFIG.replace(SAMPLE_DIGEST, &token.digest().to_string());
    let admin = NewKey { tenant: ADMIN.to_owned(), port: None, key_id: "admin".to_owned(), token };
    let config = Replacement::write(config_file, config.as_bytes())?;
    let keys_file = layout::keys_file(root);
    let handed_over = KeysOut::File(keys_file.clone()).hand_over(&[admin]);
    let handed_over = handed_over.map_err(|error| file_error::named(&keys_file, error))?;
    match config.publish() {
        Err(error @ PublishError::NotReplaced(_)) => {
            handed_over.take_back()?;
            Err(error.into())
        }
        published => Ok(published?),
    }
}
