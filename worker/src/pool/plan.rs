//! Decides, from what should be and what is, what to do now. Pure: no socket, no process, no clock.
//!
//! What holds whatever the order of events: a slot has one worker, a directory has one worker, a worker
//! without a reason to be is on its way out, one of an old program too when its turn comes, and a waiting
//! connection gets a worker as soon as the back-off and the worker before let it.

use std::sync::Arc;
use std::time::Instant;

use super::backoff::HEALTHY_LIFE;
use super::desired::{Assignment, Desired};
use super::observed::{Attention, Observed, PlaceState, Slot, StopReason, Worker};
use crate::settings::Absence;

/// One thing to do on one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Treat the slot's connections so: leave, watch or refuse them.
    Attend(u16, Attention),
    /// Start a worker.
    Start(u16, Arc<Assignment>),
    /// Send the worker its new settings.
    Configure(u16, Arc<Assignment>),
    /// Tell the worker to finish and go.
    Stop(u16),
    /// The same, because there is a new program.
    Replace(u16),
    /// It took too long.
    Kill(u16),
    /// End the worker at once: its directory is gone, or it stands in for one that is back.
    Displace(u16),
}

/// Most rounds of planning until nothing is left to do: a start that fails leaves its slot unwatched, the
/// second round watches it again, and the third finds nothing to do. If it takes more, the plan has a defect, which must
/// not keep the loop from its events.
const MOST_ROUNDS: usize = 4;

/// So many workers are on their way out at once because of a new program: should it be no good, few tenants notice.
const MOST_REPLACED_AT_ONCE: usize = 1;

/// Plans and performs until nothing is left to do, because an action may call for another. Only then may the loop wait
/// for an event, or for [`next_wakeup`]. Gives whether the plan has converged.
pub async fn run_to_fixpoint<W>(
    world: &mut W,
    plan: impl Fn(&W) -> Vec<Action>,
    mut perform: impl AsyncFnMut(&mut W, Action),
) -> bool {
    for _ in 0..MOST_ROUNDS {
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

/// What to do now: at most one action a slot. [`run_to_fixpoint`] asks again when all are done.
pub fn plan(desired: &Desired, observed: &Observed, now: Instant) -> Vec<Action> {
    let leaving = leaving_workers(desired, observed);
    let replaced = replaced_workers(desired, observed, now);
    let decide = |(&port, slot): (&u16, &Slot)| {
        let assignment = desired.assignments.get(&port);
        match (&slot.worker, assignment) {
            _ if replaced.contains(&port) => Some(Action::Replace(port)),
            (Some(worker), assignment) => {
                let absence = assignment.and_then(|assignment| observed.absence(port, assignment));
                decide_running(port, worker, assignment.zip(Some(absence)), desired, now)
            }
            (None, Some(assignment)) => {
                decide_asleep(port, slot, assignment, &leaving, observed.is_root_lost, now)
            }
            (None, None) => decide_free(port, slot, desired.is_closing),
        }
    };
    observed.slots.iter().filter_map(decide).collect()
}

/// When [`plan`] must be asked again even if nothing happens; `None` when there is no such time.
pub fn next_wakeup(desired: &Desired, observed: &Observed, now: Instant) -> Option<Instant> {
    let wakeup = |(port, slot): (&u16, &Slot)| match &slot.worker {
        Some(worker) => {
            let stop = worker.stop.filter(|stop| !stop.is_killed)?;
            stop.since.checked_add(desired.stop_grace)
        }
        None if slot.attention == Attention::Waiting => {
            slot.holds_until(desired.assignments.get(port)?.as_ref(), now)
        }
        None => None,
    };
    let turn = (observed.outdated_count() > 0).then(|| trials(observed, now).max()).flatten();
    observed.slots.iter().filter_map(wakeup).chain(turn).min()
}

/// A tenant that the newest program has failed: its worker crashed before it had served anything, and none has served
/// since. Until one does, or there is a newer program, the workers of the old one stay. A tenant that an older program
/// had failed, too, says nothing of this one.
pub fn failed_tenant<'a>(desired: &'a Desired, observed: &Observed) -> Option<&'a Assignment> {
    desired.assignments.iter().find_map(|(port, assignment)| {
        let history = observed.slots.get(port)?.history.as_ref()?;
        let is_failed =
            history.assignment.is_same_worker(assignment) && history.failed_program == Some(observed.program);
        is_failed.then_some(assignment.as_ref())
    })
}

/// The workers whose directories are not free yet though the registry may already have given them away.
/// All others hold what the registry says, and that gives no directory twice.
fn leaving_workers<'a>(desired: &Desired, observed: &'a Observed) -> Vec<&'a Worker> {
    let leaves = |(port, slot): (&u16, &'a Slot)| {
        let worker = slot.worker.as_ref()?;
        let assignment = desired.assignments.get(port);
        let is_in_place = assignment.is_some_and(|new| new.is_same_worker(&worker.assignment));
        (!is_in_place).then_some(worker)
    };
    observed.slots.iter().filter_map(leaves).collect()
}

/// When each worker of the newest program that has yet to serve is as good as one that has.
fn trials(observed: &Observed, now: Instant) -> impl Iterator<Item = Instant> {
    let workers = observed.slots.values().filter_map(|slot| slot.worker.as_ref());
    let on_trial = workers.filter(|worker| {
        worker.program == observed.program && worker.stop.is_none() && worker.waited_since.is_some()
    });
    on_trial.filter_map(|worker| worker.since.checked_add(HEALTHY_LIFE)).filter(move |end| *end > now)
}

/// The workers whose turn it is to make way for a new program. One that goes anyway needs no turn. Nobody has one while
/// a worker of that program has yet to show that it serves.
fn replaced_workers(desired: &Desired, observed: &Observed, now: Instant) -> Vec<u16> {
    if failed_tenant(desired, observed).is_some() || trials(observed, now).next().is_some() {
        return Vec::new();
    }
    let is_outdated = |(port, slot): (&u16, &Slot)| {
        let worker = slot.worker.as_ref().filter(|worker| worker.stop.is_none())?;
        let is_wanted = desired.assignments.get(port)?.is_same_worker(&worker.assignment);
        (is_wanted && worker.program != observed.program).then_some(*port)
    };
    let turns = MOST_REPLACED_AT_ONCE.saturating_sub(observed.stopping_count(StopReason::Replaced));
    observed.slots.iter().filter_map(is_outdated).take(turns).collect()
}

fn decide_running(
    port: u16,
    worker: &Worker,
    wanted: Option<(&Arc<Assignment>, Option<Absence>)>,
    desired: &Desired,
    now: Instant,
) -> Option<Action> {
    if let Some(stop) = worker.stop {
        let is_late = now.saturating_duration_since(stop.since) >= desired.stop_grace;
        return (is_late && !stop.is_killed).then_some(Action::Kill(port));
    }
    match wanted {
        Some((new, absence)) if new.is_same_worker(&worker.assignment) => {
            if absence != worker.absence {
                return Some(Action::Displace(port));
            }
            (*new != worker.assignment).then(|| Action::Configure(port, Arc::clone(new)))
        }
        _ => Some(Action::Stop(port)),
    }
}

fn decide_asleep(
    port: u16,
    slot: &Slot,
    assignment: &Arc<Assignment>,
    leaving: &[&Worker],
    is_root_lost: bool,
    now: Instant,
) -> Option<Action> {
    match slot.attention {
        Attention::Left | Attention::Refused => Some(Action::Attend(port, Attention::Watched)),
        Attention::Watched => None,
        Attention::Waiting => {
            let is_looked_at = !is_root_lost && slot.place_of(assignment) == Some(PlaceState::Looking);
            let is_held = slot.holds_until(assignment, now).is_some() || is_looked_at;
            let is_taken = leaving.iter().any(|worker| worker.assignment.shares_directory(assignment));
            (!is_held && !is_taken).then(|| Action::Start(port, Arc::clone(assignment)))
        }
    }
}

fn decide_free(port: u16, slot: &Slot, is_closing: bool) -> Option<Action> {
    let wanted = if is_closing { Attention::Left } else { Attention::Refused };
    (slot.attention != wanted).then_some(Action::Attend(port, wanted))
}

#[cfg(test)]
mod tests;
