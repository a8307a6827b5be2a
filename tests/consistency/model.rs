//! What one scroll may do: a text that is read, appended to, replaced and removed, and the answers that are remembered
//! under a key. Texts are numbered, so that states are compared and copied in a few machine words.

use std::collections::HashMap;
use std::rc::Rc;

use crate::history::{Edit, Key, Operation, Outcome, Text, Token};

/// A text among [`Texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TextId(usize);

/// The texts of a history: those that were seen, and those that they begin with. Of any other text only its length can
/// ever be told, so all others of one length are one.
#[derive(Debug)]
pub(crate) struct Texts {
    bytes: Vec<usize>,
    /// The text with one more token, where that is the beginning of one that was seen.
    longer: HashMap<(TextId, Token), TextId>,
    unseen: HashMap<usize, TextId>,
    /// Until the search begins, every text is one that was seen.
    seen: usize,
}

/// A scroll at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub text: TextId,
    /// Sorted by key.
    answered: Rc<Vec<Answered>>,
}

/// A write that is remembered under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Answered {
    key: Key,
    edit: Edit,
    bytes: usize,
}

/// An operation with numbered texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Read(TextId),
    Write { edit: Edit, key: Option<Key>, expected: Option<TextId>, outcome: Outcome },
}

/// The text of a scroll without one.
const EMPTY: TextId = TextId(0);

impl Default for Texts {
    fn default() -> Self {
        Self { bytes: vec![0], longer: HashMap::new(), unseen: HashMap::new(), seen: 1 }
    }
}

impl Texts {
    /// The operation with its texts as numbers. All of a history come before the first search.
    pub(crate) fn step(&mut self, operation: &Operation) -> Step {
        match operation {
            Operation::Read(text) => Step::Read(self.see(text)),
            Operation::Write(write, outcome) => {
                let expected = write.expected.as_ref().map(|text| self.see(text));
                Step::Write { edit: write.edit, key: write.key, expected, outcome: *outcome }
            }
        }
    }

    /// Whether a text that was seen begins with this one. From any other, only a replacement or a removal leads back to
    /// one that was.
    pub(crate) fn leads_to_seen(&self, text: TextId) -> bool {
        text.0 < self.seen
    }

    fn see(&mut self, text: &Text) -> TextId {
        let mut id = EMPTY;
        for token in text {
            let next = TextId(self.seen);
            let longer = *self.longer.entry((id, *token)).or_insert(next);
            if longer == next {
                self.bytes.push(self.bytes(id) + token.bytes());
                self.seen += 1;
            }
            id = longer;
        }
        id
    }

    fn appended(&mut self, text: TextId, token: Token) -> TextId {
        if let Some(longer) = self.longer.get(&(text, token)) {
            return *longer;
        }
        let bytes = self.bytes(text) + token.bytes();
        let next = TextId(self.bytes.len());
        let id = *self.unseen.entry(bytes).or_insert(next);
        if id == next {
            self.bytes.push(bytes);
        }
        id
    }

    fn bytes(&self, text: TextId) -> usize {
        self.bytes[text.0]
    }

    fn edited(&mut self, text: TextId, edit: Edit) -> TextId {
        match edit {
            Edit::Append(token) => self.appended(text, token),
            Edit::Replace(token) => self.appended(EMPTY, token),
            Edit::Remove => EMPTY,
        }
    }

    /// The number in the answer to an edit of this text.
    fn answer_bytes(&self, text: TextId, edit: Edit) -> usize {
        match edit {
            Edit::Append(token) | Edit::Replace(token) => token.bytes(),
            Edit::Remove => self.bytes(text),
        }
    }
}

impl State {
    /// A scroll that has no text and remembers nothing.
    pub(crate) fn empty() -> Self {
        Self { text: EMPTY, answered: Rc::default() }
    }

    /// The state after a step; `None` where the step cannot have had its outcome in this state. A step with an unknown
    /// outcome leads on only where it has an effect: one without is as good as one that comes after everything.
    pub(crate) fn after(&self, step: &Step, texts: &mut Texts) -> Option<Self> {
        let (edit, key, expected, outcome) = match step {
            Step::Read(text) => return (*text == self.text).then(|| self.clone()),
            Step::Write { edit, key, expected, outcome } => (*edit, *key, *expected, *outcome),
        };
        let known = key.and_then(|key| self.answered(key));
        let is_expected = expected.is_none_or(|text| text == self.text);
        let answer_bytes = texts.answer_bytes(self.text, edit);
        let is_possible = match (outcome, known) {
            // The gateway may have sent the write again by itself: its first answer to the client can be a replay.
            (Outcome::Done { bytes, .. }, None) => is_expected && bytes == answer_bytes,
            (Outcome::Done { bytes, is_replay }, Some(known)) => {
                is_replay && known.edit == edit && known.bytes == bytes
            }
            (Outcome::NotExpected, known) => known.is_none() && !is_expected,
            (Outcome::KeyReused, known) => known.is_some_and(|known| known.edit != edit),
            (Outcome::Unknown, known) => known.is_none() && is_expected,
        };
        let has_effect = known.is_none() && matches!(outcome, Outcome::Done { .. } | Outcome::Unknown);
        let next = || if has_effect { self.edited(edit, key, answer_bytes, texts) } else { self.clone() };
        is_possible.then(next)
    }

    fn edited(&self, edit: Edit, key: Option<Key>, bytes: usize, texts: &mut Texts) -> Self {
        let text = texts.edited(self.text, edit);
        let mut answered = Rc::clone(&self.answered);
        if let Some(key) = key {
            let place = answered.partition_point(|known| known.key < key);
            Rc::make_mut(&mut answered).insert(place, Answered { key, edit, bytes });
        }
        Self { text, answered }
    }

    fn answered(&self, key: Key) -> Option<Answered> {
        let place = self.answered.binary_search_by_key(&key, |known| known.key).ok()?;
        self.answered.get(place).copied()
    }
}

impl Step {
    /// Whether it can lead from a text that was never seen to one that was.
    pub(crate) fn leads_back(&self, texts: &mut Texts) -> bool {
        // A condition names a text that was seen.
        let Self::Write { edit, expected: None, outcome, .. } = self else { return false };
        let may_have_effect = matches!(outcome, Outcome::Done { .. } | Outcome::Unknown);
        let clears = !matches!(edit, Edit::Append(_));
        let cleared = texts.edited(EMPTY, *edit);
        may_have_effect && clears && texts.leads_to_seen(cleared)
    }

    /// Whether it happened only if the scroll had a text that was seen.
    pub(crate) fn needs_seen_text(&self) -> bool {
        match self {
            Self::Read(_) => true,
            // A replay is answered whatever the text is.
            Self::Write { expected, outcome: Outcome::Done { is_replay, .. }, .. } => {
                expected.is_some() && !is_replay
            }
            Self::Write { .. } => false,
        }
    }
}
