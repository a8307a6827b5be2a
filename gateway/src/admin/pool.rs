//! Asks the pool how its slots are: `GET /status` on its status address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use sq_shared::tenant::TenantName;

/// How long the pool may take, connection and answer together. It waits half as long for the disk, and one that hangs
/// must not hold the status page up.
const PATIENCE: Duration = Duration::from_secs(1);

/// More than 10,000 slots take.
const ANSWER_BYTES: u64 = 8 << 20;

/// What the pool says.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PoolStatus {
    /// Every slot that has an active tenant or a worker.
    #[serde(default)]
    pub(super) slots: Vec<Slot>,
    /// The size of the phexts of every tenant of the registry, in bytes; empty from a pool that is older than this.
    #[serde(default)]
    storage: HashMap<TenantName, u64>,
}

impl PoolStatus {
    /// The size of a tenant's phexts, in bytes; `None` when the pool does not know it.
    pub(super) fn storage_bytes(&self, tenant: &TenantName, slot: Option<&Slot>) -> Option<u64> {
        self.storage.get(tenant).copied().or_else(|| slot?.storage_bytes)
    }
}

/// One slot.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Slot {
    /// Whose it is.
    pub(super) tenant: TenantName,
    /// The state of its worker.
    pub(super) worker: WorkerState,
    /// Workers started since the pool started.
    pub(super) starts: u64,
    /// Workers that crashed since the pool started.
    pub(super) crashes: u64,
    /// The size of the tenant's phexts; `None` until the pool has looked.
    storage_bytes: Option<u64>,
}

/// What a slot's worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WorkerState {
    /// There is none; the next connection starts one.
    Sleeping,
    /// It serves.
    Running,
    /// It crashed, and the next one is held back.
    BackingOff,
    /// It finishes what it is doing.
    Stopping,
}

/// Asks; `None` when the pool does not answer, or has no status address.
pub(super) async fn ask(status_listen: Option<SocketAddr>) -> Option<PoolStatus> {
    let address = status_listen?;
    let asked = tokio::task::spawn_blocking(move || ask_now(address)).await;
    match asked.map_err(|error| error.to_string()).and_then(|answer| answer) {
        Ok(status) => Some(status),
        Err(error) => {
            tracing::debug!(%address, error, "the pool does not say how its slots are");
            None
        }
    }
}

fn ask_now(address: SocketAddr) -> Result<PoolStatus, String> {
    // The pool is on this machine: a proxy of the environment leads elsewhere.
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
    let answer = ureq::Agent::new_with_config(config).get(format!("http://{address}/status")).call();
    let mut answer = answer.map_err(|error| error.to_string())?;
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string();
    serde_json::from_str(&text.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_pool_says_in_the_slots_what_is_stored() {
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
