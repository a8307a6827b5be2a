//! The requests of a tenant since the gateway started. A reload keeps them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct TenantActivity {
    requests: AtomicU64,
    rejected: AtomicU64,
    /// Seconds since 1970; 0 before the first request.
    last_request_s: AtomicI64,
}

impl TenantActivity {
    /// Counts a request that has ended at this time, in seconds since 1970.
    pub(crate) fn count(&self, is_rejected: bool, now_s: i64) {
        self.requests.fetch_add(1, Relaxed);
        self.rejected.fetch_add(u64::from(is_rejected), Relaxed);
        self.last_request_s.store(now_s, Relaxed);
    }

    /// Requests with a valid key of the tenant, including refused ones.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Those that were answered with an error, by the gateway or the worker.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// When the last of them ended, in seconds since 1970; `None` if there was none.
    pub(crate) fn last_request_s(&self) -> Option<i64> {
        Some(self.last_request_s.load(Relaxed)).filter(|seconds| *seconds > 0)
    }
}
