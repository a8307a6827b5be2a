//! Workers that die or hang: the slot's socket stays open, connections wait, and the client gets a true response.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::{Deployment, Worker};
use sq_tests::process;
use sq_tests::setup::Setup;
use sq_tests::target::{INSERT, SELECT, UPDATE};
use sq_tests::wait;

/// How often the worker is killed.
const KILLS: usize = 5;

/// So often that it would take minutes if the pool delayed the restart of a worker that had served.
const MANY_KILLS: usize = 20;

fn worker_of_alice(running: &Deployment) -> Worker {
    wait::until_some("alice's worker", || running.worker_of("alice"))
}

/// A client that reads in a loop, each time on a new connection, until it is stopped.
#[derive(Default)]
struct Reader {
    served: AtomicUsize,
    is_done: AtomicBool,
}

impl Reader {
    /// The errors of the reads that failed. A refused connection ends the test.
    fn run(&self, client: &Client) -> Vec<String> {
        let mut failed = Vec::new();
        while !self.is_done.load(Ordering::Relaxed) {
            let mut connection = client.try_connect().expect("a connection was refused");
            connection.send((client.head("GET", SELECT) + "Connection: close\r\n\r\n").as_bytes());
            match connection.try_answer("GET") {
                Ok(answer) if answer.status == 200 => {
                    assert_eq!(answer.text(), "kept");
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
                other => failed.push(format!("{other:?}")),
            }
        }
        failed
    }

    /// Waits for this many more served requests.
    fn wait_for(&self, reads: usize) {
        let wanted = self.served.load(Ordering::Relaxed) + reads;
        wait::until("reads that are served", || self.served.load(Ordering::Relaxed) >= wanted);
    }
}

#[test]
fn a_killed_worker_refuses_no_connection() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    let reader = Arc::new(Reader::default());
    let reading = thread::spawn({
        let (reader, client) = (Arc::clone(&reader), client.clone());
        move || reader.run(&client)
    });
    for _ in 0..KILLS {
        reader.wait_for(20);
        process::signal(worker_of_alice(&running).pid, Signal::KILL);
    }
    reader.wait_for(20);
    reader.is_done.store(true, Ordering::Relaxed);
    let failed = reading.join().unwrap();
    // Reads are sent again to the next worker, so not even the read in flight fails.
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(client.get(SELECT).ok(), "kept");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "");
}

#[test]
fn connections_to_a_slot_wait_for_its_worker() {
    let running = Deployment::start(&Setup::default());
    let key = sq_tests::setup::key_of("alice");
    let slot = running.slot(1341, Some(&key));
    for _ in 0..3 {
        assert_eq!(slot.get(SELECT).ok(), "");
        process::signal(worker_of_alice(&running).pid, Signal::KILL);
        let readers: Vec<_> = (0..8).map(|_| slot.connect()).collect();
        for mut reader in readers {
            reader.send((slot.head("GET", SELECT) + "Connection: close\r\n\r\n").as_bytes());
            // A request that the dying worker had accepted may fail; none is refused.
            let _ = reader.try_answer("GET");
        }
    }
    assert_eq!(slot.get(SELECT).ok(), "");
}

/// Suspends the worker, sends a write to it completely, and kills the worker. Returns the client's response.
fn kill_under_a_write(running: &Deployment, body: &[u8]) -> Answer {
    let client = running.client_of("alice");
    let worker = worker_of_alice(running);
    process::signal(worker.pid, Signal::STOP);
    let mut connection = client.connect();
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    connection.send((client.head("POST", INSERT) + &length).as_bytes());
    connection.send(body);
    let at = |port| {
        let IpAddr::V4(ip) = running.listen.ip() else { panic!("an address of IPv4") };
        SocketAddrV4::new(ip, port)
    };
    wait::until("the request at the worker", || {
        process::unread_bytes(at(worker.port)) > 0 && process::unread_bytes(at(running.listen.port())) == 0
    });
    process::signal(worker.pid, Signal::KILL);
    connection.answer()
}

#[test]
fn a_write_whose_worker_died_is_applied_once() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    assert_eq!(kill_under_a_write(&running, b"again").ok(), "Inserted 5 bytes");
    assert_eq!(client.get(SELECT).ok(), "keptagain");
    assert_eq!(client.post(INSERT, "+").ok(), "Inserted 1 bytes");
    assert_eq!(client.get(SELECT).ok(), "keptagain+");
}

#[test]
fn a_long_write_whose_worker_died_is_not_repeated() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    let problem = kill_under_a_write(&running, &[b'x'; 100_000]).problem(502, "worker_failed");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Idempotency-Key")), "{problem}");
    assert_eq!(client.get(SELECT).ok(), "kept", "it was applied, and then called a failure, or twice");
}

/// A client that replaces a scroll in a loop; its last write must be there.
#[derive(Default)]
struct Writer {
    written: AtomicUsize,
    is_done: AtomicBool,
}

impl Writer {
    fn run(&self, client: &Client, scroll: usize) -> Vec<String> {
        let mut failed = Vec::new();
        let at = format!("p=text&c=1.1.1/1.1.1/1.2.{scroll}");
        while !self.is_done.load(Ordering::Relaxed) {
            let text = self.written.load(Ordering::Relaxed).to_string();
            let answer = client.post(&format!("/api/v2/update?{at}"), &text);
            let read = client.get(&format!("/api/v2/select?{at}"));
            match (answer.status, read.status) {
                (200, 200) => assert_eq!(read.text(), text),
                _ => failed.push(format!("{answer}\n{read}")),
            }
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        failed
    }
}

#[test]
fn writers_do_not_notice_that_their_worker_is_killed() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let writers: Vec<Writer> = (0..8).map(|_| Writer::default()).collect();
    let failed = thread::scope(|scope| {
        let (client, numbered) = (&client, writers.iter().zip(1..));
        let writing: Vec<_> =
            numbered.map(|(writer, scroll)| scope.spawn(move || writer.run(client, scroll))).collect();
        for _ in 0..MANY_KILLS {
            // A request that meets several kills is given up eventually; here none is.
            let before: Vec<usize> =
                writers.iter().map(|writer| writer.written.load(Ordering::Relaxed)).collect();
            wait::until("a write of each writer", || {
                let is_further = |(writer, before): (&Writer, &usize)| {
                    writer.written.load(Ordering::Relaxed) > *before + 1
                };
                writers.iter().zip(&before).all(is_further)
            });
            process::signal(worker_of_alice(&running).pid, Signal::KILL);
        }
        writers.iter().for_each(|writer| writer.is_done.store(true, Ordering::Relaxed));
        writing.into_iter().flat_map(|writing| writing.join().unwrap()).collect::<Vec<String>>()
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_worker_that_does_not_answer_is_given_up() {
    let running = Deployment::start(&Setup { timeouts: "answer = \"300ms\"".to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    let worker = worker_of_alice(&running);
    process::signal(worker.pid, Signal::STOP);
    client.get(SELECT).problem(504, "worker_timeout");
    running.client_of("bob").get(SELECT).ok();
    process::signal(worker.pid, Signal::CONT);
    wait::until("the worker's next answer", || client.get(SELECT).status == 200);
    assert_eq!(client.get(SELECT).ok(), "kept");
}

#[test]
fn a_killed_worker_loses_no_acknowledged_write() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for number in 0..MANY_KILLS {
        client.post(INSERT, format!("{number};")).ok();
        process::signal(worker_of_alice(&running).pid, Signal::KILL);
        let expected: String = (0..=number).map(|number| format!("{number};")).collect();
        assert_eq!(
            wait::until_some("an answer", || Some(client.get(SELECT)).filter(|a| a.status == 200)).text(),
            expected
        );
    }
}
