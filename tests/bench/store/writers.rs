//! Many writers at once, beside what the disk could do.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::client::Client;

use super::corpus::{Corpus, JUST_JOURNALLED_BYTES, megabytes};
use super::disk::{self, Pattern};
use super::options::Options;
use super::samples::{Samples, per_second};
use super::subject::{Command, Subject, target};
use super::table::{Table, milliseconds};

/// How many connections write at the same time, each to a scroll of its own.
pub(crate) const WRITERS: usize = 32;

/// The text of an update.
const TEXT_BYTES: usize = 100;

/// The phext whose own file is up to date when the answer comes.
const SMALL_BYTES: usize = 50_000;

/// What the writers and the disk did.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Which phext.
    pub(crate) phext: String,
    latencies: Samples,
    /// Updates a second, of all writers.
    pub(crate) updates_per_second: f64,
    pattern: Pattern,
    groups: Samples,
    single: Samples,
}

impl Rate {
    /// How many updates a second the disk takes when as many of them as there are writers share a sync.
    pub(crate) fn disk_limit_per_second(&self) -> f64 {
        self.groups.rate() * per_second(WRITERS, Duration::from_secs(1))
    }

    /// How long a single update takes on this disk at least, in the median.
    pub(crate) fn disk_floor_ms(&self) -> f64 {
        self.single.percentile_ms(50)
    }
}

/// Lets the writers and the disk alternate, for a large phext and for a small one.
pub(crate) fn measure(folder: &Path, options: &Options) -> Vec<Rate> {
    let phexts =
        [(JUST_JOURNALLED_BYTES, Pattern::Append), (SMALL_BYTES, Pattern::AppendAndReplace(SMALL_BYTES))];
    phexts.into_iter().map(|(bytes, pattern)| at_size(folder, bytes, pattern, options)).collect()
}

fn at_size(folder: &Path, bytes: usize, pattern: Pattern, options: &Options) -> Rate {
    let corpus = Corpus::long_scrolls(folder, bytes);
    let mut subject = Subject::start(&corpus, None, &corpus.data_dir("writers"));
    subject.ask(Command::ColdOpen);
    let (mut latencies, mut groups, mut single) = <(Samples, Samples, Samples)>::default();
    let mut writing = Duration::ZERO;
    for _ in 0..options.writing_rounds {
        let (samples, time) = write(subject.client(), options.writing);
        latencies.extend(samples);
        writing += time;
        // The last round's file follows later, and is not to be on the clock of the disk.
        subject.ask(Command::Update);
        subject.await_file();
        groups.extend(disk::measure(folder, pattern, WRITERS, options.disk));
        single.extend(disk::measure(folder, pattern, 1, options.disk));
    }
    let phext = if bytes < JUST_JOURNALLED_BYTES { "small".to_owned() } else { megabytes(bytes) };
    Rate {
        phext,
        updates_per_second: per_second(latencies.count(), writing),
        latencies,
        pattern,
        groups,
        single,
    }
}

/// All writers for a time: how long each update took, and how long it was until the last one ended.
fn write(client: &Client, time: Duration) -> (Samples, Duration) {
    let barrier = Barrier::new(WRITERS + 1);
    thread::scope(|scope| {
        let start = |writer| {
            let barrier = &barrier;
            scope.spawn(move || write_alone(client, writer, time, barrier))
        };
        let threads: Vec<_> = (0..WRITERS).map(start).collect();
        barrier.wait();
        let started = Instant::now();
        let mut all = Samples::default();
        threads.into_iter().for_each(|thread| all.extend(thread.join().expect("a writer")));
        (all, started.elapsed())
    })
}

/// One writer on a connection that stays open.
fn write_alone(client: &Client, writer: usize, time: Duration, barrier: &Barrier) -> Samples {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let head =
        client.head("POST", &target("update", writer)) + &format!("Content-Length: {TEXT_BYTES}\r\n\r\n");
    let mut connection = client.connect();
    let mut samples = Samples::default();
    barrier.wait();
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let request = format!("{head}{serial:>TEXT_BYTES$}");
        let started = Instant::now();
        connection.send(request.as_bytes());
        let answer = connection.answer_to("POST");
        samples.push(started.elapsed());
        answer.ok();
    }
    samples
}

/// Prints what the writers reached, and what the disk could do.
pub(crate) fn print(rates: &[Rate]) {
    let mut table = Table::new(&["phext", "updates/s", "p50 ms", "p99 ms", "n", "disk's limit/s", "reached"]);
    for rate in rates {
        table.row(vec![
            rate.phext.clone(),
            format!("{:.0}", rate.updates_per_second),
            milliseconds(rate.latencies.percentile_ms(50)),
            milliseconds(rate.latencies.percentile_ms(99)),
            rate.latencies.count().to_string(),
            format!("{:.0}", rate.disk_limit_per_second()),
            format!("{:.0} %", rate.updates_per_second / rate.disk_limit_per_second() * 100.0),
        ]);
    }
    table.print(&format!(
        "{WRITERS} writers on connections that stay open, {TEXT_BYTES} bytes each, on the same cores as the worker."
    ));

    let mut table = Table::new(&["the disk alone", "records", "p50 ms", "p99 ms", "n", "records/s"]);
    for rate in rates {
        let what = match rate.pattern {
            Pattern::Append => "append, fdatasync".to_owned(),
            Pattern::AppendAndReplace(bytes) => {
                format!("append, fdatasync; write {bytes} bytes, fsync, rename, fsync the directory")
            }
        };
        for (records, samples) in [(WRITERS, &rate.groups), (1, &rate.single)] {
            table.row(vec![
                what.clone(),
                records.to_string(),
                milliseconds(samples.percentile_ms(50)),
                milliseconds(samples.percentile_ms(99)),
                samples.count().to_string(),
                format!("{:.0}", samples.rate() * per_second(records, Duration::from_secs(1))),
            ]);
        }
    }
    table.print("The same disk, asked for nothing but the system calls of a group of records.");
}
