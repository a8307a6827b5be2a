//! The clients: each sends one request after the other, on a connection that it keeps, and keeps what it was told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::ledger::Place;
use sq_tests::random::Random;
use sq_tests::session::{self, Session};
use sq_tests::wait;

use crate::history::{
    Call, Edit, Key, Operation, Outcome, Recorder, Scroll, Stamp, Text, Token, Write, parse,
};
use crate::system::KEYS;

/// The scrolls of a tenant that are in use at one time, and those of them that share a phext.
const SCROLLS: usize = 6;
const SCROLLS_PER_PHEXT: usize = 3;

/// How many calls each gets, on the average, before others take its place: a search takes longer the more calls of one
/// scroll have no answer.
const CALLS_PER_SCROLL: usize = 200;

/// A write without an answer is sent again so often, when it has a key.
const REPEATS: usize = 3;

/// How long a client waits after a failure: no gateway, a refusal, no answer.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest a client waits for a grant while the nemesis is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all clients share.
pub(crate) struct Board {
    pub recorder: Recorder,
    /// How many calls all clients together are to make.
    limit: usize,
    tenants: usize,
    calls: AtomicUsize,
    /// How many calls there may be until the nemesis grants more: machines of any speed have as many faults.
    granted: AtomicUsize,
    numbers: AtomicU32,
    is_over: AtomicBool,
    /// How many calls had which result.
    done: AtomicUsize,
    unknown: AtomicUsize,
    refused: AtomicUsize,
}

/// A client of a tenant.
pub(crate) struct Caller<'a> {
    board: &'a Board,
    number: usize,
    tenant: &'static str,
    /// One for each key.
    clients: Vec<Client>,
    random: Random,
    session: Session,
    /// The last text that was read of a scroll, with its tag.
    read: HashMap<Scroll, (String, Text)>,
    /// The last acknowledged write with a key.
    keyed: Option<(Scroll, Request)>,
}

/// A write, and the tag of the text that it expects.
#[derive(Clone)]
struct Request {
    write: Write,
    tag: Option<String>,
}

impl Board {
    pub(crate) fn new(limit: usize, tenants: usize) -> Self {
        Self {
            recorder: Recorder::default(),
            limit,
            tenants,
            calls: AtomicUsize::new(0),
            granted: AtomicUsize::new(0),
            numbers: AtomicU32::new(1),
            is_over: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Lets the clients make so many calls from now on, and no more.
    pub(crate) fn grant(&self, calls: usize) {
        self.granted.store(self.calls() + calls, Ordering::Relaxed);
    }

    fn is_granted(&self) -> bool {
        self.is_over() || self.calls() < self.granted.load(Ordering::Relaxed)
    }

    /// How many calls there will be.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many calls had an answer, how many had none or one that leaves all open, and how many were refused.
    pub(crate) fn results(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.done), count(&self.unknown), count(&self.refused))
    }

    /// Whether the clients stop.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.calls() >= self.limit
    }

    /// Stops the clients.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// One of the scrolls that are in use now. Some share a phext, one is in the unnamed phext, some are in a large one.
    fn scroll(&self, tenant: &'static str, random: &mut Random) -> Scroll {
        let generation = self.calls() / (SCROLLS * CALLS_PER_SCROLL * self.tenants);
        let index = random.below(SCROLLS);
        let (phext, number) = match index {
            0..SCROLLS_PER_PHEXT => (format!("shared-{generation}"), index + 1),
            SCROLLS_PER_PHEXT => (String::new(), generation + 1),
            _ => (LARGE.to_owned(), generation * SCROLLS + index),
        };
        Scroll { tenant, phext, number }
    }
}

/// The phext that is above the size up to which a worker brings the file up to date with each write.
pub(crate) const LARGE: &str = "large";

impl Scroll {
    fn place(&self) -> Place {
        Place::new(&self.phext, self.number)
    }

    pub(crate) fn target(&self, command: &str) -> String {
        self.place().target(command)
    }
}

impl<'a> Caller<'a> {
    pub(crate) fn new(
        board: &'a Board,
        number: usize,
        tenant: &'static str,
        clients: Vec<Client>,
        seed: u64,
    ) -> Self {
        let random = Random::new(seed);
        let (read, keyed) = (HashMap::new(), None);
        Self { board, number, tenant, clients, random, session: Session::default(), read, keyed }
    }

    /// Makes calls until it is over.
    pub(crate) fn run(mut self) {
        while !self.board.is_over() {
            wait::within(LONGEST_PAUSE, || self.board.is_granted().then_some(()));
            let scroll = self.board.scroll(self.tenant, &mut self.random);
            match self.random.below(100) {
                0..37 => drop(self.read(&scroll)),
                37..40 => self.read_phext(&scroll),
                40..46 => self.send_again(),
                _ => {
                    let request = self.request(&scroll);
                    self.write(&scroll, &request);
                }
            }
        }
    }

    fn request(&mut self, scroll: &Scroll) -> Request {
        let token = Token(self.board.number());
        let edit = match self.random.below(10) {
            0..6 => Edit::Append(token),
            6..9 => Edit::Replace(token),
            _ => Edit::Remove,
        };
        let key = (self.random.below(2) == 0).then(|| Key(self.board.number()));
        let known = self.read.get(scroll).filter(|_| self.random.below(3) == 0).cloned();
        let (tag, expected) = known.unzip();
        Request { write: Write { edit, key, expected }, tag }
    }

    /// Sends the last write with a key once more, or another one under its key.
    fn send_again(&mut self) {
        let Some((scroll, mut request)) = self.keyed.clone() else { return };
        if self.random.below(4) == 0 {
            request.write.edit = Edit::Append(Token(self.board.number()));
        }
        self.write(&scroll, &request);
    }

    /// Reads a scroll; gives whether there was an answer.
    pub(crate) fn read(&mut self, scroll: &Scroll) -> bool {
        let began = self.board.recorder.stamp();
        let answer = self.ask("GET", &scroll.target("select"), "", "");
        let ended = Some(self.board.recorder.stamp());
        let Some(answer) = answer.filter(|answer| answer.status == 200) else { return false };
        let text = parse(answer.text());
        let tag = answer.header("etag").expect("the tag of a scroll").to_owned();
        self.read.insert(scroll.clone(), (tag, text.clone()));
        self.keep(scroll, began, ended, Operation::Read(text));
        true
    }

    /// Reads all scrolls of a phext that is not large, as it was at one moment.
    fn read_phext(&mut self, scroll: &Scroll) {
        if scroll.phext == LARGE {
            return;
        }
        let began = self.board.recorder.stamp();
        let answer = self.ask("GET", &format!("/api/v2/json-export?p={}", scroll.phext), "", "");
        let ended = Some(self.board.recorder.stamp());
        let Some(answer) = answer.filter(|answer| answer.status == 200) else { return };
        let exported = answer.json();
        let exported = exported.as_array().expect("a list of scrolls");
        for scroll in (1..=SCROLLS_PER_PHEXT).map(|number| Scroll { number, ..scroll.clone() }) {
            let coordinate = scroll.place().coordinate().to_owned();
            let row = exported.iter().find(|row| row["coord"] == coordinate);
            let text = row.map_or("", |row| row["scroll"].as_str().expect("a text"));
            self.keep(&scroll, began, ended, Operation::Read(parse(text)));
        }
    }

    fn keep(&self, scroll: &Scroll, began: Stamp, ended: Option<Stamp>, operation: Operation) {
        self.board.recorder.keep(scroll, Call { client: self.number, began, ended, operation });
    }

    /// Sends a write, and, when it has a key, again while it gets no answer. Each attempt is a separate call.
    fn write(&mut self, scroll: &Scroll, request: &Request) {
        for _ in 0..=REPEATS {
            let began = self.board.recorder.stamp();
            let Some(outcome) = self.try_write(scroll, request) else { return };
            let is_known = outcome != Outcome::Unknown;
            let ended = is_known.then(|| self.board.recorder.stamp());
            let operation = Operation::Write(request.write.clone(), outcome);
            self.keep(scroll, began, ended, operation);
            if matches!(outcome, Outcome::Done { .. }) && request.write.key.is_some() {
                self.keyed = Some((scroll.clone(), request.clone()));
            }
            if is_known || request.write.key.is_none() {
                return;
            }
            wait::pass(PAUSE);
        }
    }

    /// `None` where the write surely has no effect, for a reason that says nothing of the scroll.
    fn try_write(&mut self, scroll: &Scroll, request: &Request) -> Option<Outcome> {
        let (command, text) = match request.write.edit {
            Edit::Append(token) => ("insert", token.text()),
            Edit::Replace(token) => ("update", token.text()),
            Edit::Remove => ("delete", String::new()),
        };
        let mut headers = String::new();
        if let Some(key) = request.write.key {
            headers += &format!("Idempotency-Key: {}\r\n", key.0);
        }
        if let Some(tag) = &request.tag {
            headers += &format!("If-Match: {tag}\r\n");
        }
        let answer = self.ask("POST", &scroll.target(command), &headers, &text);
        let Some(answer) = answer else { return Some(Outcome::Unknown) };
        match answer.status {
            200 => Some(done(&answer)),
            412 => Some(Outcome::NotExpected),
            422 => Some(Outcome::KeyReused),
            // The key is revoked, the tenant suspended, too much in flight, the disk full.
            401 | 403 | 429 | 507 => None,
            502..=504 => Some(Outcome::Unknown),
            _ => panic!("{scroll:?} {}: {answer}", request.write),
        }
    }

    /// The answer to a request; `None` where there is none.
    fn ask(&mut self, method: &str, target: &str, headers: &str, body: &str) -> Option<Answer> {
        let client = &self.clients[self.random.below(KEYS)];
        let outcome = loop {
            match self.session.ask(client, method, target, headers, body) {
                session::Outcome::NotConnected(_) if !self.board.is_over() => wait::pass(PAUSE),
                outcome => break outcome,
            }
        };
        self.board.calls.fetch_add(1, Ordering::Relaxed);
        let answer = match outcome {
            session::Outcome::Answered(answer) => Some(answer),
            session::Outcome::Cut(_) | session::Outcome::NotConnected(_) => None,
        };
        let (count, is_pausing) = match answer.as_ref().map(|answer| answer.status) {
            Some(200 | 412 | 422) => (&self.board.done, false),
            Some(401..=499 | 507) => (&self.board.refused, true),
            _ => (&self.board.unknown, true),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if is_pausing {
            wait::pass(PAUSE);
        }
        answer
    }
}

/// Reads `Inserted 12 bytes`.
fn done(answer: &Answer) -> Outcome {
    let bytes = answer.text().split(' ').nth(1).and_then(|number| number.parse().ok());
    let bytes = bytes.unwrap_or_else(|| panic!("no number of bytes: {answer}"));
    Outcome::Done { bytes, is_replay: answer.header("idempotency-replayed") == Some("true") }
}
