//! The header fields of a worker's response: alone it sends what every response carries; under the pool the gateway
//! adds that.

use sq_shared::limits::{ANSWER_HEAD_BYTES, HEADER_FIELDS, IDEMPOTENCY_KEY_BYTES};
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::setup::{Setup, key_of};

const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

/// The fields that the gateway adds.
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
    // As many as the limit allows: without the request line, but with `Connection`.
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

/// The gateway accepts 16 KiB of a worker's head; ours must be far below that for every response.
#[test]
fn a_workers_heads_are_far_below_what_the_gateway_takes() {
    const LARGEST: usize = 1024;
    const { assert!(LARGEST * 16 <= ANSWER_HEAD_BYTES) };
    let running = Deployment::start(&Setup::default());
    let worker = running.slot(1341, Some(&key_of("alice")));
    let update = SELECT.replace("select", "update");
    let named = format!("Idempotency-Key: {}\r\n", "k".repeat(IDEMPOTENCY_KEY_BYTES));
    for answer in [
        worker.get(SELECT),
        worker.request("POST", &update, &named, Some(b"text")),
        worker.request("POST", &update, &named, Some(b"text")),
        worker.request("POST", &update, &named, Some(b"another text")),
        worker.request("DELETE", SELECT, "", None),
        worker.get("/api/v2/none"),
        running.slot(1341, Some("pmb-v1-wrong")).get(SELECT),
    ] {
        let fields = answer.headers.iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len());
        let head_bytes = "HTTP/1.1 200 OK\r\n\r\n".len() + fields.sum::<usize>();
        assert!(head_bytes < LARGEST, "{head_bytes} bytes: {answer}");
    }
}

/// Names compare without case, but people read them and search for them with grep.
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
