//! Decides what to do now, from the desired and the observed state. No socket, no process, no clock.
//!
//! Invariants, whatever the order of events: a slot has up to one worker, and so has a directory. A worker without an
//! assignment is stopping. Workers of an old program are stopped one after the other. A waiting connection gets a worker as
//! soon as the back-off is over and the previous worker has exited.

use std::sync::Arc;
use std::time::Instant;

use super::backoff::HEALTHY_AFTER;
use super::desired::{Assignment, Desired};
use super::observed::{DirectoryState, Observed, Slot, SocketMode, StopReason, Worker};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    SetSocketMode(u16, SocketMode),
    Start(u16, Arc<Assignment>),
    SendSettings(u16, Arc<Assignment>),
    Stop(u16, StopReason),
    /// Kill the worker, which took too long to stop.
    Kill(u16),
}

/// The limit of planning rounds. A start that fails needs three: it leaves its slot unwatched, the second round watches it
/// again, and the third has nothing to do. More would be a defect of the plan, which must not keep the loop from its events.
const MAX_ROUNDS: usize = 4;

/// How many workers are replaced at once by a new program. If it doesn't work, few tenants are affected.
const MAX_REPLACED_AT_ONCE: usize = 1;

/// Plans and performs until no action is left, because an action may require another. Only then may the loop wait for
/// events, or for [`next_wakeup`]. Returns whether the plan converged.
pub(crate) async fn run_to_fixpoint<W>(
    world: &mut W,
    plan: impl Fn(&W) -> Vec<Action>,
    mut perform: impl AsyncFnMut(&mut W, Action),
) -> bool {
    for _ in 0..MAX_ROUNDS {
        let actions = plan(world);
        if actions.is_empty() {
            return true;
        }
        for action in actions {
            perform(world, action).await;
        }
    }
    plan(world).is_empty()
}

/// What to do now: up to one action per slot. [`run_to_fixpoint`] plans again when all are done.
pub(crate) fn plan(desired: &Desired, observed: &Observed, now: Instant) -> Vec<Action> {
    let leaving = leaving_workers(desired, observed);
    let replaced = replaced_workers(desired, observed, now);
    let decide = |(&port, slot): (&u16, &Slot)| {
        let assignment = desired.assignments.get(&port);
        match (&slot.worker, assignment) {
            _ if replaced.contains(&port) => Some(Action::Stop(port, StopReason::NewProgram)),
            (Some(worker), _) if let Some(stop) = worker.stop => {
                let is_late = now.saturating_duration_since(stop.since) >= desired.stop_grace;
                (is_late && !stop.is_killed).then_some(Action::Kill(port))
            }
            (Some(worker), assignment) => decide_running(port, worker, assignment, observed),
            (None, Some(assignment)) => {
                decide_without_worker(port, slot, assignment, &leaving, observed.is_data_root_missing, now)
            }
            (None, None) => decide_unassigned(port, slot, desired.is_closing),
        }
    };
    observed.slots.iter().filter_map(decide).collect()
}

/// When to call [`plan`] again even without an event.
pub(crate) fn next_wakeup(desired: &Desired, observed: &Observed, now: Instant) -> Option<Instant> {
    let wakeup = |(port, slot): (&u16, &Slot)| match &slot.worker {
        Some(worker) => {
            let stop = worker.stop.filter(|stop| !stop.is_killed)?;
            stop.since.checked_add(desired.stop_grace)
        }
        None if slot.socket_mode == SocketMode::ConnectionWaits => {
            slot.backs_off_until(desired.assignments.get(port)?.as_ref(), now)
        }
        None => None,
    };
    let trial = (observed.outdated_count() > 0).then(|| trials(observed, now).max()).flatten();
    observed.slots.iter().filter_map(wakeup).chain(trial).min()
}

/// A tenant whose first worker of the newest program crashed before it served, and that no worker has served since. Until
/// one does, or there is a newer program, the old program's workers stay. A tenant that an older program failed as well
/// does not count.
pub(crate) fn failed_tenant<'a>(desired: &'a Desired, observed: &Observed) -> Option<&'a Assignment> {
    desired.assignments.iter().find_map(|(port, assignment)| {
        let history = observed.slots.get(port)?.history.as_ref()?;
        let is_failed =
            history.assignment.is_same_worker(assignment) && history.failed_program == Some(observed.program);
        is_failed.then_some(assignment.as_ref())
    })
}

/// The workers whose directories the registry may already have given to another tenant. All others have the directory that
/// the registry says, which has no directory twice.
fn leaving_workers<'a>(desired: &Desired, observed: &'a Observed) -> Vec<&'a Worker> {
    let leaves = |(port, slot): (&u16, &'a Slot)| {
        let worker = slot.worker.as_ref()?;
        let assignment = desired.assignments.get(port);
        let is_in_place = assignment.is_some_and(|new| new.is_same_worker(&worker.assignment));
        (!is_in_place).then_some(worker)
    };
    observed.slots.iter().filter_map(leaves).collect()
}

/// When the trial of each worker of the newest program ends that has yet to serve: after that it counts as healthy.
fn trials(observed: &Observed, now: Instant) -> impl Iterator<Item = Instant> {
    let workers = observed.slots.values().filter_map(|slot| slot.worker.as_ref());
    let on_trial = workers.filter(|worker| {
        worker.program == observed.program && worker.stop.is_none() && worker.waited_since.is_some()
    });
    on_trial.filter_map(|worker| worker.since.checked_add(HEALTHY_AFTER)).filter(move |end| *end > now)
}

/// The workers to replace now by a new program: none while a worker of that program has yet to serve.
fn replaced_workers(desired: &Desired, observed: &Observed, now: Instant) -> Vec<u16> {
    if failed_tenant(desired, observed).is_some() || trials(observed, now).next().is_some() {
        return Vec::new();
    }
    let is_outdated = |(port, slot): (&u16, &Slot)| {
        let worker = slot.worker.as_ref().filter(|worker| worker.stop.is_none())?;
        let is_wanted = desired.assignments.get(port)?.is_same_worker(&worker.assignment);
        (is_wanted && worker.program != observed.program).then_some(*port)
    };
    let count = MAX_REPLACED_AT_ONCE.saturating_sub(observed.stopping_count(StopReason::NewProgram));
    observed.slots.iter().filter_map(is_outdated).take(count).collect()
}

fn decide_running(
    port: u16,
    worker: &Worker,
    assignment: Option<&Arc<Assignment>>,
    observed: &Observed,
) -> Option<Action> {
    let Some(new) = assignment.filter(|new| new.is_same_worker(&worker.assignment)) else {
        return Some(Action::Stop(port, StopReason::Unwanted));
    };
    if observed.missing_data(port, new) != worker.missing_data {
        return Some(Action::Stop(port, StopReason::DataChanged));
    }
    (*new != worker.assignment).then(|| Action::SendSettings(port, Arc::clone(new)))
}

fn decide_without_worker(
    port: u16,
    slot: &Slot,
    assignment: &Arc<Assignment>,
    leaving: &[&Worker],
    is_data_root_missing: bool,
    now: Instant,
) -> Option<Action> {
    match slot.socket_mode {
        SocketMode::Unwatched | SocketMode::Refusing => {
            Some(Action::SetSocketMode(port, SocketMode::Watched))
        }
        SocketMode::Watched => None,
        SocketMode::ConnectionWaits => {
            let is_being_checked =
                !is_data_root_missing && slot.directory_state(assignment) == Some(DirectoryState::Checking);
            let must_wait = slot.backs_off_until(assignment, now).is_some() || is_being_checked;
            let is_taken = leaving.iter().any(|worker| worker.assignment.shares_directory(assignment));
            (!must_wait && !is_taken).then(|| Action::Start(port, Arc::clone(assignment)))
        }
    }
}

fn decide_unassigned(port: u16, slot: &Slot, is_closing: bool) -> Option<Action> {
    let wanted = if is_closing { SocketMode::Unwatched } else { SocketMode::Refusing };
    (slot.socket_mode != wanted).then_some(Action::SetSocketMode(port, wanted))
}

#[cfg(test)]
mod tests;
