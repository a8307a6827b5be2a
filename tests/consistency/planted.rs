//! The checker is checked: violations that are planted into histories are found, correct histories pass, and neither
//! takes long.

use crate::checker::{MOST_STATES, Verdict, check};
use crate::history::{Call, Edit, GARBAGE, Key, Operation, Outcome, Text, Token, Write, parse};
use crate::register::{Mistake, Simulation};
use crate::shortest::shortest;

/// Clients as busy as those of a run, with more lost answers.
const BUSY: Simulation = Simulation { clients: 8, calls: 300, lost_one_in: 30, most_lost: 8, mistake: None };

/// How many seeds each kind of history is made of.
const SEEDS: u64 = 100;

/// Tokens and keys that no simulation uses.
const FRESH: u32 = 1_000_000;

/// Builds a history, one call after the other.
struct Script(Vec<Call>);

impl Script {
    /// Goes on behind a history, with a scroll that has the text `[FRESH]`.
    fn behind(history: Vec<Call>) -> Self {
        let mut script = Self(history);
        script.done(Edit::Replace(fresh(0)), None, None);
        script
    }

    fn call(&mut self, operation: Operation, is_answered: bool) {
        let ends = self.0.iter().map(|call| call.ended.unwrap_or(call.began));
        let began = ends.max().unwrap_or_default() + 1;
        self.0.push(Call { client: 0, began, ended: is_answered.then_some(began + 1), operation });
    }

    fn read(&mut self, text: &[u32]) {
        self.call(Operation::Read(texts(text)), true);
    }

    fn write(&mut self, edit: Edit, key: Option<u32>, expected: Option<&[u32]>, outcome: Outcome) {
        let (key, expected) = (key.map(|key| Key(FRESH + key)), expected.map(texts));
        let write = Write { edit, key, expected };
        self.call(Operation::Write(write, outcome), outcome != Outcome::Unknown);
    }

    fn done(&mut self, edit: Edit, key: Option<u32>, expected: Option<&[u32]>) {
        self.answered(edit, key, expected, false, bytes_of(edit));
    }

    fn answered(
        &mut self,
        edit: Edit,
        key: Option<u32>,
        expected: Option<&[u32]>,
        is_replay: bool,
        bytes: usize,
    ) {
        self.write(edit, key, expected, Outcome::Done { bytes, is_replay });
    }
}

fn fresh(number: u32) -> Token {
    Token(FRESH + number)
}

fn append(number: u32) -> Edit {
    Edit::Append(fresh(number))
}

fn texts(numbers: &[u32]) -> Text {
    numbers.iter().map(|number| fresh(*number)).collect()
}

fn bytes_of(edit: Edit) -> usize {
    match edit {
        Edit::Append(token) | Edit::Replace(token) => token.bytes(),
        Edit::Remove => 0,
    }
}

/// What a planted violation is called, and the calls that show it; the text before them is `[0]`.
type Planted = (&'static str, fn(&mut Script));

const VIOLATIONS: [Planted; 15] = [
    ("an acknowledged insert is lost", |script| {
        script.done(append(1), None, None);
        script.read(&[0]);
    }),
    ("an acknowledged update is lost", |script| {
        script.done(Edit::Replace(fresh(1)), None, None);
        script.read(&[0]);
    }),
    ("an acknowledged delete is lost", |script| {
        script.answered(Edit::Remove, None, None, false, fresh(0).bytes());
        script.read(&[0]);
    }),
    ("an insert is there twice", |script| {
        script.done(append(1), None, None);
        script.read(&[0, 1, 1]);
    }),
    ("an unanswered insert is there twice", |script| {
        script.write(append(1), None, None, Outcome::Unknown);
        script.read(&[0, 1, 1]);
    }),
    ("a read is older than an acknowledged write", |script| {
        script.done(append(1), None, None);
        script.read(&[0]);
        script.read(&[0, 1]);
    }),
    ("reads go back", |script| {
        script.write(append(1), None, None, Outcome::Unknown);
        script.read(&[0, 1]);
        script.read(&[0]);
    }),
    ("a condition holds twice", |script| {
        script.done(append(1), None, Some(&[0]));
        script.done(append(2), None, Some(&[0]));
        script.read(&[0, 1, 2]);
    }),
    ("a condition that holds is refused", |script| {
        script.write(append(1), None, Some(&[0]), Outcome::NotExpected);
        script.read(&[0]);
    }),
    ("a repeat has another answer", |script| {
        script.answered(Edit::Remove, Some(1), None, false, fresh(0).bytes());
        script.answered(Edit::Remove, Some(1), None, true, 0);
    }),
    ("a repeat is not known", |script| {
        script.done(append(1), Some(1), None);
        script.done(append(1), Some(1), None);
        script.read(&[0, 1]);
    }),
    ("another write is taken for a repeat", |script| {
        script.done(append(1), Some(1), None);
        script.answered(append(2), Some(1), None, true, fresh(2).bytes());
    }),
    ("a new key is refused as a used one", |script| {
        script.write(append(1), Some(1), None, Outcome::KeyReused);
    }),
    ("a text is read that was never written", |script| script.read(&[0, 9])),
    ("writes stand in another order", |script| {
        script.done(append(1), None, None);
        script.done(append(2), None, None);
        script.read(&[0, 2, 1]);
    }),
];

#[test]
fn each_planted_violation_is_found() {
    for (name, plant) in VIOLATIONS {
        for seed in 0..SEEDS / 10 {
            let history = BUSY.run(seed);
            let mut script = Script::behind(history);
            assert!(matches!(check(&script.0), Verdict::Linearizable(_)), "{name}, seed {seed}");
            plant(&mut script);
            assert_eq!(check(&script.0), Verdict::Violation, "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_correct_script_passes() {
    let mut script = Script::behind(Vec::new());
    script.done(append(1), Some(1), Some(&[0]));
    script.answered(append(1), Some(1), Some(&[0]), true, fresh(1).bytes());
    script.write(append(2), Some(1), None, Outcome::KeyReused);
    script.write(append(2), None, Some(&[0]), Outcome::NotExpected);
    script.write(append(3), Some(3), None, Outcome::Unknown);
    script.read(&[0, 1]);
    script.write(append(3), Some(3), None, Outcome::Unknown);
    script.read(&[0, 1, 3]);
    script.answered(append(3), Some(3), None, true, fresh(3).bytes());
    script.read(&[0, 1, 3]);
    script.answered(
        Edit::Remove,
        None,
        None,
        false,
        (0..4).filter(|n| *n != 2).map(|n| fresh(n).bytes()).sum(),
    );
    script.read(&[]);
    assert!(matches!(check(&script.0), Verdict::Linearizable(_)));
}

#[test]
fn correct_histories_pass_at_a_bounded_cost() {
    let mut most = 0;
    for seed in 0..SEEDS {
        let history = BUSY.run(seed);
        match check(&history) {
            Verdict::Linearizable(states) => most = most.max(states),
            verdict => panic!("seed {seed}: {verdict:?}\n{}", lines(&shortest(&history))),
        }
    }
    assert!(most < MOST_STATES / 20, "{most} states");
}

/// A wrong register is not always seen to be one: what it lost may have been replaced before a read.
#[test]
fn a_register_that_errs_once_is_found_out_in_most_histories() {
    let mistakes = [
        Mistake::LosesAppend,
        Mistake::DoublesAppend,
        Mistake::ReadsOldText,
        Mistake::IgnoresCondition,
        Mistake::ForgetsKey,
    ];
    for mistake in mistakes {
        let simulation = Simulation { mistake: Some(mistake), ..BUSY };
        let verdicts: Vec<Verdict> = (0..SEEDS).map(|seed| check(&simulation.run(seed))).collect();
        assert!(!verdicts.contains(&Verdict::Undecided), "{mistake:?}");
        let found = verdicts.iter().filter(|verdict| **verdict == Verdict::Violation).count();
        assert!(found as u64 > SEEDS / 2, "{mistake:?}: found in {found} of {SEEDS}");
    }
}

#[test]
fn the_shortest_history_has_the_violation_and_little_else() {
    let mut script = Script::behind(Vec::new());
    for number in 1..100 {
        let replace = Edit::Replace(fresh(number));
        script.done(replace, Some(number), None);
        script.read(&[number]);
        script.answered(replace, Some(number), None, true, bytes_of(replace));
    }
    script.done(append(100), None, None);
    script.write(append(101), None, None, Outcome::Unknown);
    script.read(&[99]);
    for number in 102..200 {
        script.done(append(number), None, None);
    }
    let short = shortest(&script.0);
    let shown = lines(&short);
    assert_eq!(short.len(), 4, "{shown}");
    for wanted in ["replace by 1000099", "append 1000100", "append 1000101", "read [1000099]"] {
        assert!(shown.contains(wanted), "{shown}");
    }
}

/// What was answered before a replacement is left out only where nothing after it hangs on that.
#[test]
fn the_shortest_history_of_a_key_has_its_first_write() {
    let mut script = Script::behind(Vec::new());
    script.done(append(1), Some(1), None);
    script.done(Edit::Replace(fresh(2)), None, None);
    script.done(append(1), Some(1), None);
    let short = shortest(&script.0);
    let shown = lines(&short);
    assert_eq!(shown.matches("append 1000001 under key 1000001").count(), 2, "{shown}");
    assert_eq!(check(&short), Verdict::Violation, "{shown}");
}

#[test]
fn what_is_not_a_whole_token_is_garbage() {
    let text = texts(&[1, 2, 3]);
    let written: String = text.iter().map(|token| token.text()).collect();
    assert_eq!(parse(&written), text);
    assert_eq!(parse(&written[1..]), [GARBAGE]);
    assert_eq!(parse(&written[..written.len() - 1]), [text[0], text[1], GARBAGE]);
    assert_eq!(parse(""), Text::new());
}

fn lines(calls: &[Call]) -> String {
    calls.iter().map(|call| format!("{call}\n")).collect()
}
