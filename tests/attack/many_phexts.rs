//! A tenant with as many phexts as may be, or one who writes to thousands, uses up neither descriptors nor memory nor the
//! time of its other requests.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::{notice, process, wait};

/// More than the store keeps open, and more than the descriptors that most systems give a process.
const PHEXTS: usize = 3000;

/// The store keeps 1,024 journals open; the rest is connections, saves and the runtime.
const DESCRIPTORS: usize = 1200;

/// The limit of the config's default.
const MOST_PHEXTS: usize = 100_000;

/// The default of `[pool] memory`, and what a worker is without it.
const MEMORY_KIB: u64 = (64 + 16) * 1024;

/// Another request waits no longer than this for a list, on a machine that is busy with other tests too. A list that was
/// read on the worker's own thread made it wait for seconds.
const WAIT: Duration = Duration::from_secs(3);

const PLACE: &str = "c=1.1.1/1.1.1/1.1.1";

fn target(verb: &str, phext: &str) -> String {
    format!("/api/v2/{verb}?p={phext}&{PLACE}")
}

fn insert(client: &Client, phext: &str) -> Answer {
    client.post(&target("insert", phext), "x")
}

/// Phexts of one byte, as another program puts them there.
fn put_phexts(directory: &Path, names: impl Iterator<Item = String>) {
    fs::create_dir_all(directory).unwrap();
    names.for_each(|name| fs::write(directory.join(name + ".phext"), "x").unwrap());
}

fn listed(client: &Client) -> Vec<String> {
    let answer = client.get("/api/v2/phexts");
    assert_eq!(answer.status, 200, "{answer}");
    let rows = answer.json();
    let rows = rows.as_array().unwrap();
    assert!(rows.iter().all(|row| row["bytes"] == 1 && row["scrolls"] == 1), "{answer}");
    rows.iter().map(|row| row["phext"].as_str().unwrap().to_owned()).collect()
}

/// Writes and reads until `is_over`; gives how often, and the longest that one took.
fn ask_until(client: &Client, is_over: &AtomicBool) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        for verb in ["select", "update"] {
            let asked = Instant::now();
            client.get(&(target(verb, "n00000") + "&s=x")).ok();
            longest = longest.max(asked.elapsed());
            count += 1;
        }
    }
    (count, longest)
}

#[test]
fn a_worker_does_not_keep_every_phext_open() {
    let folder = tempfile::tempdir().unwrap();
    let worker = LoneWorker::start(&folder.path().join("data"));
    let mut connection = worker.client.connect();
    let mut most = 0;
    for number in 0..PHEXTS {
        let insert = target("insert", &format!("n{number}")) + "&s=x";
        let head = worker.client.head("GET", &insert);
        connection.send(format!("{head}\r\n").as_bytes());
        assert_eq!(connection.answer().status, 200, "{number}");
        if number % 100 == 0 {
            most = most.max(descriptors(&worker));
        }
    }
    most = most.max(descriptors(&worker));
    notice::say(&format!("{PHEXTS} phexts written to: {most} descriptors at most"));
    assert!(most <= DESCRIPTORS, "{most} descriptors");
    assert_eq!(worker.client.get(&target("select", "n0")).ok(), "x");
    worker.stop();
}

fn descriptors(worker: &LoneWorker) -> usize {
    fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count()
}

#[test]
fn a_hundred_thousand_phexts_are_the_limit_and_leave_the_worker_its_time_and_memory() {
    let root = Root::new(&Setup::default());
    let directory = root.join("data/alice");
    put_phexts(&directory, (0..MOST_PHEXTS - 1).map(|number| format!("n{number:05}")));
    let running = Deployment::up(root, &[]);
    let alice = running.client_of("alice");
    insert(&alice, "last").ok();
    let problem = insert(&alice, "more").problem(507, "quota_exceeded");
    assert_eq!(problem["phexts"], MOST_PHEXTS, "{problem}");
    assert_eq!((&problem["used"], &problem["quota"]), (&(MOST_PHEXTS * 4096).into(), &(1 << 30).into()));
    // A key that is to be remembered makes no phext.
    let key = "Idempotency-Key: k\r\n";
    alice.request("POST", &target("delete", "more"), key, Some(b"")).ok();
    insert(&alice, "more").problem(507, "quota_exceeded");
    insert(&running.client_of("bob"), "more").ok();

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| ask_until(&alice, &is_over));
        let asked = Instant::now();
        let names = listed(&alice);
        let took = asked.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(names.len(), MOST_PHEXTS);
        assert!(names.is_sorted() && names.iter().any(|name| name == "last"));
        let (count, longest) = other.join().unwrap();
        let worker = running.worker_of("alice").unwrap();
        let peak_kib = process::kibibytes(worker.pid, "status", "VmHWM").unwrap();
        notice::say(&format!(
            "a list of {MOST_PHEXTS} took {took:?}; beside it {count} requests, the longest {longest:?}; {peak_kib} KiB at most"
        ));
        assert!(longest < WAIT, "a request waited {longest:?} for a list");
        assert!(count > 10, "{count} requests in {took:?}");
        assert!(peak_kib < MEMORY_KIB, "{peak_kib} KiB");
    });

    fs::remove_file(directory.join("n00001.phext")).unwrap();
    wait::until("place for another phext", || insert(&alice, "more").status == 200);
    insert(&alice, "again").problem(507, "quota_exceeded");
    running.stop();
}

#[test]
fn a_phext_costs_a_block_of_the_quota_and_a_plan_has_its_own_number_of_them() {
    let mut setup = Setup { limits: "quota = \"64KiB\"".to_owned(), ..Setup::default() };
    setup.plans = "[plan.few]\nphexts = 3\n".to_owned();
    setup.tenants[1].plan = Some("few");
    let running = Deployment::start(&setup);
    let [alice, bob] = ["alice", "bob"].map(|tenant| running.client_of(tenant));
    for number in 0..16 {
        insert(&alice, &format!("n{number}")).ok();
    }
    let problem = insert(&alice, "n16").problem(507, "quota_exceeded");
    assert_eq!((&problem["used"], &problem["quota"]), (&65536.into(), &65536.into()), "{problem}");
    // What fits into its block costs no more.
    alice.post(&target("update", "n0"), vec![b'x'; 4096]).ok();
    alice.post(&target("insert", "n0"), "x").problem(507, "quota_exceeded");
    alice.post(&target("delete", "n1"), "").ok();
    insert(&alice, "n16").ok();

    for number in 0..3 {
        insert(&bob, &format!("n{number}")).ok();
    }
    let problem = insert(&bob, "n3").problem(507, "quota_exceeded");
    assert_eq!((&problem["phexts"], &problem["used"]), (&3.into(), &12288.into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("3 phexts"), "{problem}");
    insert(&bob, "n2").ok();
    running.stop();
}

/// Names of the longest kind, so that a list takes more than a page of them.
#[test]
fn a_list_that_is_read_slowly_or_given_up_keeps_no_other_waiting() {
    const NAMES: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    put_phexts(folder.path(), (0..NAMES).map(|number| format!("{number:0>200}")));
    let worker = LoneWorker::start(folder.path());
    let ask = || {
        let mut connection = worker.client.connect();
        connection.send((worker.client.head("GET", "/api/v2/phexts") + "\r\n").as_bytes());
        connection
    };
    let mut slow: Vec<_> = (0..8).map(|_| ask()).collect();
    (0..8).for_each(|_| drop(ask()));
    for connection in &mut slow {
        assert!(connection.hears_within(wait::PATIENCE));
    }
    assert_eq!(listed(&worker.client).len(), NAMES);
    let peak_kib = process::kibibytes(worker.pid(), "status", "VmHWM").unwrap();
    notice::say(&format!("9 lists of {NAMES} long names at once: {peak_kib} KiB at most"));
    assert!(peak_kib < MEMORY_KIB, "{peak_kib} KiB");
    for mut connection in slow {
        assert_eq!(connection.answer().json().as_array().unwrap().len(), NAMES);
    }
    worker.stop();
}
