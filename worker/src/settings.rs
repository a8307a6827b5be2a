//! What the pool and its workers tell each other.
//!
//! The pool writes [`WorkerSettings`] to a worker's standard input: one line of JSON at the start, and another after each
//! change of the tenant. At the end of standard input the pool is gone, and the worker exits: the next pool starts its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sq_shared::file_id::FileId;
use sq_shared::registry::Key;

/// The exit code of a worker whose directory is missing, removed or replaced. Not a crash: the pool checks the directory
/// and then starts the next worker.
pub(crate) const EXIT_DISPLACED: u8 = 66;

/// The settings that may change while a worker runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerSettings {
    /// The tenant's keys, which the worker checks again.
    pub(crate) keys: Vec<Key>,
    /// The limit for all of the tenant's phexts together; `None` is unlimited.
    pub(crate) quota_bytes: Option<u64>,
    /// The limit for the number of phexts; `None` is unlimited.
    pub(crate) phexts: Option<usize>,
    /// The largest part of a new scroll's coordinate; `None` is unlimited.
    pub(crate) coordinate: Option<u32>,
    /// How much of its phexts the worker may keep in memory.
    pub(crate) memory_bytes: u64,
    /// The limit for a request's body; `None` is unlimited.
    pub(crate) body_bytes: Option<u64>,
    /// The worker exits with code 0 after this time without a request.
    pub(crate) idle_timeout_ms: u64,
    /// How long requests in flight may take once the worker stops.
    pub(crate) drain_ms: u64,
    /// The directory at the tenant's path, as far as the pool knows. A worker that has another one open exits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<FileId>,
}

/// What is missing when a tenant can't be served. A worker started with this refuses every command and says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum MissingData {
    DataRoot,
    Directory,
}

impl MissingData {
    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DataRoot => "data-root",
            Self::Directory => "directory",
        }
    }
}

impl WorkerSettings {
    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}
