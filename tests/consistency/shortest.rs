//! A shorter history with a violation. Each step leaves out only what cannot be its cause: where the shorter history is
//! not linearizable, the longer one is not for the same reason.

use std::collections::HashSet;

use crate::checker::{Verdict, check};
use crate::history::{Call, Edit, Key, Operation, Outcome, Stamp};

/// The first part of a history that has a violation, without the calls without effect that are not needed for it, and
/// without what was replaced before it.
pub(crate) fn shortest(calls: &[Call]) -> Vec<Call> {
    let mut ends: Vec<Stamp> = calls.iter().filter_map(|call| call.ended).collect();
    ends.sort_unstable();
    let linearizable = ends.partition_point(|end| !has_violation(&until(calls, *end)));
    let mut left = ends.get(linearizable).map_or_else(|| calls.to_vec(), |end| until(calls, *end));
    left.sort_by_key(|call| call.began);
    for index in (0..left.len()).rev() {
        let mut without = left.clone();
        let call = without.remove(index);
        if !may_have_effect(&call, &left) && has_violation(&without) {
            left = without;
        }
    }
    let cut = (0..left.len()).rev().filter_map(|index| from(&left, index)).find(|calls| has_violation(calls));
    cut.unwrap_or(left)
}

fn has_violation(calls: &[Call]) -> bool {
    check(calls) == Verdict::Violation
}

/// The history as it was at this moment: what had no answer yet is unknown.
fn until(calls: &[Call], end: Stamp) -> Vec<Call> {
    let begun = calls.iter().filter(|call| call.began < end).cloned();
    let known = begun.filter_map(|mut call| {
        if call.ended.is_none_or(|ended| ended <= end) {
            return Some(call);
        }
        if !may_have_effect(&call, calls) {
            return None;
        }
        call.ended = None;
        if let Operation::Write(_, outcome) = &mut call.operation {
            *outcome = Outcome::Unknown;
        }
        Some(call)
    });
    known.collect()
}

/// The history from a replacement on; `None` where what was answered before it still matters: another call that may come
/// before the replacement hangs on the text, or a key comes again.
fn from(calls: &[Call], index: usize) -> Option<Vec<Call>> {
    let first = &calls[index];
    let Operation::Write(write, Outcome::Done { is_replay: false, .. }) = &first.operation else {
        return None;
    };
    if !matches!(write.edit, Edit::Replace(_)) || write.expected.is_some() {
        return None;
    }
    let (before, left): (Vec<&Call>, Vec<&Call>) =
        calls.iter().partition(|call| call.ended.is_some_and(|ended| ended < first.began));
    let keys: HashSet<Key> = before.into_iter().filter_map(key_of).collect();
    let is_independent = |call: &&Call| {
        let is_after = first.ended.is_some_and(|ended| ended < call.began);
        (is_after || is_done_to_any_text(call)) && key_of(call).is_none_or(|key| !keys.contains(&key))
    };
    left.iter().all(is_independent).then(|| left.into_iter().cloned().collect())
}

/// Whether the outcome is possible whatever the text is.
fn is_done_to_any_text(call: &Call) -> bool {
    let Operation::Write(write, outcome) = &call.operation else { return false };
    let is_told_of_text = matches!((write.edit, outcome), (Edit::Remove, Outcome::Done { .. }));
    write.expected.is_none() && !is_told_of_text
}

/// Whether the call can have changed the scroll: it is no read, it was not refused, and no call before it has surely
/// been remembered under its key.
fn may_have_effect(call: &Call, calls: &[Call]) -> bool {
    let Operation::Write(write, Outcome::Done { .. } | Outcome::Unknown) = &call.operation else {
        return false;
    };
    let is_remembered = |before: &Call| {
        let is_done = matches!(before.operation, Operation::Write(_, Outcome::Done { .. }));
        is_done && key_of(before) == write.key && before.ended.is_some_and(|ended| ended < call.began)
    };
    write.key.is_none() || !calls.iter().any(is_remembered)
}

fn key_of(call: &Call) -> Option<Key> {
    let Operation::Write(write, _) = &call.operation else { return None };
    write.key
}
