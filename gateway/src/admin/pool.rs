//! Reads the state of the slots from the pool: `GET /status` on its status address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use sq_shared::tenant::TenantName;

/// How long the pool may take to respond: twice as long as it waits for the disk. A pool that hangs must not block the
/// status page.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The longest response, in bytes; 10,000 slots need less.
const RESPONSE_BYTES: u64 = 8 << 20;

/// The pool's response.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PoolStatus {
    /// The slots with an active tenant or a worker.
    #[serde(default)]
    pub(super) slots: Vec<Slot>,
    /// The total size of each tenant's phexts, in bytes; older pools do not send it.
    #[serde(default)]
    storage: HashMap<TenantName, u64>,
}

impl PoolStatus {
    /// The total size of a tenant's phexts, in bytes; `None` if the pool does not know it.
    pub(super) fn storage_bytes(&self, tenant: &TenantName, slot: Option<&Slot>) -> Option<u64> {
        self.storage.get(tenant).copied().or_else(|| slot?.storage_bytes)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Slot {
    pub(super) tenant: TenantName,
    pub(super) worker: WorkerState,
    /// Workers started since the pool started.
    pub(super) starts: u64,
    /// Workers that crashed since the pool started.
    pub(super) crashes: u64,
    /// The total size of the tenant's phexts; `None` until the pool has measured it.
    storage_bytes: Option<u64>,
}

/// The state of a slot's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WorkerState {
    /// Not running; the next connection starts it.
    Sleeping,
    /// It is serving.
    Running,
    /// It crashed, and the pool waits before it starts the next one.
    BackingOff,
    /// It is finishing its requests in flight.
    Stopping,
}

/// The pool's status; `None` if the pool does not respond or has no status address.
pub(super) async fn fetch_status(status_listen: Option<SocketAddr>) -> Option<PoolStatus> {
    let address = status_listen?;
    let fetched = tokio::task::spawn_blocking(move || fetch(address)).await;
    match fetched.map_err(|error| error.to_string()).flatten() {
        Ok(status) => Some(status),
        Err(error) => {
            tracing::debug!(%address, error, "failed to read the pool's status");
            None
        }
    }
}

fn fetch(address: SocketAddr) -> Result<PoolStatus, String> {
    // The pool is on this machine, where a proxy named in the environment must not be used.
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build();
    let response = ureq::Agent::new_with_config(config).get(format!("http://{address}/status")).call();
    let mut response = response.map_err(|error| error.to_string())?;
    let text = response.body_mut().with_config().limit(RESPONSE_BYTES).read_to_string();
    serde_json::from_str(&text.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_of_an_older_pool_is_read_from_its_slots() {
        let slot = r#"{"tenant":"alice","worker":"running","starts":1,"crashes":0,"storage_bytes":7}"#;
        let size_of = |name: &str, text: &str| {
            let status: PoolStatus = serde_json::from_str(text).unwrap();
            let name = name.parse::<TenantName>().unwrap();
            let slot = status.slots.iter().find(|slot| slot.tenant == name);
            status.storage_bytes(&name, slot)
        };
        let older = format!(r#"{{"slots":[{slot}]}}"#);
        assert_eq!((size_of("alice", &older), size_of("carol", &older)), (Some(7), None));
        let newer = format!(r#"{{"slots":[{slot}],"storage":{{"alice":8,"carol":9}}}}"#);
        assert_eq!((size_of("alice", &newer), size_of("carol", &newer)), (Some(8), Some(9)));
    }
}
