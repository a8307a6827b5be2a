//! Records what clients tried and what responses they got, out of the reach of every fault, and compares that with
//! the state afterwards: acknowledged ⊆ state ⊆ attempted, every text byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::answer::Answer;
use crate::client::Client;

/// The place of a scroll. Only one client at a time may write to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    phext: String,
    coordinate: String,
}

/// A kind of write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `insert`.
    Append(String),
    /// `update`.
    Replace(String),
    /// `delete`.
    Remove,
}

/// A write of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub place: Place,
    /// What.
    pub edit: Edit,
}

/// The texts of all scrolls that are not empty.
pub type State = BTreeMap<Place, String>;

/// A place in the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(usize);

/// All attempts and responses, in their order.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Event>>);

#[derive(Debug)]
enum Event {
    /// A reader has seen this text there.
    Known(Place, String),
    Attempted(Write),
    /// The attempt with this number was answered with 200.
    Acknowledged(usize),
    /// The attempt with this number was answered with a status that rules out any effect.
    Refused(usize),
}

/// The texts that a scroll may have.
#[derive(Debug, Default)]
struct Scroll {
    /// The texts that it may have now.
    may_be: BTreeSet<String>,
    /// The texts that it may have had at any time since the window opened.
    may_have_been: BTreeSet<String>,
    /// The texts that it might have had before the last attempt.
    before: BTreeSet<String>,
}

impl Place {
    /// The scroll with this number in a phext.
    pub fn new(phext: &str, number: usize) -> Self {
        Self { phext: phext.to_owned(), coordinate: format!("1.1.1/1.1.1/1.1.{number}") }
    }

    /// Its coordinate.
    pub fn coordinate(&self) -> &str {
        &self.coordinate
    }

    /// The target of a request for it.
    pub fn target(&self, command: &str) -> String {
        format!("/api/v2/{command}?p={}&c={}", self.phext, self.coordinate)
    }
}

impl Write {
    /// A write to the scroll with this number in a phext.
    pub fn new(phext: &str, number: usize, edit: Edit) -> Self {
        Self { place: Place::new(phext, number), edit }
    }

    /// Sends it.
    ///
    /// # Errors
    /// Why there is no whole response.
    pub fn send(&self, client: &Client) -> io::Result<Answer> {
        let (command, text) = match &self.edit {
            Edit::Append(text) => ("insert", text.as_str()),
            Edit::Replace(text) => ("update", text.as_str()),
            Edit::Remove => ("delete", ""),
        };
        client.try_request("POST", &self.place.target(command), "", Some(text.as_bytes()))
    }

    fn applied_to(&self, old: &str) -> String {
        match &self.edit {
            Edit::Append(text) => old.to_owned() + text,
            Edit::Replace(text) => text.clone(),
            Edit::Remove => String::new(),
        }
    }
}

impl Ledger {
    /// Notes that a scroll has this text.
    pub fn known(&self, place: Place, text: String) {
        self.events().push(Event::Known(place, text));
    }

    /// Notes a write before it is tried, and then its result.
    ///
    /// # Errors
    /// Why there is no whole response: the write may have been applied or not.
    pub fn perform(&self, client: &Client, write: Write) -> io::Result<Answer> {
        let number = self.attempt(write.clone());
        let answer = write.send(client)?;
        match answer.status {
            200 => self.events().push(Event::Acknowledged(number)),
            400..=499 | 507 => self.events().push(Event::Refused(number)),
            // The response does not tell whether the write was applied.
            _ => {}
        }
        Ok(answer)
    }

    /// Notes a write that may or may not be applied.
    pub fn attempt(&self, write: Write) -> usize {
        let mut events = self.events();
        events.push(Event::Attempted(write));
        events.len() - 1
    }

    /// The events noted so far.
    pub fn now(&self) -> Moment {
        Moment(self.events().len())
    }

    /// Checks a state that is read now, and notes it as known from now on.
    ///
    /// # Panics
    /// Something acknowledged is missing, or the state has something that was not attempted.
    pub fn judge(&self, state: &State) {
        let now = self.now();
        self.judge_between(now, now, state);
        for place in self.replay(now, now).into_keys() {
            let text = state.get(&place).cloned().unwrap_or_default();
            self.known(place, text);
        }
    }

    /// Checks a state that was frozen at some time between two moments.
    ///
    /// # Panics
    /// Something is missing that was acknowledged before, or the state has something that was attempted only
    /// afterwards.
    pub fn judge_between(&self, from: Moment, until: Moment, state: &State) {
        let expected = self.replay(from, until);
        let mut mistakes = Vec::new();
        for (place, scroll) in &expected {
            let text = state.get(place).map_or("", String::as_str);
            if !scroll.may_have_been.contains(text) {
                let choices: Vec<_> = scroll.may_have_been.iter().map(|text| shortened(text)).collect();
                mistakes.push(format!("{place:?} is {}, not one of {choices:?}", shortened(text)));
            }
        }
        let unexpected = state.iter().filter(|(place, _)| !expected.contains_key(place));
        mistakes
            .extend(unexpected.map(|(place, text)| format!("nobody wrote {place:?}: {}", shortened(text))));
        assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    }

    fn replay(&self, from: Moment, until: Moment) -> BTreeMap<Place, Scroll> {
        let events = self.events();
        let mut scrolls: BTreeMap<Place, Scroll> = BTreeMap::new();
        for (number, event) in events.iter().enumerate().take(until.0) {
            if number == from.0 {
                scrolls.values_mut().for_each(Scroll::open_window);
            }
            let (place, write) = match event {
                Event::Known(place, _) => (place, None),
                Event::Attempted(write) => (&write.place, Some(write)),
                Event::Acknowledged(number) | Event::Refused(number) => match events.get(*number) {
                    Some(Event::Attempted(write)) => (&write.place, Some(write)),
                    _ => continue,
                },
            };
            let scroll = scrolls.entry(place.clone()).or_insert_with(Scroll::empty);
            match (event, write) {
                (Event::Known(_, text), _) => scroll.may_be = BTreeSet::from([text.clone()]),
                (Event::Attempted(_), Some(write)) => scroll.attempted(write),
                (Event::Acknowledged(_), Some(write)) => scroll.may_be = scroll.after(write),
                _ => scroll.may_be = scroll.before.clone(),
            }
            scroll.may_have_been.extend(scroll.may_be.iter().cloned());
        }
        if from == until {
            scrolls.values_mut().for_each(Scroll::open_window);
        }
        scrolls
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scroll {
    fn empty() -> Self {
        let nothing = BTreeSet::from([String::new()]);
        Self { may_be: nothing.clone(), may_have_been: nothing, before: BTreeSet::new() }
    }

    fn open_window(&mut self) {
        self.may_have_been = self.may_be.clone();
    }

    fn attempted(&mut self, write: &Write) {
        self.before = self.may_be.clone();
        self.may_be.extend(self.after(write));
    }

    fn after(&self, write: &Write) -> BTreeSet<String> {
        self.before.iter().map(|text| write.applied_to(text)).collect()
    }
}

/// The whole state of a server.
///
/// # Errors
/// A request gets no response.
///
/// # Panics
/// A response does not have the form of the contract.
pub fn state_of(client: &Client) -> io::Result<State> {
    let mut state = State::new();
    let listed = client.try_get("/api/v2/phexts")?;
    listed.ok();
    for listed in listed.json().as_array().expect("a list of phexts") {
        let phext = listed.get("phext").and_then(|name| name.as_str()).expect("a phext's name");
        let exported = client.try_get(&format!("/api/v2/json-export?p={phext}"))?;
        exported.ok();
        for row in exported.json().as_array().expect("a list of scrolls") {
            let text = |name: &str| row.get(name).and_then(|text| text.as_str()).expect("a text").to_owned();
            let place = Place { phext: phext.to_owned(), coordinate: text("coord") };
            state.insert(place, text("scroll"));
        }
    }
    state.retain(|_, text| !text.is_empty());
    Ok(state)
}

fn shortened(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?} ({} bytes)", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(edit: Edit) -> Write {
        Write::new("a", 1, edit)
    }

    fn append(text: &str) -> Write {
        write(Edit::Append(text.to_owned()))
    }

    fn acknowledge(ledger: &Ledger, write: Write) {
        let number = ledger.attempt(write);
        ledger.events().push(Event::Acknowledged(number));
    }

    /// Whether a text is possible between two moments.
    fn passes(ledger: &Ledger, from: Moment, until: Moment, text: &str) -> bool {
        let state = State::from([(Place::new("a", 1), text.to_owned())]);
        let judged = || ledger.judge_between(from, until, &state);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(judged)).is_ok()
    }

    #[test]
    fn what_is_acknowledged_must_be_there_and_what_is_not_may_be() {
        let ledger = Ledger::default();
        acknowledge(&ledger, append("one"));
        ledger.attempt(append("two"));
        let now = ledger.now();
        let verdicts = ["", "one", "onetwo", "onetwotwo", "oneone", "two", "on"]
            .map(|text| passes(&ledger, now, now, text));
        assert_eq!(verdicts, [false, true, true, false, false, false, false]);
        acknowledge(&ledger, append("three"));
        let now = ledger.now();
        let verdicts = ["onethree", "onetwothree", "onetwo"].map(|text| passes(&ledger, now, now, text));
        assert_eq!(verdicts, [true, true, false]);
        let number = ledger.attempt(write(Edit::Remove));
        ledger.events().push(Event::Refused(number));
        let now = ledger.now();
        assert!(!passes(&ledger, now, now, "") && passes(&ledger, now, now, "onethree"));
        let elsewhere = State::from([(Place::new("b", 1), "x".to_owned())]);
        assert!(std::panic::catch_unwind(|| Ledger::default().judge(&elsewhere)).is_err());
    }

    #[test]
    fn a_frozen_state_is_of_a_time_in_its_window() {
        let ledger = Ledger::default();
        acknowledge(&ledger, append("1"));
        acknowledge(&ledger, append("2"));
        let from = ledger.now();
        acknowledge(&ledger, append("3"));
        ledger.attempt(append("4"));
        let until = ledger.now();
        ledger.attempt(append("5"));
        let verdicts =
            ["1", "12", "123", "1234", "12345", "124"].map(|text| passes(&ledger, from, until, text));
        assert_eq!(verdicts, [false, true, true, true, false, false]);
    }
}
