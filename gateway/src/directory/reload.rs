//! Keeps the snapshot true: reads config and registry again when a file changes or SIGHUP comes. A
//! file with mistakes changes nothing: every mistake is logged, and what was running goes on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sq_shared::config::Config;
use sq_shared::process::watch::FileWatch;
use sq_shared::registry::difference::Difference;
use sq_shared::registry::{Loaded, Registry};
use sq_shared::token::{BearerToken, TokenDigest};
use sq_shared::toml_reader::Mistakes;
use sq_shared::{file_error, regular_file};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Directory, SharedDirectory};
use crate::metrics::{Metrics, Reload};

/// Why the files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They may have changed between their first reading and the start of the watch.
    WatchBegan,
    /// One of them changed, or was touched.
    FileChanged,
    /// SIGHUP.
    Hangup,
    /// The admin API asked, or has changed the registry.
    Admin,
}

impl Reason {
    /// Whether somebody wants to see in the log that it came, even when nothing has changed.
    fn is_asked_for(self) -> bool {
        matches!(self, Self::Hangup | Self::Admin)
    }
}

/// Where the snapshot is read from, and what the command line overrides.
#[derive(Debug, Clone)]
pub struct Source {
    /// `gateway.toml`.
    pub config: PathBuf,
    /// Instead of `gateway.listen`.
    pub listen: Option<sq_shared::config::ListenAddress>,
    /// Instead of `gateway.tenants`.
    pub tenants: Option<PathBuf>,
    /// Holds the admin's key itself, instead of its digest in the config.
    pub admin_key_file: Option<PathBuf>,
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
        if let Some(file) = &self.admin_key_file {
            config.gateway.admin_key = Some(read_key(file)?);
        }
        Ok(config)
    }

    /// What is to be watched, with the registry that the config names now.
    fn files(&self, tenants: &Path) -> Vec<PathBuf> {
        [self.config.clone(), tenants.to_owned()].into_iter().chain(self.admin_key_file.clone()).collect()
    }

    /// Reads the config; of a snapshot before, what holds until the next start is kept. Gives the fields that differ
    /// in it.
    fn config_after(&self, previous: Option<&Directory>) -> Result<(Config, Vec<&'static str>), Mistakes> {
        let mut config = self.config()?;
        let waiting = previous.map(|previous| config.keep_from_start(&previous.config)).unwrap_or_default();
        Ok((config, waiting))
    }

    /// Reads config and registry; of a snapshot before, what holds until the next start is kept.
    ///
    /// # Errors
    /// Every mistake in either.
    pub fn load(&self, previous: Option<&Directory>) -> Result<Directory, Mistakes> {
        let (config, waiting) = self.config_after(previous)?;
        if !waiting.is_empty() {
            // It must hold then.
            let written = self.config()?;
            Registry::load(&written.gateway.tenants, &written)?;
        }
        for field in waiting {
            tracing::warn!(field, "this change takes effect at the gateway's next start");
        }
        let Loaded { registry, changes, .. } = Registry::load(&config.gateway.tenants, &config)?;
        if previous.is_none() {
            let path = config.gateway.tenants.display();
            changes.iter().for_each(|change| tracing::warn!(%path, "old registry: {change}"));
        }
        Ok(Directory::new(config, registry, previous))
    }
}

/// The digest of the key that a file holds; a line's end after it is not part of it.
fn read_key(file: &Path) -> Result<TokenDigest, Mistakes> {
    let unreadable = |error| Mistakes::about(file, file_error::text(file, &error));
    let text = regular_file::read_to_string(file).map_err(unreadable)?;
    let text = Zeroizing::new(text);
    let key =
        BearerToken::parse(text.as_bytes().trim_ascii_end()).map_err(|error| Mistakes::about(file, error))?;
    Ok(key.digest())
}

/// Puts what the files say in force: when they change, at SIGHUP, and when the admin API asks.
pub struct Reloader {
    source: Source,
    directory: SharedDirectory,
    metrics: Arc<Metrics>,
    /// One reload at a time: who read the files last has the last word.
    turn: Mutex<()>,
    /// Reloads that have begun to read.
    begun: AtomicU64,
    /// The last one found mistakes.
    is_rejected: AtomicBool,
}

impl Reloader {
    /// Keeps this snapshot true to this source.
    pub fn new(source: Source, directory: SharedDirectory, metrics: Arc<Metrics>) -> Self {
        Self {
            source,
            directory,
            metrics,
            turn: Mutex::new(()),
            begun: AtomicU64::new(0),
            is_rejected: AtomicBool::new(false),
        }
    }

    /// The config as it is on disk now, but for what holds until the next start.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn config(&self) -> Result<Config, Mistakes> {
        Ok(self.source.config_after(Some(&self.directory.load()))?.0)
    }

    /// Reads the files, which takes some milliseconds. When this returns, requests see what was read. Gives the
    /// number of tenants.
    ///
    /// # Errors
    /// Every mistake in the files; what was in force stays.
    pub fn reload(&self, reason: Reason) -> Result<usize, Mistakes> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.load(reason)
    }

    /// Reloads after a change of ours, unless another reload does that began later. The change was checked, so a
    /// mistake is somebody else's, made a moment later: that is logged, and the change will be in force when it is
    /// mended.
    pub fn put_in_force(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.begun.load(Ordering::SeqCst) == begun {
            let _ = self.load(Reason::Admin);
        }
    }

    /// To be called by whose turn it is.
    fn load(&self, reason: Reason) -> Result<usize, Mistakes> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let previous = self.directory.load_full();
        let loaded = self.source.load(Some(&previous)).map(Arc::new);
        let was_rejected = self.is_rejected.swap(loaded.is_err(), Ordering::SeqCst);
        match &loaded {
            Ok(next) => {
                // Before it is logged: whoever reads the line may rely on it.
                self.directory.store(Arc::clone(next));
                let tenants = next.tenant_count();
                // Who has mended a mistake wants to see that it is, even when all is as it was before.
                if reason.is_asked_for() || was_rejected || !next.says_the_same_as(&previous) {
                    let Difference { added, removed, changed } = next.registry.difference(&previous.registry);
                    tracing::info!(?reason, tenants, added, removed, changed, "reloaded");
                } else {
                    tracing::debug!(?reason, tenants, "nothing has changed");
                }
                self.metrics.retain_tenants(|tenant| next.has_tenant(tenant));
                self.metrics.count_reload(Reload::Accepted);
            }
            Err(mistakes) => {
                for mistake in &mistakes.0 {
                    tracing::error!(?reason, %mistake, "not reloaded");
                }
                self.metrics.count_reload(Reload::Rejected);
            }
        }
        loaded.map(|next| next.tenant_count())
    }

    /// Reloads for ever: whenever a watch begins, because a file may have changed between its first reading and the
    /// start of the watch, and then whenever one changes, or SIGHUP asks for it.
    pub async fn keep_current(self: Arc<Self>, mut hangups: watch::Receiver<()>) {
        let mut watched = self.directory.load().config.gateway.tenants.clone();
        let mut watch = self.watch_files(&watched);
        let mut reason = Reason::WatchBegan;
        loop {
            let reloader = Arc::clone(&self);
            // Mistakes have been logged. Nobody else waits for the blocking thread.
            let _ = tokio::task::spawn_blocking(move || reloader.reload(reason)).await;
            let tenants = self.directory.load().config.gateway.tenants.clone();
            if tenants != watched {
                watch = self.watch_files(&tenants);
                watched = tenants;
                reason = Reason::WatchBegan;
                continue;
            }
            reason = tokio::select! {
                () = watch.changed() => Reason::FileChanged,
                Ok(()) = hangups.changed() => Reason::Hangup,
            };
        }
    }

    fn watch_files(&self, tenants: &Path) -> FileWatch {
        FileWatch::new(&self.source.files(tenants))
    }
}
