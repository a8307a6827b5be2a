//! Clients that write continuously, each to a separate scroll, and read it now and then: some keep their connection,
//! some connect for each request. Their responses are noted and compared with the state: every acknowledged write is
//! there once, in order. They send no `Idempotency-Key`, so a write that was applied twice is detected.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::answer::Answer;
use crate::client::Client;
use crate::ledger::Place;
use crate::session::{Outcome, Session};
use crate::wait;

/// How long a patient client waits before it retries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long it retries before it gives up.
const RETRY_TIME: Duration = Duration::from_secs(60);

const PHEXT: &str = "written";

/// Whether a client keeps its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As long as the server keeps it.
    Kept,
    /// A new one for each request.
    Fresh,
}

/// Running clients.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Written>>,
}

#[derive(Debug, Default)]
struct Shared {
    acknowledged: AtomicUsize,
    is_over: AtomicBool,
    /// Refused clients retry.
    is_patient: AtomicBool,
}

/// The record of one client.
#[derive(Debug)]
pub struct Written {
    place: Place,
    client: Client,
    /// The texts whose write was answered with 200, in order.
    acknowledged: String,
    /// Their number.
    pub count: usize,
    /// All other responses.
    pub others: Vec<Outcome>,
    /// The number of responses 503 with `Retry-After` after which it retried.
    pub refused: usize,
    /// The number of refused connections after which it retried.
    pub not_connected: usize,
}

/// A running client.
struct Writer {
    written: Written,
    manner: Manner,
    session: Session,
    shared: Arc<Shared>,
}

impl Writers {
    /// Starts this many clients of each manner. Each pauses this long between two requests, and writes this many
    /// bytes and a number each time.
    pub fn start(client: &Client, kinds: &[(usize, Manner)], pause: Duration, bytes: usize) -> Self {
        Self::of_each(std::slice::from_ref(client), kinds, pause, bytes)
    }

    /// The same for each of several tenants.
    pub fn of_each(tenants: &[Client], kinds: &[(usize, Manner)], pause: Duration, bytes: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let manners = kinds.iter().flat_map(|(count, manner)| std::iter::repeat_n(*manner, *count));
        let clients = tenants.iter().flat_map(|client| manners.clone().map(move |manner| (client, manner)));
        let start = |(number, (client, manner)): (usize, (&Client, Manner))| {
            let written = Written::none(client.clone(), Place::new(PHEXT, number + 1));
            let writer = Writer { written, manner, session: Session::default(), shared: Arc::clone(&shared) };
            std::thread::spawn(move || writer.run(pause, bytes))
        };
        let threads = clients.enumerate().map(start).collect();
        let writers = Self { shared, threads };
        writers.go_on();
        writers
    }

    /// From now on, clients retry when they are refused with 503 and `Retry-After` or find no server: such a request
    /// had no effect.
    pub fn be_patient(&self) {
        self.shared.is_patient.store(true, Ordering::Relaxed);
    }

    /// The number of writes acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until every client has more acknowledged writes.
    pub fn go_on(&self) {
        self.wait_for(10 * self.threads.len());
    }

    /// Waits for this many more acknowledged writes of all clients together.
    pub fn wait_for(&self, writes: usize) {
        let enough = self.acknowledged() + writes;
        wait::until("more writes", || self.acknowledged() >= enough || self.are_over());
    }

    fn are_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Lets each client finish its current request, and returns their records.
    ///
    /// # Panics
    /// A client panicked.
    pub fn stop(self) -> Vec<Written> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    }
}

impl Written {
    fn none(client: Client, place: Place) -> Self {
        let (acknowledged, others) = (String::new(), Vec::new());
        Self { place, client, acknowledged, count: 0, others, refused: 0, not_connected: 0 }
    }

    /// Checks that every request was answered with 200, and every write is there once.
    ///
    /// # Panics
    /// It is not so.
    pub fn assert_complete(&self) {
        assert!(self.others.is_empty(), "after {} writes: {:?}", self.count, self.others);
        self.assert_kept();
    }

    /// Checks that every acknowledged write is there once, and nothing else.
    ///
    /// # Panics
    /// It is not so.
    pub fn assert_kept(&self) {
        let there = self.client.get(&self.place.target("select"));
        let there = there.ok();
        assert!(
            there == self.acknowledged,
            "of {} writes to {:?}: {} bytes are there, {} were acknowledged",
            self.count,
            self.place,
            there.len(),
            self.acknowledged.len()
        );
    }
}

impl Writer {
    /// Runs until it is stopped, or no server accepts. Two of three requests write.
    fn run(mut self, pause: Duration, bytes: usize) -> Written {
        let mut number = 0;
        let mut due = Instant::now();
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let outcome = if number % 3 == 2 {
                self.read()
            } else {
                self.append(&format!("{}{number};", ".".repeat(bytes)))
            };
            if let Err(outcome) = outcome {
                let is_last = matches!(outcome, Outcome::NotConnected(_));
                self.written.others.push(outcome);
                if is_last {
                    break;
                }
            }
            number += 1;
            // Paced by the clock, so the rate is as requested; a delayed client sends no burst.
            due = (due + pause).max(Instant::now());
            wait::pass(due.saturating_duration_since(Instant::now()));
        }
        self.written
    }

    fn append(&mut self, text: &str) -> Result<(), Outcome> {
        self.ask("POST", "insert", text)?;
        self.written.acknowledged += text;
        self.written.count += 1;
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Reads must find what the client has written, as long as it knows the result of each write.
    fn read(&mut self) -> Result<(), Outcome> {
        let answer = self.ask("GET", "select", "")?;
        let Written { acknowledged, others, .. } = &self.written;
        let is_certain = !others.iter().any(|outcome| matches!(outcome, Outcome::Cut(_)));
        assert!(!is_certain || answer.text() == acknowledged, "{answer}\ninstead of {acknowledged}");
        Ok(())
    }

    /// Returns the response if it is 200; retries until then, if it may.
    fn ask(&mut self, method: &str, command: &str, text: &str) -> Result<Answer, Outcome> {
        let give_up = Instant::now() + RETRY_TIME;
        loop {
            let outcome = self.send(method, command, text);
            let may_ask_again = self.shared.is_patient.load(Ordering::Relaxed) && Instant::now() < give_up;
            match outcome {
                Outcome::Answered(answer) if answer.status == 200 => return Ok(answer),
                Outcome::Answered(answer) if may_ask_again && is_refusal(&answer) => {
                    self.written.refused += 1
                }
                Outcome::NotConnected(error)
                    if may_ask_again && error.kind() == ErrorKind::ConnectionRefused =>
                {
                    self.written.not_connected += 1;
                }
                outcome => return Err(outcome),
            }
            wait::pass(RETRY_PAUSE);
        }
    }

    fn send(&mut self, method: &str, command: &str, text: &str) -> Outcome {
        let Written { client, place, .. } = &self.written;
        let headers = if self.manner == Manner::Fresh { "Connection: close\r\n" } else { "" };
        self.session.ask(client, method, &place.target(command), headers, text)
    }
}

/// A 503 with `Retry-After`.
fn is_refusal(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after").is_some()
}
