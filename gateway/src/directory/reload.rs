//! Keeps the snapshot true: reads config and registry again when a file changes or SIGHUP comes. A
//! file with mistakes changes nothing: every mistake is logged, and what was running goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sq_shared::config::Config;
use sq_shared::registry::Registry;
use sq_shared::shutdown;
use sq_shared::toml_reader::Mistakes;
use sq_shared::watch::FileWatch;

use super::{Directory, SharedDirectory};

/// Where the snapshot is read from, and what the command line overrides.
#[derive(Debug, Clone)]
pub struct Source {
    /// `gateway.toml`.
    pub config: PathBuf,
    /// Instead of `gateway.listen`.
    pub listen: Option<sq_shared::config::ListenAddress>,
    /// Instead of `gateway.tenants`.
    pub tenants: Option<PathBuf>,
}

impl Source {
    /// Reads the config, with what the command line overrides.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn config(&self) -> Result<Config, Mistakes> {
        let mut config = Config::load(&self.config)?;
        if let Some(listen) = &self.listen {
            config.gateway.listen = listen.clone();
        }
        if let Some(tenants) = &self.tenants {
            config.gateway.tenants.clone_from(tenants);
        }
        Ok(config)
    }

    /// Reads config and registry.
    ///
    /// # Errors
    /// Every mistake in either.
    pub fn load(&self, previous: Option<&Directory>) -> Result<Directory, Mistakes> {
        let config = self.config()?;
        let registry = Registry::load(&config.gateway.tenants, &config)?.registry;
        Ok(Directory::new(config, &registry, previous))
    }
}

/// Reloads for ever.
///
/// # Errors
/// SIGHUP cannot be taken over.
pub async fn keep_current(source: Source, directory: SharedDirectory) -> io::Result<()> {
    let mut hangups = shutdown::hangups()?;
    let mut watch = watch(&source, &directory.load().config.gateway.tenants);
    loop {
        let reason = tokio::select! {
            () = watch.changed() => "a file changed",
            _ = hangups.recv() => "SIGHUP",
        };
        let previous = directory.load_full();
        match source.load(Some(&previous)) {
            Ok(next) => {
                warn_of_what_needs_a_restart(&previous.config, &next.config);
                if next.config.gateway.tenants != previous.config.gateway.tenants {
                    watch = self::watch(&source, &next.config.gateway.tenants);
                }
                tracing::info!(reason, tenants = next.tenant_count(), "reloaded");
                directory.store(Arc::new(next));
            }
            Err(mistakes) => {
                for mistake in &mistakes.0 {
                    tracing::error!(reason, %mistake, "not reloaded");
                }
            }
        }
    }
}

fn watch(source: &Source, tenants: &Path) -> FileWatch {
    FileWatch::new(&[source.config.clone(), tenants.to_owned()])
}

fn warn_of_what_needs_a_restart(before: &Config, after: &Config) {
    let (old, new) = (&before.gateway, &after.gateway);
    let changed = [
        ("gateway.listen", old.listen != new.listen),
        ("gateway.slots", old.slots != new.slots),
        ("gateway.threads", old.threads != new.threads),
        ("limits.connections", before.limits.connections != after.limits.connections),
    ];
    for (field, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(field, "this change takes effect at the next start");
    }
}
