//! Single decisions of the plan, one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::failed_tenant;
use super::{Action, GRACE, IDLE, PORTS, assignment, next_wakeup, plan};
use crate::pool::backoff::HEALTHY_AFTER;
use crate::pool::desired::{Assignment, Desired};
use crate::pool::observed::{ExitKind, Observed, SocketMode, StartReason, StopReason};

#[test]
fn a_restart_waits_only_after_the_second_crash() {
    let (now, port) = (Instant::now(), PORTS.start);
    let a = assignment(1, 2, 0);
    let assignments = BTreeMap::from([(port, Arc::clone(&a))]);
    let desired = Desired { assignments, stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new([port]);
    let crash = |observed: &mut Observed| {
        observed.started(port, Arc::clone(&a), 7, now);
        assert_eq!(observed.ended(port, None, false, now).unwrap().1, ExitKind::Crashed);
        assert_eq!(plan(&desired, observed, now), [Action::SetSocketMode(port, SocketMode::Watched)]);
        observed.socket_mode_set(port, SocketMode::Watched);
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
fn an_early_exit_counts_as_a_crash_and_an_idle_one_does_not() {
    let (now, port) = (Instant::now(), PORTS.start);
    let mut observed = Observed::new([port]);
    let mut exit_after = |lived| {
        observed.started(port, assignment(1, 2, 0), 7, now);
        observed.ended(port, Some(0), true, now + lived).unwrap().1
    };
    assert_eq!(exit_after(IDLE - Duration::from_millis(1)), ExitKind::Crashed);
    assert_eq!(exit_after(IDLE), ExitKind::Idle);
}

#[test]
fn a_running_worker_is_sent_only_settings_and_otherwise_stopped() {
    let (now, port) = (Instant::now(), PORTS.start);
    let mut observed = Observed::new([port]);
    observed.started(port, assignment(1, 2, 0), 7, now);
    let planned = |new: Option<Arc<Assignment>>| {
        let assignments = new.into_iter().map(|new| (port, new)).collect();
        plan(&Desired { assignments, stop_grace: GRACE, is_closing: false }, &observed, now)
    };
    assert_eq!(planned(Some(assignment(1, 2, 0))), []);
    assert_eq!(planned(Some(assignment(1, 2, 9))), [Action::SendSettings(port, assignment(1, 2, 9))]);
    for other in [Some(assignment(3, 2, 0)), Some(assignment(1, 3, 0)), None] {
        assert_eq!(planned(other), [Action::Stop(port, StopReason::Unwanted)]);
    }
}

#[test]
fn a_new_program_replaces_workers_one_after_the_other() {
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
        assert_eq!(plan(&desired, &observed, now), [Action::Stop(*port, StopReason::NewProgram)]);
        observed.stopping(*port, StopReason::NewProgram, now);
        assert_eq!(plan(&desired, &observed, now), [], "one at a time");
        assert_eq!(observed.ended(*port, None, true, now).unwrap().1, ExitKind::Stopped);
        let mut started = observed.clone();
        assert_eq!(started.started(*port, Arc::clone(assignment), 8, now), Some(StartReason::Upgrade));
        // The next one is replaced whether or not this one was started again.
        observed.socket_mode_set(*port, SocketMode::Watched);
    }
    assert_eq!(plan(&desired, &observed, now), []);
}

#[test]
fn a_worker_of_the_previous_pool_keeps_its_slot_and_directory_until_it_has_exited() {
    let (now, port, other) = (Instant::now(), PORTS.start, PORTS.start + 1);
    let outside = PORTS.end;
    let assignments = BTreeMap::from([(port, assignment(1, 2, 0)), (other, assignment(2, 3, 0))]);
    let desired = Desired { assignments, stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new([port, other]);
    observed.add_old_pool_worker(port, assignment(1, 2, 9), 7, now);
    // The other tenant's directory is still open on a slot that this pool does not have.
    observed.add_old_pool_worker(outside, assignment(2, 3, 9), 8, now);
    assert_eq!(plan(&desired, &observed, now), [Action::SetSocketMode(other, SocketMode::Watched)]);
    observed.socket_mode_set(other, SocketMode::Watched);
    observed.connection_waits(other, now);
    assert_eq!(plan(&desired, &observed, now), []);
    assert_eq!(observed.ended(outside, Some(0), false, now).unwrap().1, ExitKind::Stopped);
    assert!(plan(&desired, &observed, now).contains(&Action::Start(other, assignment(2, 3, 0))));
    assert_eq!(observed.ended(port, Some(0), false, now).unwrap().1, ExitKind::Stopped);
    assert!(plan(&desired, &observed, now).contains(&Action::SetSocketMode(port, SocketMode::Watched)));
    observed.socket_mode_set(port, SocketMode::Watched);
    observed.connection_waits(port, now);
    assert!(plan(&desired, &observed, now).contains(&Action::Start(port, assignment(1, 2, 0))));
    assert_eq!(observed.started(port, assignment(1, 2, 0), 9, now), Some(StartReason::Upgrade));
}

#[test]
fn no_worker_is_replaced_by_a_program_that_has_yet_to_serve_or_crashed_before_it_did() {
    let now = Instant::now();
    let assignments: BTreeMap<u16, Arc<Assignment>> =
        PORTS.zip(0..).map(|(port, number)| (port, assignment(number, 2 + number, 0))).collect();
    let desired = Desired { assignments: assignments.clone(), stop_grace: GRACE, is_closing: false };
    let mut observed = Observed::new(PORTS);
    let start = |observed: &mut Observed, port: u16| {
        observed.socket_mode_set(port, SocketMode::Watched);
        observed.connection_waits(port, now);
        observed.started(port, Arc::clone(&assignments[&port]), 7, now);
    };
    PORTS.for_each(|port| start(&mut observed, port));
    let (first, second, broken) = (PORTS.start, PORTS.start + 1, PORTS.end - 1);
    // A tenant whose worker crashes with the old program as well does not count against the new one.
    observed.ended(broken, None, false, now);
    observed.program += 1;
    start(&mut observed, broken);
    observed.ended(broken, None, false, now);
    observed.socket_mode_set(broken, SocketMode::Watched);
    assert_eq!(plan(&desired, &observed, now), [Action::Stop(first, StopReason::NewProgram)]);
    observed.stopping(first, StopReason::NewProgram, now);
    observed.ended(first, Some(0), true, now);

    start(&mut observed, first);
    assert_eq!(plan(&desired, &observed, now), [], "on trial");
    let trial_ends = next_wakeup(&desired, &observed, now).unwrap();
    assert_eq!(trial_ends, now + HEALTHY_AFTER, "without a request, the trial ends after a while");
    assert_eq!(plan(&desired, &observed, trial_ends), [Action::Stop(second, StopReason::NewProgram)]);

    observed.ended(first, None, false, now);
    observed.socket_mode_set(first, SocketMode::Watched);
    assert_eq!(failed_tenant(&desired, &observed).unwrap(), assignments[&first].as_ref());
    assert_eq!(plan(&desired, &observed, trial_ends), [], "the program failed");
    start(&mut observed, first);
    observed.served(first, now);
    assert_eq!(
        plan(&desired, &observed, now),
        [Action::Stop(second, StopReason::NewProgram)],
        "the program serves now"
    );

    observed.ended(first, None, false, now);
    observed.socket_mode_set(first, SocketMode::Watched);
    assert_eq!(plan(&desired, &observed, now), []);
    observed.program += 1;
    assert_eq!(
        plan(&desired, &observed, now),
        [Action::Stop(second, StopReason::NewProgram)],
        "a newer program is tried"
    );
}
