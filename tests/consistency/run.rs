//! A run: clients and a nemesis at work on one system, then the judgement.

use std::fmt::Write as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sq_tests::notice::say;
use sq_tests::random::Random;
use sq_tests::{binaries, process, wait};

use crate::checker::{Verdict, check};
use crate::clients::{Board, Caller, LARGE};
use crate::history::{Call, Operation, Scroll};
use crate::nemesis::Nemesis;
use crate::shortest::shortest;
use crate::system::{KEYS, System, TENANTS};

/// How many calls the clients make; [`OPERATIONS_VARIABLE`] may say another number.
const OPERATIONS: usize = 6_000;
const OPERATIONS_VARIABLE: &str = "SQ_CONSISTENCY_OPERATIONS";

/// The seed of a run that is to be made again.
const SEED_VARIABLE: &str = "SQ_CONSISTENCY_SEED";

/// How many clients each tenant has.
const CLIENTS: usize = 8;

/// How long so many operations may take: a machine that is slower than this does not get through.
const LIMIT: Duration = Duration::from_secs(300);
const LIMIT_PER_OPERATION: Duration = Duration::from_millis(12);

/// How long a scroll may be unavailable when everything runs again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What makes the large phext large.
const LARGE_BYTES: usize = 1200 << 10;

#[test]
fn what_clients_are_told_is_linearizable_under_faults() {
    let (operations, seed) = (number_of(OPERATIONS_VARIABLE).unwrap_or(OPERATIONS as u64), seed());
    say(&format!("consistency: {operations} operations with {SEED_VARIABLE}={seed}"));
    let mut system = System::start();
    make_large(&system);
    let began = Instant::now();
    let board = Board::new(operations as usize, TENANTS.len());
    work(&mut system, &board, seed);
    let worked = began.elapsed().as_secs();
    system.restart();
    read_everything(&system, &board);
    system.stop();
    for tenant in TENANTS {
        process::run(Command::new(binaries::worker()).arg("fsck").arg(system.data_dir(tenant))).success();
    }
    let calls = board.calls();
    judge(&system, board, seed);
    assert!(calls >= operations as usize, "only {calls} of {operations} operations in {worked} s");
    say(&format!("consistency: worked {worked} s, judged after {} s", began.elapsed().as_secs()));
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    number_of(SEED_VARIABLE).unwrap_or_else(|| u64::from(now().subsec_nanos()))
}

fn make_large(system: &System) {
    for tenant in TENANTS {
        let target = Scroll { tenant, phext: LARGE.to_owned(), number: 90_000 }.target("update");
        system.client(tenant, 0).post(&target, "x".repeat(LARGE_BYTES)).ok();
    }
}

/// Lets the clients make their calls, and the nemesis its faults.
fn work(system: &mut System, board: &Board, seed: u64) {
    let mut seeds = Random::new(seed);
    let clients = |tenant| -> Vec<_> { (0..KEYS).map(|index| system.client(tenant, index)).collect() };
    let callers: Vec<Caller> = (0..CLIENTS * TENANTS.len())
        .map(|number| {
            let tenant = TENANTS[number % TENANTS.len()];
            Caller::new(board, number, tenant, clients(tenant), seeds.next_u64())
        })
        .collect();
    let limit = LIMIT + LIMIT_PER_OPERATION * u32::try_from(board.limit()).expect("a number of calls");
    let counts = thread::scope(|scope| {
        callers.into_iter().for_each(|caller| drop(scope.spawn(|| caller.run())));
        // Too slow or broken, the run comes to an end.
        scope.spawn(|| {
            wait::within(limit, || board.is_over().then_some(()));
            board.end();
        });
        let nemesis = Nemesis::new(system, board, seeds.next_u64());
        let faults = scope.spawn(|| nemesis.run()).join();
        board.end();
        faults.expect("the nemesis")
    });
    let faults: usize = counts.values().sum();
    say(&format!("consistency: {faults} faults: {counts:?}"));
}

/// The last reads are part of the history.
fn read_everything(system: &System, board: &Board) {
    for scroll in board.recorder.scrolls() {
        let clients = (0..KEYS).map(|index| system.client(scroll.tenant, index)).collect();
        let mut reader = Caller::new(board, CLIENTS * TENANTS.len(), scroll.tenant, clients, 0);
        let read = wait::within(PATIENCE, || reader.read(&scroll).then_some(()));
        assert!(read.is_some(), "{scroll:?} cannot be read when everything runs again");
    }
}

/// Checks the history of each scroll.
fn judge(system: &System, board: Board, seed: u64) {
    let (done, unknown, refused) = board.results();
    let histories = board.recorder.into_histories();
    let (mut most_states, mut most_unknown) = (0, 0);
    let mut mistakes = String::new();
    for (scroll, calls) in &histories {
        most_unknown = most_unknown.max(calls.iter().filter(|call| call.ended.is_none()).count());
        match check(calls) {
            Verdict::Linearizable(states) => most_states = most_states.max(states),
            verdict => {
                let file = format!("history-{}-{}-{}", scroll.tenant, scroll.phext, scroll.number);
                system.root.write(&file, &lines(calls));
                let short = if verdict == Verdict::Violation { shortest(calls) } else { Vec::new() };
                let _ = writeln!(mistakes, "{scroll:?}: {verdict:?}, all in {file}\n{}", lines(&short));
            }
        }
    }
    say(&format!(
        "consistency: {done} answered, {unknown} unknown, {refused} refused; {} scrolls, at most {most_unknown} \
         unknown and {most_states} states each",
        histories.len()
    ));
    assert!(mistakes.is_empty(), "{SEED_VARIABLE}={seed}\n{mistakes}");
}

/// A history as it is printed.
fn lines(calls: &[Call]) -> String {
    let mut sorted: Vec<&Call> = calls.iter().collect();
    sorted.sort_by_key(|call| call.began);
    let writes = sorted.iter().filter(|call| matches!(call.operation, Operation::Write(..))).count();
    let lines: String = sorted.iter().map(|call| format!("{call}\n")).collect();
    format!("{} calls, {writes} of them writes\n{lines}", calls.len())
}
