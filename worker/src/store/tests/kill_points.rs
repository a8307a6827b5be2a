//! The end of the process, and of the power, at each single change that a scripted run makes on the disk.

use super::*;

/// Seeds of power cuts for each point: what was not synced stays, goes, or is torn.
const CUTS: u64 = 6;

/// The small phext, which may be the unnamed one, and the large one; and both in a folder, where empty files stay.
type Names = [&'static str; 2];
const NAMES: [Names; 2] = [["", "large"], ["folder/", "folder/large"]];

/// A scroll that is farther away than a new one may be.
const FAR: &str = "1.1.1/1.1.1/1.1.100001";

/// The script: two phexts, one saved before each answer and one later, long enough for journals to be compacted.
const WRITES: usize = 24;

fn tuning() -> Tuning {
    Tuning {
        save_before_answer_bytes: 120,
        save_delay: Duration::ZERO,
        compact_journal_bytes: 500,
        ..Tuning::DEFAULT
    }
}

fn edit(number: usize, [small, large]: Names) -> (&'static str, Coordinate, Edit) {
    let is_large = number.is_multiple_of(2);
    let place = at([ORIGIN, if is_large { FAR } else { "1.1.1/1.1.1/1.1.3" }][number / 2 % 2]);
    let text = format!("{number};{}", "x".repeat(number * 5));
    match number % 8 {
        5 => (small, place, Edit::Remove),
        number if number % 2 == 1 => (small, place, Edit::Replace(text[..text.len().min(40)].to_owned())),
        _ => (large, place, append(&text)),
    }
}

type Texts = [String; 2];

/// A disk on which the operator has made the files that the phexts in a folder must have.
fn new_disk(seed: u64, names: Names) -> SimDisk {
    let disk = SimDisk::new(seed);
    let in_folder = names.map(name).into_iter().filter(|name: &PhextName| name.folder().is_some());
    in_folder.for_each(|name| disk.replace_behind_our_back(&FileName::Phext(name), b""));
    disk
}

fn texts(store: &mut Store, names: Names) -> Texts {
    names.map(|phext| store.read(&name(phext)).unwrap().into_parts().0.join())
}

/// Runs the script until the disk stops. Gives what the phexts were after each write, and how many were
/// acknowledged.
fn run(disk: &SimDisk, names: Names) -> (Vec<Texts>, usize) {
    let mut store = on_sim(disk, tuning());
    let (mut states, mut acknowledged) = (vec![Texts::default()], 0);
    for number in 0..WRITES {
        let (phext, place, edit) = edit(number, names);
        let write = Write { at: place, edit, expected: None, key: None };
        let Ok(pending) = store.write(&name(phext), &write) else { break };
        let (_, commit_points) = pending.into_parts();
        states.push(names.map(|phext| in_memory(&store, phext)));
        // Now and then two writes go together.
        if number % 3 != 1 {
            run_jobs(&mut store);
        }
        if store.is_in_doubt() {
            break;
        }
        if store.are_durable(&commit_points) {
            acknowledged = states.len() - 1;
        }
    }
    store.close();
    run_jobs(&mut store);
    (states, acknowledged)
}

/// What is there after a cut must be what was there after some writes to that phext, none of them lost that
/// was acknowledged.
fn judge(states: &[Texts], acknowledged: usize, found: &Texts, point: u64) {
    for (phext, text) in found.iter().enumerate() {
        let is_possible = states[acknowledged..].iter().any(|state| state[phext] == *text);
        assert!(
            is_possible,
            "point {point}, phext {phext}: {text:?} after {acknowledged} acknowledged writes"
        );
    }
}

#[test]
fn an_end_at_any_change_of_the_disk_loses_nothing_acknowledged() {
    for names in NAMES {
        let whole = new_disk(1, names);
        let before = whole.changes();
        let (states, acknowledged) = run(&whole, names);
        assert_eq!((states.len(), acknowledged), (WRITES + 1, WRITES));
        let points = whole.changes() - before;
        assert!(points > 150, "only {points} changes");
        (0..=points).for_each(|point| end_at(point, names));
    }
}

fn end_at(point: u64, names: Names) {
    let disk = new_disk(point, names);
    disk.stop_after(point);
    let (mut states, acknowledged) = run(&disk, names);
    // The write that the end struck may be whole in the journal all the same.
    let (phext, place, edit) = edit(states.len() - 1, names);
    let mut last = states.last().unwrap().clone();
    let index = usize::from(phext == names[1]);
    let mut struck = Phext::parse(last[index].as_bytes()).unwrap();
    struck.apply(place, &edit);
    last[index] = struck.join();
    states.push(last);
    let ends = std::iter::once(disk.kill()).chain((0..CUTS).map(|seed| disk.crash(seed)));
    for after in ends {
        let mut store = on_sim(&after, tuning());
        judge(&states, acknowledged, &texts(&mut store, names), point);
        // The next start serves, and saves what it has.
        put(&mut store, names[0], ORIGIN, "next").unwrap();
        let served = texts(&mut store, names);
        close(store);
        assert_eq!(names.map(|phext| saved(&after, phext).unwrap_or_default()), served);
    }
}
