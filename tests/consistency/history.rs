//! What clients asked and what they were told, scroll by scroll, in the order in which it happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The text that one write brings: its number is used once in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token(pub u32);

/// A token that no client writes: its place is taken by bytes that are not a token.
pub(crate) const GARBAGE: Token = Token(0);

/// A scroll's text: the tokens that were written, in their order.
pub(crate) type Text = Vec<Token>;

/// An `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub u32);

/// A moment in the order of all calls and answers.
pub(crate) type Stamp = u64;

/// What is done to a scroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Edit {
    /// `insert`.
    Append(Token),
    /// `update`.
    Replace(Token),
    /// `delete`.
    Remove,
}

/// A write as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub edit: Edit,
    pub key: Option<Key>,
    /// The text whose `ETag` stands in `If-Match`.
    pub expected: Option<Text>,
}

/// What a client was told of a write. One that was refused for a reason outside its scroll is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200, with the number in the answer.
    Done { bytes: usize, is_replay: bool },
    /// 412: the scroll has another text.
    NotExpected,
    /// 422: the key belongs to another write.
    KeyReused,
    /// Nothing, or what leaves open whether the write was applied. It may be applied at any time after its call.
    Unknown,
}

/// An operation with its result. A read without an answer says nothing and is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Read(Text),
    Write(Write, Outcome),
}

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub client: usize,
    pub began: Stamp,
    /// The answer arrived; `None` where the outcome is unknown.
    pub ended: Option<Stamp>,
    pub operation: Operation,
}

/// A scroll, which only the clients of one tenant use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scroll {
    pub tenant: &'static str,
    pub phext: String,
    pub number: usize,
}

/// The calls of a run.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    stamps: AtomicU64,
    calls: Mutex<BTreeMap<Scroll, Vec<Call>>>,
}

impl Recorder {
    /// The next moment.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamps.fetch_add(1, Ordering::SeqCst)
    }

    /// Keeps a call.
    pub(crate) fn keep(&self, scroll: &Scroll, call: Call) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(scroll.clone()).or_default().push(call);
    }

    /// The scrolls that were used.
    pub(crate) fn scrolls(&self) -> Vec<Scroll> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The history of each scroll.
    pub(crate) fn into_histories(self) -> BTreeMap<Scroll, Vec<Call>> {
        self.calls.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Token {
    /// The text of the token. Most are short; some are as long as several pages.
    pub(crate) fn text(self) -> String {
        let number = self.0 as usize;
        let padding = if number.is_multiple_of(61) { 9_000 } else { number * 37 % 120 };
        format!("<{number}:{}>", "x".repeat(padding))
    }

    /// The number of bytes of its text.
    pub(crate) fn bytes(self) -> usize {
        self.text().len()
    }
}

/// Reads a scroll's text. Where it is not made of whole tokens it goes on with [`GARBAGE`].
pub(crate) fn parse(text: &str) -> Text {
    let mut tokens = Text::new();
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.strip_prefix('<').and_then(|rest| rest.split(':').next()?.parse().ok());
        let token = number.map(Token).filter(|token| rest.starts_with(&token.text()));
        tokens.push(token.unwrap_or(GARBAGE));
        rest = token.map_or("", |token| &rest[token.bytes()..]);
    }
    tokens
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.ended.map_or_else(|| "?".to_owned(), |stamp| stamp.to_string());
        write!(f, "{:>8} – {ended:<8} client {:<3} ", self.began, self.client)?;
        match &self.operation {
            Operation::Read(text) => write!(f, "read {}", shown(text)),
            Operation::Write(write, outcome) => write!(f, "{write} → {outcome:?}"),
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.edit {
            Edit::Append(token) => write!(f, "append {}", token.0)?,
            Edit::Replace(token) => write!(f, "replace by {}", token.0)?,
            Edit::Remove => write!(f, "remove")?,
        }
        if let Some(expected) = &self.expected {
            write!(f, " if {}", shown(expected))?;
        }
        self.key.map_or(Ok(()), |key| write!(f, " under key {}", key.0))
    }
}

fn shown(text: &[Token]) -> String {
    let numbers: Vec<String> = text.iter().map(|token| token.0.to_string()).collect();
    format!("[{}]", numbers.join(" "))
}
