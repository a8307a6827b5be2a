//! The same load on several programs, in turn: one after the other in each round, so that all meet the same machine.

use std::net::SocketAddr;
use std::time::Duration;

use super::load::Load;
use super::options::Options;
use super::script::Written;
use super::usage::{Cpu, memory_kib};

/// A program under load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'s> {
    /// How the table calls it.
    pub(crate) name: &'s str,
    /// Its first process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it is asked.
    pub(crate) script: &'s Written,
}

/// What is sent to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// On so many connections.
    pub(crate) connections: u32,
    /// What is to come of each.
    pub(crate) answer: Expected,
}

/// The answer that every request of a run gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// How long its body is; `None` where each program has a text of its own.
    pub(crate) body_bytes: Option<usize>,
}

impl Expected {
    fn is_refusal(self) -> bool {
        self.status >= 400
    }

    /// A program that answers quickly because it answers something else is not to be measured. Where a rate refuses, the
    /// first request passes.
    fn check(self, subject: Subject<'_>) -> Result<(), String> {
        let mut answer = subject.script.ask_once(subject.address);
        if self.status == 429 {
            answer = subject.script.ask_once(subject.address);
        }
        let is_expected =
            answer.status == self.status && self.body_bytes.is_none_or(|bytes| bytes == answer.body.len());
        if is_expected { Ok(()) } else { Err(format!("answered {answer}")) }
    }
}

/// What one program did: in one round, or the medians of all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Microseconds of processor time a request, in the program and in the kernel.
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// Both together: the median is of the sums, and may differ a little from the sum of the medians.
    pub(crate) cpu_us: f64,
    pub(crate) memory_kib: f64,
}

/// A line of a table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) figures: Figures,
    /// The least and the most processor time of a round.
    pub(crate) cpu_spread_us: (f64, f64),
    /// How many times those of the table's first line: the medians of what each round says, for the machine may be slow in
    /// one round and quick in the next.
    pub(crate) rate_ratio: f64,
    pub(crate) p50_ratio: f64,
    pub(crate) cpu_ratio: f64,
}

impl Figures {
    /// The medians of one program's rounds.
    fn medians(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            rate: of(|round| round.rate),
            p50_us: of(|round| round.p50_us),
            p99_us: of(|round| round.p99_us),
            user_us: of(|round| round.user_us),
            system_us: of(|round| round.system_us),
            cpu_us: of(|round| round.cpu_us),
            memory_kib: of(|round| round.memory_kib),
        }
    }
}

impl Line {
    fn new(name: &str, rounds: &[Figures], of_first: &[Figures]) -> Self {
        let ratio = |figure: fn(&Figures) -> f64| {
            median(rounds.iter().zip(of_first).map(|(own, first)| figure(own) / figure(first)).collect())
        };
        let cpu_us = rounds.iter().map(|round| round.cpu_us);
        Self {
            name: name.to_owned(),
            figures: Figures::medians(rounds),
            cpu_spread_us: (cpu_us.clone().fold(f64::MAX, f64::min), cpu_us.fold(0.0, f64::max)),
            rate_ratio: ratio(|round| round.rate),
            p50_ratio: ratio(|round| round.p50_us),
            cpu_ratio: ratio(|round| round.cpu_us),
        }
    }
}

/// How long a program is warmed up before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// A program, and what it did in each round.
struct Measured<'s> {
    subject: Subject<'s>,
    rounds: Vec<Figures>,
    is_left_out: bool,
}

impl<'s> Measured<'s> {
    fn new(subject: Subject<'s>) -> Self {
        Self { subject, rounds: Vec::new(), is_left_out: false }
    }

    /// A peer that stalls does not end the others' measurement, and has no line. Ours must not.
    fn leave_out(&mut self, failure: &str) {
        let name = self.subject.name;
        assert!(!name.starts_with("sq-"), "{name} {failure}");
        println!("- {name} is left out of the next table: it {failure}");
        self.is_left_out = true;
    }
}

/// Measures all of them. What the first one did is what the others are compared with.
pub(crate) fn in_turn(options: &Options, subjects: &[Subject<'_>], sent: Sent) -> Vec<Line> {
    let mut all: Vec<Measured<'_>> = subjects.iter().map(|subject| Measured::new(*subject)).collect();
    for measured in &mut all {
        if let Err(failure) = sent.answer.check(measured.subject) {
            measured.leave_out(&failure);
        }
    }
    for round in 0..options.rounds.get() {
        // Another one is the first in each round.
        for place in 0..all.len() {
            let number = (place + round) % subjects.len();
            let Some(measured) = all.get_mut(number).filter(|measured| !measured.is_left_out) else {
                continue;
            };
            match once(options.time, measured.subject, sent) {
                Ok(figures) => measured.rounds.push(figures),
                Err(failure) => measured.leave_out(&failure),
            }
        }
    }
    let first =
        all.first().filter(|first| !first.is_left_out).expect("figures of what the others are compared with");
    let left = all.iter().filter(|measured| !measured.is_left_out);
    left.map(|measured| Line::new(measured.subject.name, &measured.rounds, &first.rounds)).collect()
}

/// Measures a program, or says what it did wrong.
fn once(time: Duration, subject: Subject<'_>, sent: Sent) -> Result<Figures, String> {
    let load = |time| Load {
        address: subject.address,
        script: &subject.script.file,
        connections: sent.connections,
        time,
    };
    load(WARM_UP).run();
    let before = Cpu::of(subject.pid);
    let (ran, memory_kib) = load(time).run_and_look(|| memory_kib(subject.pid));
    let used = Cpu::of(subject.pid).since(before);
    // SQ's own servers close each connection in a way that wrk counts as an error.
    if let Some(errors) = ran.errors.filter(|_| !subject.name.starts_with("sq ")) {
        return Err(format!("broke connections: {errors}"));
    }
    if ran.requests == 0 {
        return Err("answered nothing".to_owned());
    }
    let well = if sent.answer.is_refusal() { ran.refused + 10 >= ran.requests } else { ran.refused == 0 };
    if !well {
        return Err(format!("refused {} of {} requests", ran.refused, ran.requests));
    }
    let a_request = |time: Duration| time.as_secs_f64() * 1e6 / ran.requests as f64;
    Ok(Figures {
        rate: ran.rate,
        p50_us: ran.p50_us,
        p99_us: ran.p99_us,
        user_us: a_request(used.user),
        system_us: a_request(used.system),
        cpu_us: a_request(used.user + used.system),
        memory_kib: memory_kib as f64,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().expect("at least one value")
}
