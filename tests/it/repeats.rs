//! Writes that are sent again: the keys by which a worker knows them, when the gateway sends them again, and what a client is
//! told when it gives up. A fake worker sees what is sent, and breaks off when the test wants it to.

use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::fake_worker::{FakeSystem, Head};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::{INSERT, SELECT};

/// What is kept of a body to send it again.
const KEPT_BYTES: usize = 64 * 1024;

const REPLAYED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nIdempotency-Replayed: true\r\n\r\nok";
const IN_DOUBT: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\nno";

const SENT: &str = "If-Match: \"a\", \"b\"\r\nIf-Match: \"c\"\r\nIdempotency-Key: mine\r\n\
                    X-SQ-Repeat-Key: forged\r\nX-Request-Id: 0191b2c3d4e57f608a9b0c1d2e3f4a5b\r\n";

#[test]
fn a_write_is_sent_again_with_the_same_names_on_a_new_connection() {
    let root = Root::new(&Setup::default());
    let (heads, answer) = FakeSystem::new(&root).exchange(SENT, Some(b"text"), &[None, None, Some(REPLAYED)]);
    assert_eq!(answer.ok(), "ok");
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    for head in &heads {
        assert_eq!(head.values("if-match"), ["\"a\", \"b\", \"c\""]);
        assert_eq!(head.values("idempotency-key"), ["mine"]);
        assert_eq!(head.values("x-sq-repeat-key"), heads[0].values("x-sq-repeat-key"));
    }
    let own = heads[0].values("x-sq-repeat-key");
    assert!(own.len() == 1 && own[0].len() == 32, "{own:?}");
    assert!(!["forged", "0191b2c3d4e57f608a9b0c1d2e3f4a5b"].contains(&own[0]), "it is the client's");
}

#[test]
fn a_repeat_by_the_gateway_alone_does_not_show() {
    let root = Root::new(&Setup::default());
    let (heads, answer) = FakeSystem::new(&root).exchange("", Some(b"text"), &[None, Some(REPLAYED)]);
    assert_eq!((answer.ok(), answer.header("idempotency-replayed")), ("ok", None));
    assert_eq!(heads[1].values("idempotency-key"), [""; 0]);
    assert_eq!(heads[1].values("x-sq-repeat-key").len(), 1);
}

#[test]
fn a_read_has_no_names_and_no_condition() {
    let root = Root::new(&Setup::default());
    let malformed = SENT.replace("mine", "not a key");
    let (heads, answer) = FakeSystem::new(&root).exchange(&malformed, None, &[None, Some(REPLAYED)]);
    assert_eq!((answer.ok(), answer.header("idempotency-replayed")), ("ok", None));
    for name in ["if-match", "idempotency-key", "x-sq-repeat-key"] {
        assert_eq!(heads[0].values(name), [""; 0], "{name}");
    }
}

#[test]
fn of_a_clients_fields_the_worker_sees_a_few_known_ones() {
    let root = Root::new(&Setup::default());
    let fields = "Cookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nUser-Agent: curl/8\r\n\
                  Accept: */*\r\nTE: trailers\r\nX-SQ-Code: forged\r\nProxy-Authorization: Basic YTpi\r\n\
                  Content-Type: text/plain\r\n";
    let names = |head: &Head| {
        let mut names: Vec<String> = head.fields().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names
    };
    let (heads, _) = FakeSystem::new(&root).exchange(fields, Some(b"text"), &[Some(REPLAYED)]);
    assert_eq!(
        names(&heads[0]),
        ["authorization", "content-length", "content-type", "host", "x-request-id", "x-sq-repeat-key"]
    );
    assert!(heads[0].request_line().ends_with(" HTTP/1.1"), "{}", heads[0].request_line());
    assert_eq!(heads[0].values("host"), [format!("{}:1341", root.address)]);
}

#[test]
fn a_write_that_no_worker_survives_is_given_up() {
    let root = Root::new(&Setup::default());
    let (_, answer) = FakeSystem::new(&root).exchange("", Some(b"text"), &[None; 5]);
    let problem = answer.problem(502, "worker_failed");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Idempotency-Key")), "{problem}");
}

#[test]
fn a_write_that_a_worker_got_may_have_been_applied_even_if_none_is_there_afterwards() {
    let root = Root::new(&Setup::default());
    let (_, answer) = FakeSystem::new(&root).exchange("", Some(b"text"), &[None]);
    answer.problem(502, "worker_failed");
}

#[test]
fn a_body_is_sent_again_up_to_what_is_kept_of_it() {
    let root = Root::new(&Setup::default());
    let longest = vec![b'x'; KEPT_BYTES];
    let (_, answer) = FakeSystem::new(&root).exchange("", Some(&longest), &[None, Some(REPLAYED)]);
    answer.ok();
    let root = Root::new(&Setup::default());
    let too_long = vec![b'x'; KEPT_BYTES + 1];
    let (_, answer) = FakeSystem::new(&root).exchange("", Some(&too_long), &[None]);
    let problem = answer.problem(502, "worker_failed");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("64 KiB")), "{problem}");
}

#[test]
fn a_worker_that_answers_is_not_asked_again() {
    let root = Root::new(&Setup::default());
    let (_, answer) = FakeSystem::new(&root).exchange("", Some(b"text"), &[Some(IN_DOUBT)]);
    assert_eq!((answer.status, answer.text(), answer.retry_after_s()), (503, "no", 5));
}

#[test]
fn a_malformed_key_is_refused_with_the_rule_where_it_means_something() {
    let running = Deployment::start(&Setup::default());
    let alice: Client = running.client_of("alice");
    let too_long = format!("Idempotency-Key: {}\r\n", "k".repeat(129));
    let two = "Idempotency-Key: a\r\nIdempotency-Key: b\r\n";
    for headers in [&too_long, two, "Idempotency-Key: a b\r\n", "Idempotency-Key:\r\n"] {
        let problem = alice.request("POST", INSERT, headers, Some(b"text")).problem(400, "invalid_parameter");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Idempotency-Key")));
        assert_eq!(alice.request("GET", SELECT, headers, None).ok(), "");
    }
    assert!(running.stored().is_empty());
    let longest = format!("Idempotency-Key: {}\r\n", "k".repeat(128));
    alice.request("POST", INSERT, &longest, Some(b"text")).ok();
}

#[test]
fn a_condition_may_stand_in_as_many_fields_as_a_head_may_have() {
    let root = Root::new(&Setup::default());
    // Beside Host, key, length and Connection.
    let headers = "If-Match: \"0\"\r\n".repeat(96);
    let (heads, answer) = FakeSystem::new(&root).exchange(&headers, Some(b"text"), &[Some(REPLAYED)]);
    answer.ok();
    assert_eq!(heads[0].values("if-match"), [vec!["\"0\""; 96].join(", ")]);
    // The worker takes as long a list.
    let running = Deployment::start(&Setup::default());
    let answer = running.client_of("alice").request("POST", INSERT, &headers, Some(b"text"));
    assert!([200, 412].contains(&answer.status), "{answer}");
}
