//! Single decisions of the plan, one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::failed_tenant;
use super::{Action, GRACE, IDLE, PORTS, assignment, next_wakeup, plan};
use crate::pool::backoff::HEALTHY_LIFE;
use crate::pool::desired::{Assignment, Desired};
use crate::pool::observed::{Attention, ExitKind, Observed, StartReason, StopReason};

#[test]
fn the_first_crash_restarts_without_a_wait_and_the_second_waits() {
    let (now, port) = (Instant::now(), PORTS.start);
    let a = assignment(1, 2, 0);
    let assignments = BTreeMap::from([(port, Arc::clone(&a))]);
    let desired = Desired { assignments, stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new([port]);
    let crash = |observed: &mut Observed| {
        observed.started(port, Arc::clone(&a), 7, now);
        assert_eq!(observed.ended(port, false, false, now).unwrap().1, ExitKind::Crashed);
        assert_eq!(plan(&desired, observed, now), [Action::Attend(port, Attention::Watched)]);
        observed.attended(port, Attention::Watched);
        observed.connection_waits(port, now);
        plan(&desired, observed, now)
    };
    assert_eq!(crash(&mut observed), [Action::Start(port, Arc::clone(&a))]);
    assert_eq!(crash(&mut observed), []);
    let wakeup = next_wakeup(&desired, &observed, now).unwrap();
    assert_eq!(wakeup, now + Duration::from_millis(100));
    assert_eq!(plan(&desired, &observed, wakeup), [Action::Start(port, a)]);
}

#[test]
fn an_early_end_counts_as_a_crash_and_an_idle_one_does_not() {
    let (now, port) = (Instant::now(), PORTS.start);
    let mut observed = Observed::new([port]);
    let mut exit_kind_after = |lived| {
        observed.started(port, assignment(1, 2, 0), 7, now);
        observed.ended(port, true, true, now + lived).unwrap().1
    };
    assert_eq!(exit_kind_after(IDLE - Duration::from_millis(1)), ExitKind::Crashed);
    assert_eq!(exit_kind_after(IDLE), ExitKind::Idle);
}

#[test]
fn only_settings_are_told_to_a_running_worker() {
    let (now, port) = (Instant::now(), PORTS.start);
    let mut observed = Observed::new([port]);
    observed.started(port, assignment(1, 2, 0), 7, now);
    let planned = |new: Option<Arc<Assignment>>| {
        let assignments = new.into_iter().map(|new| (port, new)).collect();
        plan(&Desired { assignments, stop_grace: GRACE, is_closing: false }, &observed, now)
    };
    assert_eq!(planned(Some(assignment(1, 2, 0))), []);
    assert_eq!(planned(Some(assignment(1, 2, 9))), [Action::Configure(port, assignment(1, 2, 9))]);
    for other in [Some(assignment(3, 2, 0)), Some(assignment(1, 3, 0)), None] {
        assert_eq!(planned(other), [Action::Stop(port)]);
    }
}

#[test]
fn workers_make_way_for_a_new_program_one_after_the_other() {
    let now = Instant::now();
    let assignments: BTreeMap<u16, Arc<Assignment>> =
        PORTS.zip(0..).map(|(port, number)| (port, assignment(number, 2 + number, 0))).collect();
    let desired = Desired { assignments: assignments.clone(), stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new(PORTS);
    for (port, assignment) in &assignments {
        assert_eq!(observed.started(*port, Arc::clone(assignment), 7, now), Some(StartReason::Connection));
    }
    assert_eq!(plan(&desired, &observed, now), []);
    observed.program += 1;
    for (port, assignment) in &assignments {
        assert_eq!(plan(&desired, &observed, now), [Action::Replace(*port)]);
        observed.stopping(*port, StopReason::Replaced, now);
        assert_eq!(plan(&desired, &observed, now), [], "one at a time");
        assert_eq!(observed.ended(*port, false, true, now).unwrap().1, ExitKind::Stopped);
        let mut started = observed.clone();
        assert_eq!(started.started(*port, Arc::clone(assignment), 8, now), Some(StartReason::Upgrade));
        // Whether or not it has been started again, the next one has its turn.
        observed.attended(*port, Attention::Watched);
    }
    assert_eq!(plan(&desired, &observed, now), []);
}

#[test]
fn a_worker_of_the_pool_before_holds_its_slot_and_its_directory_until_it_has_ended() {
    let (now, port, other) = (Instant::now(), PORTS.start, PORTS.start + 1);
    let outside = PORTS.end;
    let assignments = BTreeMap::from([(port, assignment(1, 2, 0)), (other, assignment(2, 3, 0))]);
    let desired = Desired { assignments, stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new([port, other]);
    observed.inherited(port, assignment(1, 2, 9), 7, now);
    // The directory of the other slot's tenant is still open on a slot that this pool does not have.
    observed.inherited(outside, assignment(2, 3, 9), 8, now);
    assert_eq!(plan(&desired, &observed, now), [Action::Attend(other, Attention::Watched)]);
    observed.attended(other, Attention::Watched);
    observed.connection_waits(other, now);
    assert_eq!(plan(&desired, &observed, now), []);
    assert_eq!(observed.ended(outside, true, false, now).unwrap().1, ExitKind::Stopped);
    assert!(plan(&desired, &observed, now).contains(&Action::Start(other, assignment(2, 3, 0))));
    assert_eq!(observed.ended(port, true, false, now).unwrap().1, ExitKind::Stopped);
    assert!(plan(&desired, &observed, now).contains(&Action::Attend(port, Attention::Watched)));
    observed.attended(port, Attention::Watched);
    observed.connection_waits(port, now);
    assert!(plan(&desired, &observed, now).contains(&Action::Start(port, assignment(1, 2, 0))));
    assert_eq!(observed.started(port, assignment(1, 2, 0), 9, now), Some(StartReason::Upgrade));
}

#[test]
fn nobody_makes_way_for_a_program_that_is_yet_to_serve_or_that_crashed_before_it_did() {
    let now = Instant::now();
    let assignments: BTreeMap<u16, Arc<Assignment>> =
        PORTS.zip(0..).map(|(port, number)| (port, assignment(number, 2 + number, 0))).collect();
    let desired = Desired { assignments: assignments.clone(), stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new(PORTS);
    let start = |observed: &mut Observed, port: u16| {
        observed.attended(port, Attention::Watched);
        observed.connection_waits(port, now);
        observed.started(port, Arc::clone(&assignments[&port]), 7, now);
    };
    PORTS.for_each(|port| start(&mut observed, port));
    let (first, second, broken) = (PORTS.start, PORTS.start + 1, PORTS.end - 1);
    // One that crashes with the old program as well says nothing of the new one.
    observed.ended(broken, false, false, now);
    observed.program += 1;
    start(&mut observed, broken);
    observed.ended(broken, false, false, now);
    observed.attended(broken, Attention::Watched);
    assert_eq!(plan(&desired, &observed, now), [Action::Replace(first)]);
    observed.stopping(first, StopReason::Replaced, now);
    observed.ended(first, true, true, now);

    start(&mut observed, first);
    assert_eq!(plan(&desired, &observed, now), [], "on trial");
    let trial_ends = next_wakeup(&desired, &observed, now).unwrap();
    assert_eq!(trial_ends, now + HEALTHY_LIFE, "one that nobody asks anything is good in the end");
    assert_eq!(plan(&desired, &observed, trial_ends), [Action::Replace(second)]);

    observed.ended(first, false, false, now);
    observed.attended(first, Attention::Watched);
    assert_eq!(failed_tenant(&desired, &observed).unwrap(), assignments[&first].as_ref());
    assert_eq!(plan(&desired, &observed, trial_ends), [], "it is no good");
    start(&mut observed, first);
    observed.served(first, now);
    assert_eq!(plan(&desired, &observed, now), [Action::Replace(second)], "it was not the program");

    observed.ended(first, false, false, now);
    observed.attended(first, Attention::Watched);
    assert_eq!(plan(&desired, &observed, now), []);
    observed.program += 1;
    assert_eq!(plan(&desired, &observed, now), [Action::Replace(second)], "a newer one has its chance");
}
