//! Whether the history of a scroll is linearizable: whether each call can have taken effect at one moment between its
//! start and its answer. Wing and Gong's search (1993) with Lowe's memory of what has been tried (2017).
//!
//! Scrolls are independent (Herlihy and Wing's locality), so each history is searched by itself. That each acknowledged
//! write is there once, and each other one at most once, follows: texts are unique and seen whole.

use std::collections::HashSet;

use crate::history::{Call, Stamp};
use crate::model::{State, Step, Texts};

/// States that a search may visit. A correct history visits about as many as it has calls; this many take seconds.
pub(crate) const MOST_STATES: usize = 2_000_000;

/// What is found about a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is linearizable; so many states were visited.
    Linearizable(usize),
    /// It is not.
    Violation,
    /// [`MOST_STATES`] were visited.
    Undecided,
}

/// Which calls have taken effect.
type Taken = Vec<u64>;

/// A call with numbered texts.
struct Event {
    began: Stamp,
    /// `Stamp::MAX` where the outcome is unknown.
    ended: Stamp,
    step: Step,
    leads_back: bool,
}

struct Search {
    /// In the order of their starts; those that must take effect first, then those that may.
    events: Vec<Event>,
    certain: usize,
    texts: Texts,
    taken: Taken,
    /// Every event before it has been taken.
    first: usize,
    visited: HashSet<(Taken, State)>,
}

/// A place in the search: what may be taken from here, and what has been tried of it.
struct Frame {
    state: State,
    candidates: Vec<usize>,
    tried: usize,
    first: usize,
}

/// Searches an order in which the calls can have taken effect.
pub(crate) fn check(calls: &[Call]) -> Verdict {
    let mut search = Search::new(calls);
    let mut frames = vec![search.frame(State::empty())];
    while let Some(frame) = frames.last_mut() {
        search.first = frame.first;
        if search.is_complete() {
            return Verdict::Linearizable(search.visited.len());
        }
        let Some(event) = frame.candidates.get(frame.tried).copied() else {
            frames.pop();
            // The step that led here is taken back.
            if let Some(before) = frames.last() {
                search.set_taken(before.candidates[before.tried - 1], false);
            }
            continue;
        };
        frame.tried += 1;
        if let Some(state) = search.take(event, &frame.state) {
            if search.visited.len() > MOST_STATES {
                return Verdict::Undecided;
            }
            frames.push(search.frame(state));
        }
    }
    Verdict::Violation
}

impl Search {
    fn new(calls: &[Call]) -> Self {
        let is_certain = |call: &&Call| call.ended.is_some();
        let mut sorted: Vec<&Call> = calls.iter().collect();
        sorted.sort_by_key(|call| (!is_certain(call), call.began));
        let certain = sorted.iter().filter(|call| is_certain(call)).count();
        let mut texts = Texts::default();
        let event = |call: &Call| Event {
            began: call.began,
            ended: call.ended.unwrap_or(Stamp::MAX),
            step: texts.step(&call.operation),
            leads_back: false,
        };
        let mut events: Vec<Event> = sorted.into_iter().map(event).collect();
        events.iter_mut().for_each(|event| event.leads_back = event.step.leads_back(&mut texts));
        let taken = vec![0; events.len().div_ceil(64)];
        Self { events, certain, texts, taken, first: 0, visited: HashSet::new() }
    }

    /// Whether everything that must take effect has.
    fn is_complete(&self) -> bool {
        self.first == self.certain
    }

    fn frame(&mut self, state: State) -> Frame {
        while self.first < self.certain && self.is_taken(self.first) {
            self.first += 1;
        }
        let mut candidates = self.candidates();
        // What has no effect may as well come at once: nothing that can happen later becomes impossible by it.
        let is_idle =
            |index: &usize| state.after(&self.events[*index].step, &mut self.texts).as_ref() == Some(&state);
        let mut certain = candidates.iter().copied().filter(|index| *index < self.certain);
        if let Some(idle) = certain.find(is_idle) {
            candidates = vec![idle];
        }
        Frame { state, candidates, tried: 0, first: self.first }
    }

    /// What can be next: each call that started before the first answer among those that are left. Those with an answer
    /// come first, because most of the others never took effect.
    fn candidates(&self) -> Vec<usize> {
        let mut deadline = Stamp::MAX;
        let mut found = Vec::new();
        for (index, event) in self.left(self.first..self.certain) {
            if event.began > deadline {
                break;
            }
            deadline = deadline.min(event.ended);
            found.push(index);
        }
        found.retain(|index| self.events[*index].began < deadline);
        let may_be = self.left(self.certain..self.events.len());
        found.extend(may_be.take_while(|(_, event)| event.began < deadline).map(|(index, _)| index));
        found
    }

    /// Takes a call, if it can take effect now and the search has not been there.
    fn take(&mut self, index: usize, state: &State) -> Option<State> {
        let next = state.after(&self.events[index].step, &mut self.texts)?;
        self.set_taken(index, true);
        if self.is_hopeless(&next) || !self.visited.insert((self.taken.clone(), next.clone())) {
            self.set_taken(index, false);
            return None;
        }
        Some(next)
    }

    /// Whether the text was never seen, and what comes next needs one that was, with nothing before it to lead back.
    fn is_hopeless(&self, state: &State) -> bool {
        if self.texts.leads_to_seen(state.text) {
            return false;
        }
        let mut needed_by = Stamp::MAX;
        let mut back_from = Stamp::MAX;
        for (_, event) in self.left(self.first..self.certain) {
            if event.began > needed_by {
                break;
            }
            if event.step.needs_seen_text() {
                needed_by = needed_by.min(event.ended);
            }
            if event.leads_back {
                back_from = back_from.min(event.began);
            }
        }
        let may_lead_back = self.left(self.certain..self.events.len()).find(|(_, event)| event.leads_back);
        let back_from = back_from.min(may_lead_back.map_or(Stamp::MAX, |(_, event)| event.began));
        needed_by != Stamp::MAX && back_from > needed_by
    }

    /// The events of a range that are not taken.
    fn left(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, &Event)> {
        range.filter(|index| !self.is_taken(*index)).map(|index| (index, &self.events[index]))
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] >> (index % 64) & 1 == 1
    }

    fn set_taken(&mut self, index: usize, is_taken: bool) {
        let bit = 1 << (index % 64);
        let word = &mut self.taken[index / 64];
        *word = if is_taken { *word | bit } else { *word & !bit };
    }
}
