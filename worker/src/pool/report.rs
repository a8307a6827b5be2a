//! How things stand on all slots at one moment: what `/status` says, and what `/metrics` takes from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sq_shared::tenant::TenantName;

use super::desired::{Account, Assignment, Desired};
use super::observed::{Observed, Slot, Worker};
use super::storage::{Size, Sizes};

/// What `/status` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    status: &'static str,
    slot_count: usize,
    tenants: usize,
    workers: Counts,
    running: Vec<Running>,
    slots: Vec<SlotReport>,
    /// What each tenant of the registry has stored, in bytes; suspended and reserved ones too.
    storage: BTreeMap<TenantName, u64>,
    /// What the files of each of these tenants' directories take on disk, in bytes.
    disk: BTreeMap<TenantName, u64>,
    #[serde(skip)]
    accounts: Arc<[Account]>,
}

/// What the worker of a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// There is none; the next connection starts one.
    Sleeping,
    /// It serves.
    Running,
    /// It crashed, and the next one is held back.
    BackingOff,
    /// It is on its way out.
    Stopping,
}

/// Active tenants by the state of their workers, and the workers that are on their way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Counts {
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
    worker: State,
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
    /// How things stand now, with the tenants of the registry, the inactive ones too.
    pub fn new(
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
            workers: Counts::of(&slots),
            running: slots.iter().filter_map(Running::of).collect(),
            slots,
            storage: BTreeMap::new(),
            disk: BTreeMap::new(),
            accounts: Arc::clone(accounts),
        }
    }

    /// Adds what each tenant has stored, and what it takes on disk.
    #[must_use]
    pub fn with_storage(mut self, sizes: &Sizes) -> Self {
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

    /// The tenants of the registry.
    pub fn accounts(&self) -> &Arc<[Account]> {
        &self.accounts
    }

    /// How many there are in each state.
    pub fn states(&self) -> [(&'static str, usize); 4] {
        let Counts { sleeping, running, backing_off, stopping } = self.workers;
        [("sleeping", sleeping), ("running", running), ("backing_off", backing_off), ("stopping", stopping)]
    }
}

impl Counts {
    fn of(slots: &[SlotReport]) -> Self {
        let count = |state| slots.iter().filter(|slot| slot.worker == state).count();
        Self {
            sleeping: count(State::Sleeping),
            running: count(State::Running),
            backing_off: count(State::BackingOff),
            stopping: count(State::Stopping),
        }
    }
}

impl Running {
    fn of(slot: &SlotReport) -> Option<Self> {
        let SlotReport { port, ref tenant, worker: State::Running, starts, crashes, .. } = *slot else {
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
            worker: State::of(slot, assignment, now),
            starts: history.map_or(0, |history| history.starts),
            crashes: history.map_or(0, |history| history.crashes),
            pid: worker.map(|worker| worker.pid),
            uptime_ms: uptime.map(|uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
            storage_bytes: None,
            quota_bytes: assignment.and_then(|assignment| assignment.settings.quota_bytes),
        })
    }
}

impl State {
    fn of(slot: &Slot, assignment: Option<&Assignment>, now: Instant) -> Self {
        let holds = |assignment| slot.holds_until(assignment, now).is_some();
        match &slot.worker {
            Some(worker) if worker.stop.is_some() => Self::Stopping,
            Some(_) => Self::Running,
            None if assignment.is_some_and(holds) => Self::BackingOff,
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
    fn the_status_has_what_is_stored_and_what_is_on_disk() {
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
