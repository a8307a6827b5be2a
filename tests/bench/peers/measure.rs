//! The same load on several programs, in turn: one after the other in each round, so that all meet the same machine.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::load::Load;
use super::options::Options;
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
    pub(crate) script: &'s Path,
}

/// What is sent to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// On so many connections.
    pub(crate) connections: u32,
    /// Whether all of them are to be refused.
    pub(crate) is_refused: bool,
}

/// What one program did: the medians of all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) name: String,
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Microseconds of processor time a request, in the program and in the kernel.
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// Both together: the least and the most of all rounds.
    pub(crate) cpu_spread_us: (f64, f64),
    pub(crate) memory_kib: f64,
}

impl Figures {
    /// Microseconds of processor time a request.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    /// The medians of one program's rounds.
    fn medians(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            name: rounds.first().expect("at least one round").name.clone(),
            rate: of(|round| round.rate),
            p50_us: of(|round| round.p50_us),
            p99_us: of(|round| round.p99_us),
            user_us: of(|round| round.user_us),
            system_us: of(|round| round.system_us),
            cpu_spread_us: rounds.iter().map(Self::cpu_us).fold((f64::MAX, 0.0), |(least, most), cpu_us| {
                (f64::min(least, cpu_us), f64::max(most, cpu_us))
            }),
            memory_kib: of(|round| round.memory_kib),
        }
    }
}

/// How long a program is warmed up before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures all of them.
pub(crate) fn in_turn(options: &Options, subjects: &[Subject<'_>], sent: Sent) -> Vec<Figures> {
    let mut rounds: Vec<Vec<Figures>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        // Another one is the first in each round.
        for place in 0..subjects.len() {
            let number = (place + round) % subjects.len();
            if let (Some(subject), Some(figures)) = (subjects.get(number), rounds.get_mut(number)) {
                figures.push(once(options.time, *subject, sent));
            }
        }
    }
    rounds.iter().map(|rounds| Figures::medians(rounds)).collect()
}

fn once(time: Duration, subject: Subject<'_>, sent: Sent) -> Figures {
    let load =
        |time| Load { address: subject.address, script: subject.script, connections: sent.connections, time };
    load(WARM_UP).run();
    let before = Cpu::of(subject.pid);
    let (ran, memory_kib) = load(time).run_and_look(|| memory_kib(subject.pid));
    let used = Cpu::of(subject.pid).since(before);
    let name = subject.name;
    // SQ's own servers close each connection in a way that wrk counts as an error.
    assert!(ran.errors.is_none() || name.starts_with("sq "), "{name}: {:?}", ran.errors);
    assert!(ran.requests > 0, "{name} answered nothing");
    let well = if sent.is_refused { ran.refused + 10 >= ran.requests } else { ran.refused == 0 };
    assert!(well, "{name} refused {} of {} requests", ran.refused, ran.requests);
    let a_request = |time: Duration| time.as_secs_f64() * 1e6 / ran.requests as f64;
    Figures {
        name: name.to_owned(),
        rate: ran.rate,
        p50_us: ran.p50_us,
        p99_us: ran.p99_us,
        user_us: a_request(used.user),
        system_us: a_request(used.system),
        cpu_spread_us: (0.0, 0.0),
        memory_kib: memory_kib as f64,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().expect("at least one value")
}
