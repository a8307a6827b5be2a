//! Which fields a worker's answer has: alone it answers clients, and says what every answer says; under the pool the
//! gateway says it.

use sq_shared::limits::HEADER_FIELDS;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::setup::{Setup, key_of};

const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

/// What the gateway says itself.
const COMMON: [&str; 4] = ["date", "x-request-id", "cache-control", "x-content-type-options"];

#[test]
fn a_worker_alone_says_what_every_answer_says() {
    let folder = tempfile::tempdir().unwrap();
    let worker = LoneWorker::start(folder.path());
    let answer = worker.client.get(SELECT);
    for name in COMMON {
        assert!(answer.header(name).is_some(), "{name}: {answer}");
    }
}

#[test]
fn a_worker_takes_as_many_fields_as_the_gateway_does() {
    let folder = tempfile::tempdir().unwrap();
    let worker = LoneWorker::start(folder.path());
    // As many as there are lines: without the request line, but with Connection.
    let own = worker.client.head("GET", SELECT).lines().count();
    let with_fields =
        |count| worker.client.request("GET", SELECT, &"X: y\r\n".repeat(count - own), None).status;
    assert_eq!((with_fields(HEADER_FIELDS), with_fields(HEADER_FIELDS + 1)), (200, 431));
}

#[test]
fn a_worker_of_the_pool_leaves_it_to_the_gateway_which_says_it_once() {
    let running = Deployment::start(&Setup::default());
    let of_worker = running.slot(1341, Some(&key_of("alice"))).get(SELECT);
    let of_gateway = running.client_of("alice").get(SELECT);
    for name in COMMON {
        assert_eq!(of_worker.header(name), None, "{name}: {of_worker}");
        let count = of_gateway.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
        assert_eq!(count, 1, "{name}: {of_gateway}");
    }
    assert_eq!(of_worker.header("etag"), of_gateway.header("etag"));
}

/// Names compare without case, but people read them, and look for them with grep.
#[test]
fn the_names_of_an_answer_have_their_capitals() {
    let running = Deployment::start(&Setup::default());
    let answer = running.client_of("alice").get(SELECT);
    for (name, _) in &answer.headers {
        let begins_small = |word: &str| word.starts_with(|first: char| first.is_ascii_lowercase());
        assert!(!name.split('-').any(begins_small), "{name}: {answer}");
    }
    assert!(answer.headers.iter().any(|(name, _)| name == "ETag"), "{answer}");
}
