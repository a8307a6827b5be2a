//! What the pool tells a worker: a line of JSON on standard input when it starts, and another whenever
//! the registry changes something about its tenant. The end of standard input means that the pool is
//! gone, and that the worker goes too: a new pool will start its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sq_shared::data_root::DirectoryId;
use sq_shared::registry::Key;

/// What may change while a worker runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// The tenant's keys; the worker checks them again.
    pub keys: Vec<Key>,
    /// All the tenant's phexts together; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// How many phexts the tenant may have; `None` is no limit.
    pub phexts: Option<usize>,
    /// The largest part of a new scroll's coordinate; `None` is no limit.
    pub coordinate: Option<u32>,
    /// What the worker may keep of its phexts in memory.
    pub memory_bytes: u64,
    /// A request's body; `None` is no limit.
    pub body_bytes: Option<u64>,
    /// The worker ends by itself, with exit code 0, after so many milliseconds without a request.
    pub idle_timeout_ms: u64,
    /// How long, in milliseconds, requests in flight may take to end once the worker stops.
    pub drain_ms: u64,
    /// What is at the path of the tenant's directory now, as far as the pool knows: a worker that has another one open ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryId>,
}

/// Why a tenant has no directory: what a worker says that stands in for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Absence {
    /// The whole data root is missing.
    DataRoot,
    /// The tenant's own directory is.
    Directory,
}

impl Absence {
    /// As the command line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DataRoot => "data-root",
            Self::Directory => "directory",
        }
    }
}

impl WorkerSettings {
    /// How long the worker waits for a request before it ends.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// How long requests in flight may take to end.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}
