//! The state of all slots at one moment, for `/status` and the gauges of `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sq_shared::tenant::TenantName;

use super::desired::{Account, Assignment, Desired};
use super::observed::{Observed, Slot, Worker};
use super::storage::{Size, Sizes};

/// The JSON of `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    status: &'static str,
    slot_count: usize,
    tenants: usize,
    workers: StateCounts,
    running: Vec<Running>,
    slots: Vec<SlotReport>,
    /// The stored bytes of every tenant in the registry, active or not.
    storage: BTreeMap<TenantName, u64>,
    /// The disk space of every tenant's directory, in bytes.
    disk: BTreeMap<TenantName, u64>,
    /// The tenants of the registry.
    #[serde(skip)]
    pub(super) accounts: Arc<[Account]>,
}

/// The state of a slot's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum WorkerState {
    /// No worker runs; the next connection starts one.
    Sleeping,
    Running,
    /// It crashed, and the next one may not start yet.
    BackingOff,
    Stopping,
}

/// The number of workers, or of active tenants without one, in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct StateCounts {
    sleeping: usize,
    running: usize,
    backing_off: usize,
    stopping: usize,
}

/// A worker that is not stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Running {
    tenant: TenantName,
    port: u16,
    pid: u32,
    starts: u64,
    crashes: u64,
    uptime_ms: u64,
}

/// A slot that has an active tenant or a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SlotReport {
    port: u16,
    tenant: TenantName,
    worker: WorkerState,
    starts: u64,
    crashes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_bytes: Option<u64>,
}

impl Report {
    /// The state now. `accounts` are all tenants of the registry.
    pub(crate) fn new(
        desired: &Desired,
        observed: &Observed,
        accounts: &Arc<[Account]>,
        slot_count: usize,
        now: Instant,
    ) -> Self {
        let slots: Vec<SlotReport> = observed
            .slots
            .iter()
            .filter_map(|(port, slot)| {
                SlotReport::new(*port, slot, desired.assignments.get(port).map(Arc::as_ref), now)
            })
            .collect();
        Self {
            status: "ok",
            slot_count,
            tenants: accounts.len(),
            workers: StateCounts::from_slots(&slots),
            running: slots.iter().filter_map(Running::from_slot).collect(),
            slots,
            storage: BTreeMap::new(),
            disk: BTreeMap::new(),
            accounts: Arc::clone(accounts),
        }
    }

    #[must_use]
    pub(crate) fn with_storage(mut self, sizes: &Sizes) -> Self {
        for slot in &mut self.slots {
            slot.storage_bytes = sizes.get(&slot.tenant).map(|size| size.stored_bytes);
        }
        let by_tenant = |bytes: fn(&Size) -> u64| {
            sizes.iter().map(|(tenant, size)| (tenant.clone(), bytes(size))).collect()
        };
        self.storage = by_tenant(|size| size.stored_bytes);
        self.disk = by_tenant(|size| size.disk_bytes);
        self
    }

    /// The number of workers in each state, by the state's name.
    pub(crate) fn states(&self) -> [(&'static str, usize); 4] {
        let StateCounts { sleeping, running, backing_off, stopping } = self.workers;
        [("sleeping", sleeping), ("running", running), ("backing_off", backing_off), ("stopping", stopping)]
    }
}

impl StateCounts {
    fn from_slots(slots: &[SlotReport]) -> Self {
        let count = |state| slots.iter().filter(|slot| slot.worker == state).count();
        Self {
            sleeping: count(WorkerState::Sleeping),
            running: count(WorkerState::Running),
            backing_off: count(WorkerState::BackingOff),
            stopping: count(WorkerState::Stopping),
        }
    }
}

impl Running {
    fn from_slot(slot: &SlotReport) -> Option<Self> {
        let SlotReport { port, ref tenant, worker: WorkerState::Running, starts, crashes, .. } = *slot else {
            return None;
        };
        Some(Self {
            tenant: tenant.clone(),
            port,
            pid: slot.pid?,
            starts,
            crashes,
            uptime_ms: slot.uptime_ms?,
        })
    }
}

impl SlotReport {
    fn new(port: u16, slot: &Slot, assignment: Option<&Assignment>, now: Instant) -> Option<Self> {
        let worker = slot.worker.as_ref();
        let tenant = match (worker, assignment) {
            (Some(Worker { assignment, stop: None, .. }), _) => &assignment.tenant,
            (_, Some(assignment)) => &assignment.tenant,
            (Some(worker), None) => &worker.assignment.tenant,
            (None, None) => return None,
        };
        let history = slot.history.as_ref().filter(|history| history.assignment.tenant == *tenant);
        let uptime = worker.map(|worker| now.saturating_duration_since(worker.since));
        Some(Self {
            port,
            tenant: tenant.clone(),
            worker: WorkerState::from_slot(slot, assignment, now),
            starts: history.map_or(0, |history| history.starts),
            crashes: history.map_or(0, |history| history.crashes),
            pid: worker.map(|worker| worker.pid),
            uptime_ms: uptime.map(|uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
            storage_bytes: None,
            quota_bytes: assignment.and_then(|assignment| assignment.settings.quota_bytes),
        })
    }
}

impl WorkerState {
    fn from_slot(slot: &Slot, assignment: Option<&Assignment>, now: Instant) -> Self {
        let backs_off = |assignment| slot.backs_off_until(assignment, now).is_some();
        match &slot.worker {
            Some(worker) if worker.stop.is_some() => Self::Stopping,
            Some(_) => Self::Running,
            None if assignment.is_some_and(backs_off) => Self::BackingOff,
            None => Self::Sleeping,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_has_stored_bytes_and_disk_space() {
        let (assignments, stop_grace) = (BTreeMap::new(), Duration::ZERO);
        let desired = Desired { assignments, stop_grace, is_closing: false };
        let accounts: Arc<[Account]> = Arc::new([]);
        let report = Report::new(&desired, &Observed::new([]), &accounts, 0, Instant::now());
        let size = Size { stored_bytes: 7, disk_bytes: 4096 };
        let sizes = Sizes::from([("alice".parse().unwrap(), size)]);
        let status = serde_json::to_value(report.with_storage(&sizes)).unwrap();
        assert_eq!((&status["storage"], &status["disk"]), (&json!({"alice": 7}), &json!({"alice": 4096})));
    }
}
