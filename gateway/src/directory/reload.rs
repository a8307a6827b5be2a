//! Keeps the snapshot current: reads config and registry again when a file changes, at SIGHUP and when the admin API asks.
//! Files with mistakes change nothing: every mistake is logged, and the old snapshot stays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sq_shared::config::Config;
use sq_shared::config_source::ConfigSource;
use sq_shared::process::watch::{Reason, ReloadWatch};
use sq_shared::registry::difference::Difference;
use sq_shared::toml_reader::Mistakes;
use tokio::sync::watch;

use super::{Directory, SharedDirectory};
use crate::metrics::Metrics;

/// Replaces the snapshot by what the files say, in one thread at a time.
pub(crate) struct Reloader {
    source: ConfigSource,
    directory: SharedDirectory,
    metrics: Arc<Metrics>,
    /// Held for a whole reload: the snapshot of the last reading stays.
    turn: Mutex<()>,
    /// Reloads that have begun to read.
    begun: AtomicU64,
    /// The last one found mistakes.
    is_rejected: AtomicBool,
}

impl Reloader {
    pub(crate) fn new(source: ConfigSource, directory: SharedDirectory, metrics: Arc<Metrics>) -> Self {
        Self {
            source,
            directory,
            metrics,
            turn: Mutex::new(()),
            begun: AtomicU64::new(0),
            is_rejected: AtomicBool::new(false),
        }
    }

    /// The config on disk, as a reload would apply it.
    pub(crate) fn config(&self) -> Result<Config, Mistakes> {
        self.source.reload_config(&self.directory.load().config)
    }

    /// Reads the files, which takes some milliseconds. When this returns, requests see what was read. Returns the
    /// number of tenants.
    pub(crate) fn reload(&self, reason: Reason) -> Result<usize, Mistakes> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.load(reason)
    }

    /// Reloads after the admin API has changed the registry, unless a reload that began later does. The change was
    /// checked, so a mistake is another program's, made a moment later: it is logged, and the change is applied once the
    /// mistake is corrected.
    pub(crate) fn apply_change(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.begun.load(Ordering::SeqCst) == begun {
            let _ = self.load(Reason::Admin);
        }
    }

    /// The caller holds `turn`.
    fn load(&self, reason: Reason) -> Result<usize, Mistakes> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let previous = self.directory.load_full();
        let read = self.source.reload(&previous.config);
        let was_rejected = self.is_rejected.swap(read.is_err(), Ordering::SeqCst);
        let loaded =
            read.map(|(config, registry)| Arc::new(Directory::new(config, registry, Some(&previous))));
        match &loaded {
            Ok(next) => {
                // Before it is logged: a reader of the line may rely on it.
                self.directory.store(Arc::clone(next));
                let tenants = next.tenant_count();
                // An operator who has corrected a mistake sees that it worked, even when nothing else has changed.
                if reason.is_asked_for() || was_rejected || !next.says_the_same_as(&previous) {
                    let Difference { added, removed, changed } = next.registry.difference(&previous.registry);
                    tracing::info!(?reason, tenants, added, removed, changed, "reloaded");
                } else {
                    tracing::debug!(?reason, tenants, "nothing has changed");
                }
                self.metrics.retain_tenants(|tenant| next.tenant(tenant).is_some());
            }
            Err(mistakes) => {
                for mistake in &mistakes.0 {
                    tracing::error!(?reason, %mistake, "not reloaded");
                }
            }
        }
        self.metrics.count_reload(loaded.is_ok());
        loaded.map(|next| next.tenant_count())
    }

    /// Reloads whenever a file changes and at SIGHUP, until the runtime ends.
    pub(crate) async fn keep_current(self: Arc<Self>, hangups: watch::Receiver<()>) {
        let watch = ReloadWatch::new(self.files(), hangups);
        let reload = |reason| {
            let (this, reloader) = (Arc::clone(&self), Arc::clone(&self));
            async move {
                let reload = move || {
                    // Mistakes have been logged.
                    let _ = reloader.reload(reason);
                    reloader.files()
                };
                match tokio::task::spawn_blocking(reload).await {
                    Ok(files) => Some(files),
                    Err(error) if error.is_panic() => {
                        tracing::error!(
                            ?reason,
                            "failed to reload: this is a defect; the previous files still apply"
                        );
                        Some(this.files())
                    }
                    // The runtime ends.
                    Err(_) => None,
                }
            }
        };
        if let Some(files) = reload(Reason::WatchBegan).await {
            watch.run(files, reload).await;
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.files(&self.directory.load().config)
    }
}
