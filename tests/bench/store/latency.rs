//! How long an answer takes: by command, size and server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::corpus::{Corpus, megabytes};
use super::options::Options;
use super::samples::Samples;
use super::subject::{Command, Side, Subject};
use super::table::{Table, milliseconds, nothing, times};

/// The times of all servers, by command and size.
#[derive(Debug, Default)]
pub(crate) struct Latencies(BTreeMap<(Command, usize), Pair>);

/// The times of both at one command and size.
#[derive(Debug, Default)]
struct Pair {
    ours: Samples,
    theirs: Samples,
}

impl Latencies {
    fn of(&mut self, command: Command, subject: &Subject) -> &mut Samples {
        let pair = self.0.entry((command, subject.bytes)).or_default();
        match subject.side {
            Side::Ours => &mut pair.ours,
            Side::Theirs => &mut pair.theirs,
        }
    }

    /// The median; `None` when it was not measured.
    pub(crate) fn p50_ms(&self, command: Command, bytes: usize, side: Side) -> Option<f64> {
        let pair = self.0.get(&(command, bytes))?;
        let samples = if side == Side::Ours { &pair.ours } else { &pair.theirs };
        (samples.count() > 0).then(|| samples.percentile_ms(50))
    }

    /// Prints a row a command and size.
    pub(crate) fn print(&self) {
        let columns = ["command", "size", "ours p50", "p99", "n", "sq p50", "p99", "n", "ours/sq"];
        let mut table = Table::new(&columns);
        for ((command, bytes), pair) in &self.0 {
            let ratio = match (pair.ours.count(), pair.theirs.count()) {
                (0, _) | (_, 0) => nothing(),
                _ => times(pair.ours.percentile_ms(50) / pair.theirs.percentile_ms(50)),
            };
            let mut row = vec![command.name().to_owned(), megabytes(*bytes)];
            row.extend(cells(&pair.ours));
            row.extend(cells(&pair.theirs));
            row.push(ratio);
            table.row(row);
        }
        table.print(
            "Time to the whole answer in ms, a new connection each. Ours is on disk when it answers, sq's is not.",
        );
    }
}

fn cells(samples: &Samples) -> [String; 3] {
    if samples.count() == 0 {
        return [nothing(), nothing(), nothing()];
    }
    let time = |percent| milliseconds(samples.percentile_ms(percent));
    [time(50), time(99), samples.count().to_string()]
}

/// Starts fresh processes one after another, ours and the peer's in turn, and times their first select.
/// Gives the last ones, which run on.
pub(crate) fn open_cold(
    corpus: &Corpus,
    peer: Option<&Path>,
    options: &Options,
    latencies: &mut Latencies,
) -> Vec<Subject> {
    let ours = corpus.data_dir(Side::Ours.name());
    let theirs = peer.map(|program| (program, corpus.data_dir(Side::Theirs.name())));
    let mut running = Vec::new();
    for _ in 0..options.openings {
        running.clear();
        let mut open = |program: Option<&Path>, data_dir: &Path| {
            let mut subject = Subject::start(corpus, program, data_dir);
            let time = subject.ask(Command::ColdOpen);
            latencies.of(Command::ColdOpen, &subject).push(time);
            running.push(subject);
        };
        open(None, &ours);
        if let Some((program, data_dir)) = &theirs {
            open(Some(program), data_dir);
        }
    }
    running
}

/// Measures all commands at all servers.
pub(crate) fn measure(subjects: &mut [Subject], options: &Options, latencies: &mut Latencies) {
    for command in [Command::Select, Command::Toc, Command::Update, Command::Insert] {
        for _ in 0..options.rounds {
            // Each of two neighbours, ours and the peer's, comes first in every other round.
            subjects.reverse();
            for subject in subjects.iter_mut() {
                let samples = block(subject, command, options);
                latencies.of(command, subject).extend(samples);
                if command.writes() {
                    subject.sync_for_peer();
                }
            }
            if command.writes() {
                subjects.iter().for_each(Subject::await_file);
            }
        }
    }
    subjects.sort_by_key(|subject| subject.bytes);
}

/// One server's requests in a round, after one that warms the caches and does not count.
fn block(subject: &mut Subject, command: Command, options: &Options) -> Samples {
    let rounds = u32::try_from(options.rounds).expect("a small number");
    subject.ask(Command::Select);
    let mut samples = Samples::default();
    while samples.count() == 0
        || (samples.count() < options.row_requests.div_ceil(options.rounds)
            && samples.total() < options.row / rounds)
    {
        samples.push(subject.ask(command));
    }
    samples
}

/// Updates without a pause: what follows a write later, such as bringing the file up to date, is on the
/// clock here.
pub(crate) fn sustained(subject: &mut Subject, options: &Options) {
    let mut samples = Samples::default();
    let started = Instant::now();
    while samples.count() == 0 || started.elapsed() < options.sustained {
        samples.push(subject.ask(Command::Update));
    }
    let time = |percent| milliseconds(samples.percentile_ms(percent));
    println!(
        "\nupdates of ours at {} for {:.1} s without a pause: {} updates, p50 {} ms, p99 {} ms, longest {} ms",
        megabytes(subject.bytes),
        started.elapsed().max(Duration::from_millis(1)).as_secs_f64(),
        samples.count(),
        time(50),
        time(99),
        time(100),
    );
}
