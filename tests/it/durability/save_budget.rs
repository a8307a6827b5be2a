//! What a worker writes to the disk is in proportion to what clients write, however long a phext is.

use std::fs;

use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;
use sq_tests::wait;

/// Breaks that lead to each of these scrolls, which cost a client some bytes.
const BREAKS: u64 = 99_998;

/// A write of few bytes counts as one of 64 KiB, and each written byte pays for three saved ones.
const PAID_BY_A_WRITE: u64 = 3 * 64 * 1024;

/// Two phexts of breaks, one of which is saved before each answer while that is paid for; one of text; and a new scroll
/// in each write, not the same one.
#[test]
fn small_writes_to_long_phexts_cost_little() {
    far_scrolls(300, 20, "2.1.1/1.1.1/1.1.1");
    far_scrolls(9, 60, "2.1.1/1.1.1/1.1.1");
    far_scrolls(40, 30, "1.1.1/1.1.1/1.41.N");
}

fn far_scrolls(count: u64, writes: u64, place: &str) {
    let root = Root::empty();
    let worker = LoneWorker::start(root.path());
    for number in 1..=count {
        // The text behind it begins with the next line of scrolls, so all of these breaks stand in the file.
        let target = format!("/api/v2/update?p=far&c=1.1.1/1.1.1/1.{number}.99999&s=x");
        worker.client.get(&target).ok();
    }
    let file_bytes = count * (BREAKS + 1);
    let before = written_bytes(&worker);
    for number in 0..writes {
        let place = place.replace('N', &(number + 1).to_string());
        worker.client.get(&format!("/api/v2/insert?p=far&c={place}&s=xy")).ok();
    }
    let written = written_bytes(&worker) - before;
    // Journals and their blocks besides.
    let most = writes * (PAID_BY_A_WRITE + 16 * 1024) + 2 * file_bytes;
    assert!(written <= most, "{writes} writes to {file_bytes} bytes wrote {written} bytes, more than {most}");
    let (answer, path) = (worker.client.get("/api/v2/get?p=far"), root.path().join("far.phext"));
    worker.stop();
    assert!(fs::read(path).unwrap() == answer.ok().as_bytes(), "the file has everything after a stop");
}

/// Two phexts whose texts do not fit into memory together, written to in turn.
#[test]
fn phexts_that_push_each_other_out_of_memory_are_not_saved_each_time() {
    const SCROLLS: u64 = 8;
    const SCROLL_BYTES: u64 = 5_000_000;
    const WRITES: u64 = 24;
    let root = Root::empty();
    let worker = LoneWorker::start(root.path());
    let text = "x".repeat(usize::try_from(SCROLL_BYTES).unwrap());
    for phext in ["a", "b"] {
        for number in 1..=SCROLLS {
            worker.client.post(&format!("/api/v2/update?p={phext}&c=1.1.1/1.1.1/1.1.{number}"), &text).ok();
        }
    }
    let file = |phext: &str| root.path().join(phext).with_extension("phext");
    let is_saved = |phext| fs::metadata(file(phext)).is_ok_and(|file| file.len() >= SCROLLS * SCROLL_BYTES);
    wait::until("both files", || is_saved("a") && is_saved("b"));
    for number in 0..WRITES {
        let phext = ["a", "b"][usize::from(number % 2 == 1)];
        worker.client.get(&format!("/api/v2/insert?p={phext}&c=2.1.1/1.1.1/1.1.1&s=y")).ok();
    }
    let written = written_bytes(&worker);
    // What was written is in the journals, and has paid; time pays for the first save of each phext, and one a minute.
    let (texts, file_bytes) = (2 * SCROLLS * SCROLL_BYTES, SCROLLS * SCROLL_BYTES);
    let most = 4 * texts + WRITES * (PAID_BY_A_WRITE + 16 * 1024) + 4 * file_bytes;
    assert!(written <= most, "{written} bytes were written, more than {most}");
    worker.stop();
    for phext in ["a", "b"] {
        let text = fs::read(file(phext)).unwrap();
        let written_in_turn = b"y".repeat(usize::try_from(WRITES / 2).unwrap());
        assert!(text.ends_with(&written_in_turn), "{phext} has everything after a stop");
    }
}

/// What the process has had written to the disk (proc_pid_io(5)).
fn written_bytes(worker: &LoneWorker) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{}/io", worker.pid())).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap()
}
