//! The limit of open files. Many systems allow a process 1024 unless it asks for more.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as this process may. Returns it; `None` is no limit.
pub fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current
}
