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

    /// Reads config and registry; of a snapshot before, what holds until the next start is kept.
    ///
    /// # Errors
    /// Every mistake in either.
    pub fn load(&self, previous: Option<&Directory>) -> Result<Directory, Mistakes> {
        let mut config = self.config()?;
        for field in previous.map(|previous| config.keep_from_start(&previous.config)).unwrap_or_default() {
            tracing::warn!(field, "this change takes effect at the next start");
        }
        let registry = Registry::load(&config.gateway.tenants, &config)?.registry;
        Ok(Directory::new(config, &registry, previous))
    }
}

/// Reloads for ever: at once, because a file may have changed between its first reading and the start of the
/// watch, and then whenever one changes.
///
/// # Errors
/// SIGHUP cannot be taken over.
pub async fn keep_current(source: Source, directory: SharedDirectory) -> io::Result<()> {
    let mut hangups = shutdown::hangups()?;
    let mut watched = directory.load().config.gateway.tenants.clone();
    let mut watch = watch_files(&source, &watched);
    let mut reason = "the start of the watch";
    loop {
        reload(&source, &directory, reason);
        let tenants = directory.load().config.gateway.tenants.clone();
        if tenants != watched {
            watch = watch_files(&source, &tenants);
            watched = tenants;
        }
        reason = tokio::select! {
            () = watch.changed() => "a file changed",
            _ = hangups.recv() => "SIGHUP",
        };
    }
}

fn watch_files(source: &Source, tenants: &Path) -> FileWatch {
    FileWatch::new(&[source.config.clone(), tenants.to_owned()])
}

fn reload(source: &Source, directory: &SharedDirectory, reason: &str) {
    match source.load(Some(&directory.load())) {
        Ok(next) => {
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
