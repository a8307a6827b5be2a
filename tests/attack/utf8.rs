//! Bodies, valid UTF-8 and not, in random pieces over many connections: each verdict is that of the
//! standard library, with its offset, and no worker panics.
//!
//! As many as fit into the test's time: the gateway closes a connection whose body it refused, so each refusal costs a new
//! one.

use std::io;
use std::thread;
use std::time::Instant;

use sq_tests::answer::Answer;
use sq_tests::client::{Client, Connection, chunk_of};
use sq_tests::deployment::Deployment;
use sq_tests::random::Random;
use sq_tests::setup::Setup;
use sq_tests::test_time::test_time;
use sq_tests::utf8_body;

/// `where` stores nothing, takes every text, and reads `s` where the body is empty.
const TARGET: &str = "/api/v2/where?s=x";

/// More than the cores, so that bodies overtake each other in the gateway.
const CONNECTIONS: u64 = 6;

/// The verdicts on the bodies that one client sent.
#[derive(Default)]
struct Tally {
    valid: usize,
    invalid: usize,
    connections: usize,
}

#[test]
fn bodies_are_judged_as_the_standard_library_does() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    assert_eq!(client.post(TARGET, "x").status, 200);
    let worker = running.worker_of("alice");
    let started = Instant::now();
    let tallies = attack_from_all_sides(&client);
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum::<usize>();
    let (valid, invalid) = (sum(|tally| tally.valid), sum(|tally| tally.invalid));
    println!(
        "{} bodies in {:?} ({valid} valid, {invalid} not, {} connections)",
        valid + invalid,
        started.elapsed(),
        sum(|tally| tally.connections)
    );
    assert!(valid.min(invalid) > 500, "too few bodies were judged: {valid} valid, {invalid} not");
    assert!(worker.is_some() && running.worker_of("alice") == worker, "the worker did not live through it");
    assert!(!running.log().contains("panicked"), "{}", running.log());
    assert!(running.stored().is_empty(), "something was stored: {:?}", running.stored());
}

fn attack_from_all_sides(client: &Client) -> Vec<Tally> {
    let end = Instant::now() + test_time();
    thread::scope(|scope| {
        let attackers = (0..CONNECTIONS).map(|seed| scope.spawn(move || attack(client, seed, end)));
        attackers.collect::<Vec<_>>().into_iter().map(|attacker| attacker.join().unwrap()).collect()
    })
}

fn attack(client: &Client, seed: u64, end: Instant) -> Tally {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut open = None;
    while Instant::now() < end {
        let body = utf8_body::generate(&mut random);
        let request = request(client, &body, &mut random);
        let answer = loop {
            let is_fresh = open.is_none();
            let connection = open.get_or_insert_with(|| {
                tally.connections += 1;
                client.connect()
            });
            match ask(connection, &request, &mut random) {
                Ok(answer) => break answer,
                // A connection that was kept may have been closed meanwhile.
                Err(_) if !is_fresh => open = None,
                Err(error) => panic!("{body:x?}: no answer: {error}"),
            }
        };
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            open = None;
        }
        assert_judged(&answer, &body);
        *if answer.status == 200 { &mut tally.valid } else { &mut tally.invalid } += 1;
    }
    tally
}

fn assert_judged(answer: &Answer, body: &[u8]) {
    match std::str::from_utf8(body) {
        Ok(_) => assert!(answer.ok().starts_with("Calculated coordinate"), "{body:x?}: {answer}"),
        Err(error) => {
            let problem = answer.problem(400, "invalid_utf8");
            assert_eq!(problem["part"], "body", "{body:x?}: {answer}");
            assert_eq!(problem["offset"], error.valid_up_to(), "{body:x?}: {answer}");
        }
    }
}

/// Writes the request in a few pieces that end anywhere.
fn ask(connection: &mut Connection, request: &[u8], random: &mut Random) -> io::Result<Answer> {
    let mut rest = request;
    for _ in 0..random.below(4) {
        let (piece, behind) = rest.split_at(random.below(rest.len() + 1));
        connection.send(piece);
        rest = behind;
    }
    connection.send(rest);
    connection.try_answer("POST")
}

/// The whole request, with a length or in chunks that end anywhere.
fn request(client: &Client, body: &[u8], random: &mut Random) -> Vec<u8> {
    let head = client.head("POST", TARGET);
    if random.below(2) == 0 {
        return [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    }
    let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let longest = *random.pick(&[1, 2, 3, 7, 64, 4096]);
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at((1 + random.below(longest)).min(rest.len()));
        request.extend(chunk_of(chunk));
        rest = behind;
    }
    request.extend(b"0\r\n\r\n");
    request
}
