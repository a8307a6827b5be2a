//! Where the gateway and the pool read config and registry from, at their start and at each reload.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::fields::Reader;
use crate::config::{Config, ListenAddress};
use crate::registry::{Loaded, Registry};
use crate::token::{BearerToken, TokenDigest};
use crate::toml_reader::Mistakes;
use crate::{file_error, regular_file};

/// The files, and what the command line overrides in them.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    /// The program that reads them.
    pub reader: Reader,
    /// `gateway.toml`.
    pub config: PathBuf,
    /// What the command line says.
    pub overrides: Overrides,
}

/// What the command line says instead of the config.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Replaces `gateway.listen`.
    pub listen: Option<ListenAddress>,
    /// Replaces `gateway.tenants`.
    pub tenants: Option<PathBuf>,
    /// Replaces `gateway.admin_key_sha256`; it holds the key itself.
    pub admin_key_file: Option<PathBuf>,
}

impl ConfigSource {
    /// Reads config and registry at the program's start.
    ///
    /// # Errors
    /// Every mistake in the config, or else every one in the registry.
    pub fn load(&self) -> Result<(Config, Registry), Mistakes> {
        let config = self.config()?;
        let path = &config.gateway.tenants;
        let Loaded { registry, changes, .. } = Registry::load(path, &config)?;
        changes.iter().for_each(|change| tracing::warn!(path = %path.display(), "old registry: {change}"));
        Ok((config, registry))
    }

    /// Reads both files again. Fields that only a restart applies keep their running values; a log line names each that
    /// differs.
    ///
    /// # Errors
    /// As [`Self::load`]. It is also a mistake when the registry does not fit the config as a restart would apply it.
    pub fn reload(&self, running: &Config) -> Result<(Config, Registry), Mistakes> {
        let mut config = self.config()?;
        let written = config.clone();
        let waiting = config.keep_until_restart(running);
        if !waiting.is_empty() {
            Registry::load(&written.gateway.tenants, &written)?;
        }
        for field in waiting.into_iter().filter(|field| field.restarts.contains(&self.reader)) {
            tracing::warn!(field = field.name, "this change of the config takes effect at the next start");
        }
        let registry = Registry::load(&config.gateway.tenants, &config)?.registry;
        Ok((config, registry))
    }

    /// Reads the config alone, as a reload would apply it.
    pub fn reload_config(&self, running: &Config) -> Result<Config, Mistakes> {
        let mut config = self.config()?;
        config.keep_until_restart(running);
        Ok(config)
    }

    /// The files that are read for this config.
    pub fn files(&self, config: &Config) -> Vec<PathBuf> {
        let files = [self.config.clone(), config.gateway.tenants.clone()];
        files.into_iter().chain(self.overrides.admin_key_file.clone()).collect()
    }

    fn config(&self) -> Result<Config, Mistakes> {
        let mut config = Config::load(&self.config)?;
        let Overrides { listen, tenants, admin_key_file } = &self.overrides;
        if let Some(listen) = listen {
            config.gateway.listen = listen.clone();
        }
        if let Some(tenants) = tenants {
            config.gateway.tenants.clone_from(tenants);
        }
        if let Some(file) = admin_key_file {
            config.gateway.admin_key = Some(read_key(file)?);
        }
        Ok(config)
    }
}

/// The digest of the key in a file. The file may end with a line break.
fn read_key(file: &Path) -> Result<TokenDigest, Mistakes> {
    let unreadable = |error| Mistakes::about(file, file_error::text(file, &error));
    let text = Zeroizing::new(regular_file::read_to_string(file).map_err(unreadable)?);
    let key = BearerToken::parse(text.as_bytes().trim_ascii_end());
    Ok(key.map_err(|error| Mistakes::about(file, error))?.digest())
}
