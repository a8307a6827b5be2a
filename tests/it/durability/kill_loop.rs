//! A busy worker that is killed over and over, behind the gateway and its retries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Place};
use sq_tests::notice::say;
use sq_tests::process;
use sq_tests::setup::Setup;
use sq_tests::wait;

use super::{LARGE, SMALL};

/// How often the worker is killed.
const KILLS: usize = 200;

/// How many clients write at once.
const WRITERS: usize = 8;

/// How many lines must have been acknowledged since the last kill before the next one.
const LINES_BETWEEN_KILLS: usize = 5;

/// Lines that a writer tried to insert, and those of them that were acknowledged.
#[derive(Default)]
struct Lines {
    tried: Vec<(Place, String)>,
    acknowledged: Vec<(Place, String)>,
}

/// What the writers and the killer tell each other.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    is_done: AtomicBool,
}

#[test]
fn each_acknowledged_line_stands_exactly_once_after_many_kills() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    // The first worker makes the directory.
    client.get(&Place::new(SMALL, 30).target("select")).ok();
    large_phext::write(&running.join("data/alice"), LARGE, &Ledger::default());
    let progress = Progress::default();
    let lines: Vec<Lines> = thread::scope(|scope| {
        let (client, progress) = (&client, &progress);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(writer, client, progress))).collect();
        // Whatever happens here, the writers must come to an end.
        let killing = scope.spawn(|| kill_again_and_again(&running, progress)).join();
        progress.is_done.store(true, Ordering::Relaxed);
        let lines = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        killing.unwrap();
        lines
    });
    let select = |place: &Place| {
        wait::until_some("an answer", || {
            Some(client.get(&place.target("select"))).filter(|answer| answer.status == 200)
        })
    };
    let served = judge(&lines, |place| select(place).text().to_owned());
    running.stop();
    let tried: usize = lines.iter().map(|lines| lines.tried.len()).sum();
    say(&format!("kill loop: {KILLS} kills, {served} of {tried} lines acknowledged"));
    assert!(served >= KILLS * LINES_BETWEEN_KILLS);
}

fn kill_again_and_again(running: &Deployment, progress: &Progress) {
    let mut last = None;
    for _ in 0..KILLS {
        let enough = progress.acknowledged.load(Ordering::Relaxed) + LINES_BETWEEN_KILLS;
        wait::until("lines that are acknowledged", || {
            progress.acknowledged.load(Ordering::Relaxed) >= enough
        });
        let worker = wait::until_some("the next worker", || {
            running.worker_of("alice").filter(|worker| Some(worker.pid) != last)
        });
        process::signal(worker.pid, Signal::KILL);
        last = Some(worker.pid);
    }
}

/// Inserts numbered lines, in turn into a phext of its own and two that all writers share. A line that was
/// not acknowledged is not tried again: it may stand once or not at all.
fn write(writer: usize, client: &Client, progress: &Progress) -> Lines {
    let own = format!("own-{writer}");
    let mut lines = Lines::default();
    for number in 0.. {
        if progress.is_done.load(Ordering::Relaxed) {
            break;
        }
        let places = [(SMALL, 30), (&own, 30), (LARGE, 30), (LARGE, large_phext::FAR)];
        let (phext, scroll) = places[number % places.len()];
        let place = Place::new(phext, scroll);
        let line = format!("{writer}:{number}");
        lines.tried.push((place.clone(), line.clone()));
        let body = line.clone() + "\n";
        match client.try_request("POST", &place.target("insert"), "", Some(body.as_bytes())) {
            Ok(answer) if answer.status == 200 => {
                lines.acknowledged.push((place, line));
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => assert!([502, 503, 504].contains(&answer.status), "{answer}"),
            Err(error) => panic!("the gateway gave no answer: {error}"),
        }
    }
    lines
}

/// Each acknowledged line stands exactly once, no line twice, and none that nobody tried. Gives how many were
/// acknowledged.
fn judge(writers: &[Lines], read: impl Fn(&Place) -> String) -> usize {
    let mut counts: BTreeMap<(Place, String), usize> = BTreeMap::new();
    for (place, line) in writers.iter().flat_map(|lines| &lines.tried) {
        counts.insert((place.clone(), line.clone()), 0);
    }
    let places: Vec<Place> = counts.keys().map(|(place, _)| place.clone()).collect();
    let mut mistakes = Vec::new();
    for place in places.into_iter().collect::<std::collections::BTreeSet<_>>() {
        let text = read(&place);
        assert!(text.is_empty() || text.ends_with('\n'), "a line of {place:?} is cut off");
        for line in text.lines().filter(|line| *line != "far") {
            match counts.get_mut(&(place.clone(), line.to_owned())) {
                Some(count) => *count += 1,
                None => mistakes.push(format!("nobody wrote {line:?} into {place:?}")),
            }
        }
    }
    let twice = counts.iter().filter(|(_, count)| **count > 1);
    mistakes.extend(twice.map(|(line, count)| format!("{line:?} stands {count} times")));
    let acknowledged: Vec<_> = writers.iter().flat_map(|lines| &lines.acknowledged).collect();
    let missing = acknowledged.iter().filter(|line| counts.get(**line) == Some(&0));
    mistakes.extend(missing.map(|line| format!("{line:?} was acknowledged and is gone")));
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    acknowledged.len()
}
