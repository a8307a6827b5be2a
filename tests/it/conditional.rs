//! Conditional requests: writes return the scroll's new ETag, `If-None-Match: *` on a write, and reads of what the
//! client has already.

use std::thread;

use sq_tests::answer::Answer;
use sq_tests::client::{Client, percent_encoded};
use sq_tests::deployment::Deployment;
use sq_tests::everywhere::everywhere;
use sq_tests::setup::Setup;
use sq_tests::wait;

const AT: &str = "p=text&c=1.1.1/1.1.1/1.1.1";
const GET: &str = "/api/v2/get?p=text";

fn target(command: &str) -> String {
    format!("/api/v2/{command}?{AT}")
}

fn tag(answer: &Answer) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer}")).to_owned()
}

/// A request with another header line.
fn with(client: &Client, method: &str, target: &str, line: &str, body: Option<&[u8]>) -> Answer {
    client.request(method, target, &format!("{line}\r\n"), body)
}

#[test]
fn write_returns_the_new_etag() {
    everywhere(|client| {
        let select = || tag(&client.get(&target("select")));
        let empty = select();
        for (answer, text) in [
            (client.post(&target("insert"), "one"), "one"),
            (client.post(&target("insert"), " and two"), "one and two"),
            (client.get(&(target("insert") + "&s=!")), "one and two!"),
            (client.post(&target("update"), "new"), "new"),
            (client.post(&target("update"), "new"), "new"),
            (client.get(&(target("update") + "&s=")), ""),
            (client.post(&target("update"), "more"), "more"),
            (client.post(&target("delete"), ""), ""),
            (client.get(&target("delete")), ""),
        ] {
            answer.ok();
            let beside =
                client.get(&format!("/api/v2/update?p=text&c=2.1.1/1.1.1/1.1.1&s={}", percent_encoded(text)));
            assert_eq!(tag(&answer), tag(&beside), "{text:?}");
            assert_eq!(tag(&answer) == empty, text.is_empty());
        }
        assert_eq!(select(), empty);
        // A chain of changes needs no reads.
        let mut last = tag(&client.post(&target("update"), "0"));
        for _ in 0..5 {
            let answer = with(client, "POST", &target("insert"), &format!("If-Match: {last}"), Some(b"x"));
            answer.ok();
            last = tag(&answer);
        }
        assert_eq!((client.get(&target("select")).ok(), select()), ("0xxxxx", last));
    });
}

#[test]
fn replay_has_no_etag() {
    everywhere(|client| {
        let named = || with(client, "POST", &target("insert"), "Idempotency-Key: one", Some(b"text"));
        let first = named();
        assert_eq!(tag(&first), tag(&client.get(&target("select"))));
        client.post(&target("insert"), "more").ok();
        let again = named();
        assert_eq!((again.ok(), again.header("etag")), (first.ok(), None));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    });
}

#[test]
fn a_412_has_the_current_etag() {
    everywhere(|client| {
        let stale = tag(&client.post(&target("update"), "old"));
        let current = tag(&client.post(&target("update"), "new"));
        for (line, command) in [
            (format!("If-Match: {stale}"), "insert"),
            (format!("If-Match: W/{current}"), "update"),
            ("If-Match: \"other\"".to_owned(), "delete"),
            ("If-None-Match: *".to_owned(), "update"),
            (format!("If-Match: {current}\r\nIf-None-Match: *"), "insert"),
            ("If-Match: *\r\nIf-None-Match: *".to_owned(), "insert"),
        ] {
            let answer = with(client, "POST", &target(command), &line, Some(b"text"));
            answer.refused(412, "precondition_failed");
            assert_eq!(tag(&answer), current, "{line}");
        }
        let nowhere = "/api/v2/update?p=none&c=1.1.1/1.1.1/1.1.1";
        let answer = with(client, "POST", nowhere, "If-Match: *", Some(b"text"));
        answer.refused(412, "precondition_failed");
        assert_eq!(tag(&answer), tag(&client.get(&nowhere.replace("update", "select"))));
        assert_eq!(client.get(&target("select")).ok(), "new");
    });
}

#[test]
fn a_write_that_must_find_nothing() {
    everywhere(|client| {
        let update = |line: &str| with(client, "POST", &target("update"), line, Some(b"text"));
        let empty = tag(&client.get(&target("select")));
        update("If-None-Match: *").ok();
        update("If-None-Match: *").refused(412, "precondition_failed");
        client.post(&target("delete"), "").ok();
        // An emptied scroll does not exist again; both conditions may hold.
        update(&format!("If-None-Match:  * \r\nIf-Match: \"a\", {empty}")).ok();
        client.post(&target("delete"), "").ok();
        // Other values are not ignored: the write is refused.
        for value in [&empty, "\"a\"", "W/\"a\"", "*, \"a\"", "*, *", "*,", "**", "\"*\"", "", "a"] {
            update(&format!("If-None-Match: {value}")).refused(400, "invalid_parameter");
        }
        for second in [&empty, "*", ""] {
            let twice = format!("If-None-Match: *\r\nIf-None-Match: {second}");
            update(&twice).refused(400, "invalid_parameter");
        }
        // Nor may `*` be one of several.
        for value in ["*, *", "*\r\nIf-Match: *", &format!("{empty}\r\nIf-Match: *")] {
            update(&format!("If-Match: {value}")).refused(400, "invalid_parameter");
        }
        assert_eq!(client.get(&target("select")).ok(), "");
    });
}

#[test]
fn one_of_many_if_none_match_writes_succeeds() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for round in 0..5 {
        let target = format!("/api/v2/insert?p=text&c=1.1.1/1.1.1/1.1.{}", round + 1);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let write = || with(&client, "POST", &target, "If-None-Match: *", Some(b"mine")).status;
            let writing: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
            writing.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 412].contains(status)), "{statuses:?}");
        assert_eq!(client.get(&target.replace("insert", "select")).ok(), "mine");
    }
}

/// It has no body, and names the client's state.
fn assert_not_modified(answer: &Answer, tag: &str, what: &str) {
    assert_eq!((answer.status, answer.header("etag")), (304, Some(tag)), "{what}: {answer}");
    for name in ["content-length", "transfer-encoding", "content-type"] {
        assert_eq!(answer.header(name), None, "{what}: {answer}");
    }
}

#[test]
fn read_of_a_known_etag_is_304() {
    everywhere(|client| {
        // Several pages, and far more than one chunk of a response.
        let long = "long ".repeat(40_000);
        for text in ["short", &long] {
            client.post(&target("update"), text).ok();
            client.post("/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.2", "beside").ok();
            for target in [target("select"), GET.to_owned()] {
                let answer = client.get(&target);
                let known = tag(&answer);
                for line in [
                    known.clone(),
                    format!("W/{known}"),
                    format!("\"other\", {known}"),
                    format!("\"other\"\r\nIf-None-Match: {known}"),
                    "*".to_owned(),
                ] {
                    for method in ["GET", "HEAD"] {
                        let mut connection = client.connect();
                        let head = client.head(method, &target);
                        connection.send(format!("{head}If-None-Match: {line}\r\n\r\n").as_bytes());
                        assert_not_modified(&connection.answer_to(method), &known, &line);
                        // The next response begins where this one ended.
                        connection.send((client.head("GET", &target) + "\r\n").as_bytes());
                        let next = connection.answer();
                        assert_eq!((next.ok(), tag(&next)), (answer.ok(), known.clone()));
                    }
                }
                for line in ["\"other\"", "", "other", "\"0\", W/\"1\"", &known.replace('"', "")] {
                    let line = format!("If-None-Match: {line}");
                    assert_eq!(with(client, "GET", &target, &line, None).ok(), answer.ok(), "{line}");
                }
                let line = format!("If-None-Match: {known}");
                client.post("/api/v2/insert?p=text&c=1.1.1/1.1.1/1.1.1", "!").ok();
                assert!(with(client, "GET", &target, &line, None).ok().contains('!'));
                client.post("/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1", text).ok();
                assert_not_modified(&with(client, "GET", &target, &line, None), &known, "as it was");
            }
        }
        // The checksum of the whole phext is its ETag.
        let checksum = client.get("/api/v2/checksum?p=text");
        assert_eq!(tag(&client.get(GET)), format!("\"{}\"", checksum.ok()));
        // Of an empty phext, `*` is not a match, but the ETag is.
        for target in ["/api/v2/select?p=none&c=1.1.1/1.1.1/1.1.1", "/api/v2/get?p=none"] {
            let nothing = client.get(target);
            assert_eq!((nothing.ok(), with(client, "GET", target, "If-None-Match: *", None).ok()), ("", ""));
            let line = format!("If-None-Match: {}", tag(&nothing));
            assert_not_modified(&with(client, "GET", target, &line, None), &tag(&nothing), target);
        }
        // It has no meaning where there is no ETag.
        for command in ["toc?p=text", "checksum?p=text", "version", "phexts", "json-export?p=text"] {
            with(client, "GET", &format!("/api/v2/{command}"), "If-None-Match: *", None).ok();
        }
    });
}

#[test]
fn etag_survives_a_worker_restart() {
    let running =
        Deployment::start(&Setup { pool: "idle_timeout = \"1s\"\n".to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    let tags = [
        (target("select"), tag(&client.post(&target("update"), "text"))),
        (GET.to_owned(), tag(&client.get(GET))),
    ];
    wait::until("the end of the worker", || running.worker_of("alice").is_none());
    for (target, known) in tags {
        let line = format!("If-None-Match: {known}");
        assert_not_modified(&with(&client, "GET", &target, &line, None), &known, &target);
    }
}
