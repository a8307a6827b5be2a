//! Isolation under load: fifty tenants on shared connections, while clients cut requests off, workers are killed and big
//! scrolls pass slowly. Every scroll contains its tenant's name, which shows an answer, a file or an audit line of another.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sq_tests::answer::Answer;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::notice::say;
use sq_tests::process;
use sq_tests::random::Random;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::test_time::{is_long, test_time};
use sq_tests::wait;

const TENANTS: usize = 50;

/// The load: twenty requests per second for each tenant.
const REQUESTS_A_SECOND: u32 = 20 * 50;

/// A machine that sustains less than this proves nothing; in a short test, it has many others to run beside it.
const LEAST_REQUESTS_A_SECOND: u32 = 500;
const LEAST_IN_SHORT: u32 = 100;

/// Connections that stay open. Each carries whatever request is next, of any tenant.
const CONNECTIONS: usize = 40;

/// Scrolls of each tenant that the load reads and writes.
const SCROLLS: usize = 20;

/// A scroll that takes its time: so long, and in pieces with a pause between them.
const BIG_BYTES: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(10);

/// One request in so many is cut off by its client.
const CUT_ONE_IN: usize = 50;

/// How often a worker is killed.
const KILL_INTERVAL: Duration = Duration::from_millis(500);

/// The results of the load.
#[derive(Default)]
struct Tally {
    statuses: Mutex<BTreeMap<u16, usize>>,
    /// The tenant of each request id.
    authors: Mutex<HashMap<String, String>>,
    cut: AtomicUsize,
    kills: AtomicUsize,
    slow: AtomicUsize,
    unanswered: AtomicUsize,
    leaks: Mutex<Vec<String>>,
}

fn name_of(tenant: usize) -> String {
    format!("user{tenant:03}")
}

/// What stands in each of a tenant's scrolls.
fn mark_of(name: &str) -> String {
    format!("[{name}]")
}

/// The names in a text that are not this tenant's.
fn strangers(text: &str, name: &str) -> Vec<String> {
    let marks = text.match_indices("user").filter_map(|(start, _)| text.get(start..start + "user000".len()));
    let is_name = |mark: &&str| mark.bytes().skip("user".len()).all(|byte| byte.is_ascii_digit());
    marks.filter(is_name).filter(|mark| *mark != name).map(str::to_owned).collect()
}

#[test]
fn the_check_sees_a_stranger_wherever_it_stands() {
    assert!(strangers("[user001] and [user001], a user", "user001").is_empty());
    assert_eq!(strangers("[user001][user002]x", "user001"), ["user002"]);
    assert_eq!(strangers("{\"phext\":\"of-user050\"}", "user001"), ["user050"]);
}

/// The phexts that each tenant has, one of them without a name.
const PHEXTS: [&str; 2] = ["p=shared&", ""];

/// A request of the load: its method, its target and its body.
fn request_of(name: &str, random: &mut Random) -> (&'static str, String, String) {
    let at = format!("c=1.1.1/1.1.1/1.1.{}", random.below(SCROLLS) + 1);
    let read = |target: String| ("GET", target, String::new());
    let p = *random.pick(&PHEXTS);
    match random.below(20) {
        0..8 => read(format!("/api/v2/select?{p}{at}")),
        8..10 => read("/api/v2/get?p=shared".to_owned()),
        10..12 => read("/api/v2/toc?p=shared".to_owned()),
        12..14 => read("/api/v2/json-export?p=shared".to_owned()),
        14 => read("/api/v2/query?p=shared&from=1.1.1/1.1.1/1.1.1&to=1.1.1/1.1.1/1.1.9".to_owned()),
        15 => read("/api/v2/phexts".to_owned()),
        16..19 => {
            let text = format!("{} number {}", mark_of(name), random.next_u64());
            ("POST", format!("/api/v2/update?{p}{at}"), text)
        }
        _ => ("POST", format!("/api/v2/insert?p=of-{name}&{at}"), mark_of(name)),
    }
}

/// What is the same for all connections of the load.
struct Load<'a> {
    clients: &'a [Client],
    tally: &'a Tally,
    next: AtomicUsize,
    start: Instant,
    time: Duration,
}

impl Load<'_> {
    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.time
    }

    /// Sends what is next, when its time has come, until the load's time is over.
    fn run_connection(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut connection = None;
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1)
                * u32::try_from(number).expect("fewer requests than a u32 counts")
                / REQUESTS_A_SECOND;
            wait::pass(due.min(self.time).saturating_sub(self.start.elapsed()));
            connection = self.run_one(number % TENANTS, connection, &mut random);
        }
    }

    /// Sends a request and checks its answer; gives the connection back when it stays open.
    fn run_one(
        &self,
        tenant: usize,
        connection: Option<Connection>,
        random: &mut Random,
    ) -> Option<Connection> {
        let (client, name) = (&self.clients[tenant], name_of(tenant + 1));
        let (method, target, body) = request_of(&name, random);
        let id = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        self.tally.authors.lock().unwrap().insert(id.clone(), name.clone());
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = client.head(method, &target) + &format!("X-Request-Id: {id}\r\n{length}\r\n{body}");
        let mut connection = connection.unwrap_or_else(|| client.connect());
        if random.below(CUT_ONE_IN) == 0 {
            // In the middle of the head, of the body, or of the answer.
            let sent = request.len() - random.below(request.len());
            connection.send(&request.as_bytes()[..sent]);
            self.tally.cut.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        connection.send(request.as_bytes());
        match connection.try_answer(method) {
            Ok(answer) => {
                self.tally.check(&name, &id, &target, &answer);
                answer.header("connection").is_none_or(|value| value != "close").then_some(connection)
            }
            Err(_) => {
                self.tally.unanswered.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Tally {
    fn check(&self, name: &str, id: &str, target: &str, answer: &Answer) {
        *self.statuses.lock().unwrap().entry(answer.status).or_default() += 1;
        let head: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let text = format!("{head}{}", answer.text());
        let is_read = answer.status == 200 && !target.contains("insert") && !target.contains("update");
        let has_own_name = !is_read || answer.text().contains(name);
        let has_own_id = answer.header("x-request-id") == Some(id);
        if !strangers(&text, name).is_empty() || !has_own_name || !has_own_id {
            let leak = format!("{name} asked for {target} as {id}: {answer}");
            self.leaks.lock().unwrap().push(leak);
        }
    }
}

/// Reads a big scroll as slowly as a bad line would, again and again; every byte of it must be the tenant's.
fn read_slowly(load: &Load<'_>, tenant: usize) {
    let (client, name) = (&load.clients[tenant], &name_of(tenant + 1));
    let target = "/api/v2/select?p=big&c=1.1.1/1.1.1/1.1.1";
    while !load.is_over() {
        let mut connection = client.connect();
        connection.send((client.head("GET", target) + "Connection: close\r\n\r\n").as_bytes());
        for _ in 0..50 {
            wait::pass(PAUSE);
            connection.hears_within(wait::PATIENCE);
        }
        // Its worker may be killed under it: then the answer is short, and never another's.
        if let Ok(answer) = connection.try_answer("GET") {
            assert_eq!(
                answer.text().replace(&mark_of(name), ""),
                "",
                "a stranger in a slow answer of {name}"
            );
            load.tally.slow.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes a big scroll slowly, again and again, and reads it back.
fn write_slowly(load: &Load<'_>, tenant: usize) -> io::Result<()> {
    let (client, name) = (&load.clients[tenant], &name_of(tenant + 1));
    let target = "/api/v2/update?p=big&c=1.1.1/1.1.1/1.1.2";
    let text = big_text(name);
    while !load.is_over() {
        let head = client.head("POST", target) + &format!("Content-Length: {}\r\n", text.len());
        let mut connection = client.connect();
        connection.send((head + "Connection: close\r\n\r\n").as_bytes());
        for piece in text.as_bytes().chunks(64 << 10) {
            connection.send(piece);
            wait::pass(PAUSE);
        }
        // With a killed worker this is a 502: such a body is not sent twice.
        let written = connection.try_answer("POST").is_ok_and(|answer| answer.status == 200);
        let read = client.try_get("/api/v2/select?p=big&c=1.1.1/1.1.1/1.1.2")?;
        assert!(!written || read.ok() == text, "what {name} wrote slowly is not what it reads");
        assert!(strangers(read.text(), name).is_empty(), "a stranger in the big scroll of {name}");
        load.tally.slow.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn big_text(name: &str) -> String {
    mark_of(name).repeat(BIG_BYTES / mark_of(name).len())
}

/// Kills a random worker, again and again.
fn kill_workers(running: &Deployment, load: &Load<'_>) {
    let mut random = Random::new(7);
    while load.start.elapsed() + KILL_INTERVAL < load.time {
        wait::pass(KILL_INTERVAL);
        let workers = running.workers();
        if !workers.is_empty() {
            process::signal(random.pick(&workers).pid, Signal::KILL);
            load.tally.kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Every scroll of every tenant, with its name in it, before the load begins.
fn fill(clients: &[Client]) {
    thread::scope(|scope| {
        for (tenant, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                let name = name_of(tenant + 1);
                for scroll in 1..=SCROLLS {
                    for p in PHEXTS {
                        let target = format!("/api/v2/update?{p}c=1.1.1/1.1.1/1.1.{scroll}");
                        client.post(&target, mark_of(&name)).ok();
                    }
                }
                client.post(&format!("/api/v2/update?p=of-{name}&c=1.1.1/1.1.1/1.1.1"), mark_of(&name)).ok();
                if tenant < 2 {
                    client.post("/api/v2/update?p=big&c=1.1.1/1.1.1/1.1.1", big_text(&name)).ok();
                }
            });
        }
    });
}

#[test]
fn under_load_every_answer_file_and_audit_line_is_its_tenants_own() {
    let tenants =
        (1..=TENANTS).zip(1341..).map(|(number, port)| Tenant::new(&name_of(number), port)).collect();
    let gateway = "threads = 2\n".to_owned();
    let running = Deployment::start(&Setup { tenants, gateway, ..Setup::default() });
    let clients: Vec<Client> = (1..=TENANTS).map(|number| running.client_of(&name_of(number))).collect();
    fill(&clients);
    let tally = Tally::default();
    let (next, start, time) = (AtomicUsize::new(0), Instant::now(), test_time());
    let load = &Load { clients: &clients, tally: &tally, next, start, time };
    thread::scope(|scope| {
        scope.spawn(|| read_slowly(load, 0));
        scope.spawn(|| write_slowly(load, 1).unwrap());
        scope.spawn(|| kill_workers(&running, load));
        (0..CONNECTIONS as u64).for_each(|seed| _ = scope.spawn(move || load.run_connection(seed)));
    });
    let seconds = start.elapsed().as_secs_f64();
    tally.judge(seconds);
    let root = running.stop();
    assert_files_are_their_tenants_own(&root);
    assert_audit_lines_are_their_authors_own(&root, &tally.authors.lock().unwrap());
}

impl Tally {
    fn judge(&self, seconds: f64) {
        let (statuses, leaks) = (self.statuses.lock().unwrap(), self.leaks.lock().unwrap());
        let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (cut, unanswered) = (of(&self.cut), of(&self.unanswered));
        let answered: usize = statuses.values().sum();
        let pace = (answered + cut + unanswered) as f64 / seconds;
        say(&format!(
            "isolation: {TENANTS} tenants on {CONNECTIONS} shared connections, {answered} answers in {seconds:.0} s, \
             {pace:.0} requests/s of {REQUESTS_A_SECOND}; by status {statuses:?}; {cut} cut off by the client, \
             {unanswered} without an answer, {} workers killed, {} slow big scrolls; {} leaks",
            of(&self.kills),
            of(&self.slow),
            leaks.len(),
        ));
        if let Some(first) = leaks.first() {
            panic!("{} leaks, the first: {first}", leaks.len());
        }
        let served = statuses.get(&200).copied().unwrap_or_default();
        assert!(served * 1000 >= (answered + unanswered) * 999, "too many were not served: {statuses:?}");
        assert!(
            pace >= f64::from(if is_long() { LEAST_REQUESTS_A_SECOND } else { LEAST_IN_SHORT }),
            "only {pace:.0} requests a second: too slow to tell"
        );
    }
}

fn assert_files_are_their_tenants_own(root: &Root) {
    let stored = root.stored();
    for number in 1..=TENANTS {
        let name = name_of(number);
        let own = || stored.iter().filter(|(path, _)| path.starts_with(format!("data/{name}")));
        assert!(
            own().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&mark_of(&name))),
            "{name} has nothing"
        );
        for (path, bytes) in own() {
            let found = strangers(&String::from_utf8_lossy(bytes), &name);
            assert!(found.is_empty(), "{} holds scrolls of {found:?}", path.display());
        }
    }
}

fn assert_audit_lines_are_their_authors_own(root: &Root, authors: &HashMap<String, String>) {
    let mut counted = 0;
    for line in root.read("audit.log").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(author) = line["request_id"].as_str().and_then(|id| authors.get(id)) {
            assert_eq!(line["tenant"], author.as_str(), "{line}");
            assert!(strangers(&line.to_string(), author).is_empty(), "{line}");
            counted += 1;
        }
    }
    assert!(counted > 0, "no line of the load");
    say(&format!("isolation: {counted} audit lines, each its author's own"));
}
