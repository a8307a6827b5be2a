//! A register in memory with simulated clients: its histories are random, concurrent and correct, unless it is told to
//! make a mistake. It shares no code with the model that its histories are checked against.

use std::collections::{HashMap, VecDeque};

use sq_tests::random::Random;

use crate::history::{Call, Edit, Key, Operation, Outcome, Stamp, Text, Token, Write};

/// So many edits are more than can be under way at once.
const OLD_EDITS: usize = 8;

/// What a register does wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// An acknowledged append has no effect.
    LosesAppend,
    /// An append has its effect twice.
    DoublesAppend,
    /// A read gives a text that [`OLD_EDITS`] have changed since.
    ReadsOldText,
    /// A condition that does not hold is not looked at.
    IgnoresCondition,
    /// A key that was used is taken for a new one.
    ForgetsKey,
}

/// A run of simulated clients.
pub(crate) struct Simulation {
    pub clients: usize,
    pub calls: usize,
    /// One in so many calls gets no answer.
    pub lost_one_in: usize,
    /// How many unanswered calls there may be.
    pub most_lost: usize,
    pub mistake: Option<Mistake>,
}

struct Register {
    text: Text,
    /// Those before it, the last one first.
    before: VecDeque<Text>,
    answers: HashMap<Key, (Edit, usize)>,
    mistake: Option<Mistake>,
}

/// A client with a call under way.
struct Client {
    began: Stamp,
    request: Request,
    result: Option<Operation>,
}

#[derive(Clone)]
enum Request {
    Read,
    Write(Write),
}

struct Run<'a> {
    simulation: &'a Simulation,
    random: Random,
    register: Register,
    /// Each has a call under way, or none.
    clients: Vec<Option<Client>>,
    /// Writes of clients that gave up; each may still take effect.
    abandoned: Vec<Write>,
    last_read: Text,
    last_keyed: Option<Write>,
    lost: usize,
    next: u32,
    now: Stamp,
    history: Vec<Call>,
}

impl Simulation {
    /// The history of the clients of a seed, with a read after everything.
    pub(crate) fn run(&self, seed: u64) -> Vec<Call> {
        let register = Register {
            text: Text::new(),
            before: VecDeque::new(),
            answers: HashMap::new(),
            mistake: self.mistake,
        };
        let mut run = Run {
            simulation: self,
            random: Random::new(seed),
            register,
            clients: (0..self.clients).map(|_| None).collect(),
            abandoned: Vec::new(),
            last_read: Text::new(),
            last_keyed: None,
            lost: 0,
            next: 1,
            now: 0,
            history: Vec::new(),
        };
        while run.history.len() < self.calls {
            run.step();
        }
        run.finish()
    }
}

impl Run<'_> {
    fn stamp(&mut self) -> Stamp {
        self.now += 1;
        self.now
    }

    fn step(&mut self) {
        let client = self.random.below(self.clients.len());
        match self.clients[client].take() {
            None => {
                let (began, request) = (self.stamp(), self.request());
                self.clients[client] = Some(Client { began, request, result: None });
            }
            Some(waiting) if waiting.result.is_none() => {
                let is_lost = self.random.below(self.simulation.lost_one_in) == 0;
                if is_lost && self.lost < self.simulation.most_lost {
                    return self.lose(client, waiting);
                }
                let result = Some(self.register.perform(&waiting.request));
                self.clients[client] = Some(Client { result, ..waiting });
            }
            Some(answered) => self.answer(client, answered),
        }
        if self.random.below(4) == 0
            && let Some(write) = self.abandoned.pop()
        {
            self.register.perform(&Request::Write(write));
        }
    }

    /// The client gives up; its write takes effect later, or never.
    fn lose(&mut self, client: usize, waiting: Client) {
        let Request::Write(write) = waiting.request else { return };
        self.lost += 1;
        if self.random.below(2) == 0 {
            self.abandoned.push(write.clone());
        }
        let operation = Operation::Write(write, Outcome::Unknown);
        self.history.push(Call { client, began: waiting.began, ended: None, operation });
    }

    fn answer(&mut self, client: usize, answered: Client) {
        let Some(operation) = answered.result else { return };
        match &operation {
            Operation::Read(text) => self.last_read.clone_from(text),
            Operation::Write(write, _) if write.key.is_some() => self.last_keyed = Some(write.clone()),
            Operation::Write(..) => {}
        }
        let ended = Some(self.stamp());
        self.history.push(Call { client, began: answered.began, ended, operation });
    }

    fn request(&mut self) -> Request {
        self.next += 1;
        let token = Token(self.next);
        let edit = match self.random.below(10) {
            0..=3 => return Request::Read,
            4..=6 => Edit::Append(token),
            7 => Edit::Replace(token),
            8 => Edit::Remove,
            _ => match &self.last_keyed {
                Some(write) if self.random.below(3) > 0 => return Request::Write(write.clone()),
                Some(write) => {
                    let reused = Write { edit: Edit::Append(token), ..write.clone() };
                    return Request::Write(reused);
                }
                None => Edit::Append(token),
            },
        };
        let key = (self.random.below(3) == 0).then_some(Key(self.next));
        let expected = (self.random.below(3) == 0).then(|| self.last_read.clone());
        Request::Write(Write { edit, key, expected })
    }

    /// Every client gets its answer; then the register is read.
    fn finish(mut self) -> Vec<Call> {
        for client in 0..self.clients.len() {
            if let Some(mut waiting) = self.clients[client].take() {
                let result = waiting.result.take().unwrap_or_else(|| self.register.perform(&waiting.request));
                self.answer(client, Client { result: Some(result), ..waiting });
            }
        }
        let read = Client { began: self.stamp(), request: Request::Read, result: None };
        let result = Some(Operation::Read(self.register.text.clone()));
        self.answer(self.clients.len(), Client { result, ..read });
        self.history
    }
}

impl Register {
    fn perform(&mut self, request: &Request) -> Operation {
        let Request::Write(write) = request else { return Operation::Read(self.read()) };
        let outcome = self.write(write);
        Operation::Write(write.clone(), outcome)
    }

    fn read(&mut self) -> Text {
        let old = self.before.get(OLD_EDITS).filter(|old| **old != self.text).cloned();
        old.filter(|_| self.errs(Mistake::ReadsOldText)).unwrap_or_else(|| self.text.clone())
    }

    fn write(&mut self, write: &Write) -> Outcome {
        let known = write.key.and_then(|key| self.answers.get(&key).copied());
        if let Some((edit, bytes)) = known
            && !self.errs(Mistake::ForgetsKey)
        {
            let is_same = edit == write.edit;
            return if is_same { Outcome::Done { bytes, is_replay: true } } else { Outcome::KeyReused };
        }
        let is_expected = write.expected.as_ref().is_none_or(|text| *text == self.text);
        if !is_expected && !self.errs(Mistake::IgnoresCondition) {
            return Outcome::NotExpected;
        }
        let bytes = self.edit(write.edit);
        if let Some(key) = write.key {
            self.answers.insert(key, (write.edit, bytes));
        }
        Outcome::Done { bytes, is_replay: false }
    }

    fn edit(&mut self, edit: Edit) -> usize {
        let before = self.text.clone();
        let bytes = match edit {
            Edit::Append(token) => {
                if !self.errs(Mistake::LosesAppend) {
                    self.text.push(token);
                }
                if self.errs(Mistake::DoublesAppend) {
                    self.text.push(token);
                }
                token.bytes()
            }
            Edit::Replace(token) => {
                self.text = vec![token];
                token.bytes()
            }
            Edit::Remove => std::mem::take(&mut self.text).iter().map(|token| token.bytes()).sum(),
        };
        self.before.push_front(before);
        bytes
    }

    /// Whether this is where it makes its mistake.
    fn errs(&mut self, mistake: Mistake) -> bool {
        self.mistake.take_if(|planned| *planned == mistake).is_some()
    }
}
