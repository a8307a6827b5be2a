//! Limits: each accepts the limit and refuses one more, and `Retry-After` is true.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sq_shared::limits::LINGER_TIME;
use sq_tests::answer::Answer;
use sq_tests::client::{Client, chunk_of};
use sq_tests::deployment::Deployment;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

fn with_limits(lines: &str) -> Deployment {
    Deployment::start(&Setup { limits: lines.to_owned(), ..Setup::default() })
}

/// Sends requests until the rate refuses one, then waits as long as it says: the next request must be served.
fn assert_retry_after_is_true(code: &str, ask: impl Fn() -> Answer) {
    let refused = (0..1000).map(|_| ask()).find(|answer| answer.status == 429).expect("the rate has an end");
    refused.problem(429, code);
    let seconds = refused.retry_after_s();
    assert!(seconds <= 2, "the rate is two a second: {refused}");
    wait::pass(Duration::from_secs(seconds));
    assert_ne!(ask().status, 429, "Retry-After was not true");
}

#[test]
fn requests_of_one_address() {
    let running = with_limits("per_ip = \"3/h\"");
    let client = running.client_of("alice");
    for _ in 0..3 {
        let answer = client.get(SELECT);
        answer.ok();
        assert!(
            answer.header("ratelimit-policy").is_some() && answer.header("ratelimit").is_some(),
            "{answer}"
        );
    }
    let refused = client.get(SELECT);
    refused.problem(429, "rate_limited_ip");
    assert!((1..=1200).contains(&refused.retry_after_s()), "three an hour: one each 20 minutes: {refused}");
    assert!(refused.header("ratelimit").is_some(), "{refused}");
    client.post(UPDATE, "x").problem(429, "rate_limited_ip");
    running.client_of("bob").get(SELECT).problem(429, "rate_limited_ip");
    running.client(None).get(SELECT).problem(429, "rate_limited_ip");
    assert!(running.stored().is_empty(), "a refused request stored something");
    for path in ["/health", "/ready"] {
        (0..20).for_each(|_| assert_eq!(running.client(None).get(path).status, 200, "{path} was charged"));
    }
}

#[test]
fn requests_without_a_key_are_charged_to_the_address() {
    let running = with_limits("per_ip = \"2/h\"");
    running.client(None).get(SELECT).problem(401, "missing_key");
    running.client(None).get("/nowhere");
    running.client_of("alice").get(SELECT).problem(429, "rate_limited_ip");
}

#[test]
fn the_address_is_the_right_most_that_no_trusted_proxy_has() {
    let running = with_limits("per_ip = \"1/h\"");
    let client = running.client_of("alice");
    let from = |chain: &str| client.request("GET", SELECT, &format!("X-Forwarded-For: {chain}\r\n"), None);
    from("203.0.113.1").ok();
    from("203.0.113.1").problem(429, "rate_limited_ip");
    from("198.51.100.7, 203.0.113.1").problem(429, "rate_limited_ip");
    from("203.0.113.1, 127.0.0.9").problem(429, "rate_limited_ip");
    from("203.0.113.1, 203.0.113.2").ok();
    from("203.0.113.2").problem(429, "rate_limited_ip");
    from("2001:db8:1:2::1").ok();
    from("2001:db8:1:2:ffff::9").problem(429, "rate_limited_ip");
    from("2001:db8:1:3::1").ok();
    client.get(SELECT).ok();
    client.get(SELECT).problem(429, "rate_limited_ip");
}

#[test]
fn an_untrusted_peer_cannot_choose_its_address() {
    let setup = Setup {
        gateway: "trusted_proxies = []".to_owned(),
        limits: "per_ip = \"1/h\"".to_owned(),
        ..Setup::default()
    };
    let running = Deployment::start(&setup);
    let client = running.client_of("alice");
    let from =
        |address: &str| client.request("GET", SELECT, &format!("X-Forwarded-For: {address}\r\n"), None);
    from("203.0.113.1").ok();
    from("203.0.113.2").problem(429, "rate_limited_ip");
}

#[test]
fn requests_of_one_tenant_from_anywhere() {
    let running = with_limits("per_tenant = \"3/h\"");
    let client = running.client_of("alice");
    let from =
        |number: u8| client.request("GET", SELECT, &format!("X-Forwarded-For: 203.0.113.{number}\r\n"), None);
    (0..3).for_each(|number| assert_eq!(from(number).ok(), ""));
    let refused = from(9);
    refused.problem(429, "rate_limited_tenant");
    assert!((1..=1200).contains(&refused.retry_after_s()), "{refused}");
    let preflight = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: POST\r\n";
    let options = running.client(None).request("OPTIONS", UPDATE, preflight, None);
    assert_eq!(options.status, 204, "{options}");
    running.client_of("bob").get(SELECT).ok();
}

#[test]
fn a_plan_overrides_the_tenants_limits() {
    let mut bob = Tenant::new("bob", 1342);
    bob.plan = Some("gold");
    let setup = Setup {
        tenants: vec![Tenant::new("alice", 1341), bob],
        limits: "per_tenant = \"1/h\"".to_owned(),
        plans: "[plan.gold]\nper_tenant = \"3/h\"\n".to_owned(),
        ..Setup::default()
    };
    let running = Deployment::start(&setup);
    running.client_of("alice").get(SELECT).ok();
    running.client_of("alice").get(SELECT).problem(429, "rate_limited_tenant");
    (0..3).for_each(|_| assert_eq!(running.client_of("bob").get(SELECT).ok(), ""));
    running.client_of("bob").get(SELECT).problem(429, "rate_limited_tenant");
}

#[test]
fn wrong_keys_from_one_address() {
    let running = with_limits("failed_keys = \"3/h\"");
    let guess = |number: u32| running.client(Some(&format!("guess-{number}"))).get(SELECT);
    running.client_of("alice").get(SELECT).ok();
    (0..3).for_each(|number| assert_eq!(guess(number).problem(401, "invalid_key")["code"], "invalid_key"));
    let refused = guess(3);
    refused.problem(429, "too_many_failed_keys");
    assert!((1..=1200).contains(&refused.retry_after_s()), "{refused}");
    let elsewhere = "X-Forwarded-For: 203.0.113.1\r\n";
    running.client(Some("guess")).request("GET", SELECT, elsewhere, None).problem(401, "invalid_key");
    running.client_of("alice").request("GET", SELECT, elsewhere, None).ok();
}

#[test]
fn retry_after_is_true() {
    let running = with_limits("per_ip = \"2/s\"");
    assert_retry_after_is_true("rate_limited_ip", || running.client_of("alice").get(SELECT));
    let running = with_limits("per_tenant = \"2/s\"");
    assert_retry_after_is_true("rate_limited_tenant", || running.client_of("alice").get(SELECT));
    let running = with_limits("failed_keys = \"2/s\"");
    assert_retry_after_is_true("too_many_failed_keys", || running.client(Some("guess")).get(SELECT));
}

/// Sends a head with `Expect: 100-continue`; when the 100 has come, the request is in flight.
fn begin_upload(client: &Client, length: usize) -> sq_tests::client::Connection {
    let mut connection = client.connect();
    let head =
        client.head("POST", UPDATE) + &format!("Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
    connection.send(head.as_bytes());
    assert_eq!(connection.answer().status, 100);
    connection
}

#[test]
fn requests_of_one_tenant_at_once() {
    let running = with_limits("in_flight = 2");
    let client = running.client_of("alice");
    let mut uploads = [begin_upload(&client, 3), begin_upload(&client, 3)];
    let refused = client.get(SELECT);
    refused.problem(429, "too_many_in_flight");
    refused.retry_after_s();
    running.client_of("bob").get(SELECT).ok();
    for upload in &mut uploads {
        upload.send(b"abc");
        assert_eq!(upload.answer().ok(), "Updated 3 bytes");
    }
    wait::until("room for the next request", || client.get(SELECT).status == 200);
    assert_eq!(client.get(SELECT).ok(), "abc");
}

#[test]
fn a_request_that_is_given_up_makes_room() {
    let running = with_limits("in_flight = 1");
    let client = running.client_of("alice");
    drop(begin_upload(&client, 3));
    wait::until("room for the next request", || client.get(SELECT).status == 200);
    assert!(running.stored().is_empty(), "half a body was stored");
}

#[test]
fn the_body() {
    let running = with_limits("body = \"1KiB\"");
    let client = running.client_of("alice");
    let (fits, too_large) = (vec![b'x'; 1024], vec![b'x'; 1025]);
    assert_eq!(client.post(UPDATE, &fits).ok(), "Updated 1024 bytes");
    assert_eq!(client.post_chunks(UPDATE, &[&fits[..1000], &fits[1000..]]).ok(), "Updated 1024 bytes");
    let stored = running.stored();
    client.post(UPDATE, &too_large).problem(413, "body_too_large");
    client.post_chunks(UPDATE, &[&too_large[..]]).problem(413, "body_too_large");
    client.post_chunks(UPDATE, &[&fits[..], b"x"]).problem(413, "body_too_large");
    // Refused by its length, before a byte of it was sent.
    let announced = client.head("POST", UPDATE) + "Content-Length: 1025\r\n\r\n";
    client.raw(announced).problem(413, "body_too_large");
    let absurd = client.head("POST", UPDATE) + "Content-Length: 9000000000000000000\r\n\r\n";
    client.raw(absurd).problem(413, "body_too_large");
    assert_eq!(running.stored(), stored);
    assert_eq!(client.get(SELECT).ok().len(), 1024);
}

#[test]
fn the_head() {
    let running = with_limits("head = \"2KiB\"");
    let client = running.client_of("alice");
    let padded = |length: usize| {
        let start = client.head("GET", SELECT) + "X-Pad: ";
        let end = "\r\nConnection: close\r\n\r\n";
        start.clone() + &"x".repeat(length - start.len() - end.len()) + end
    };
    assert_eq!(padded(2048).len(), 2048);
    client.raw(padded(2048)).ok();
    client.raw(padded(2049)).problem(431, "headers_too_large");
    client.raw(padded(200_000)).problem(431, "headers_too_large");
    let never_ending = client.head("GET", SELECT) + "X-Pad: " + &"x".repeat(3000);
    client.raw(never_ending).problem(431, "headers_too_large");

    let line = |length: usize| {
        let start = format!("GET {SELECT}&pad=");
        start.clone() + &"x".repeat(length - start.len() - " HTTP/1.1\r\n".len()) + " HTTP/1.1\r\n"
    };
    client.raw(line(2049) + "Host: a\r\n\r\n").problem(414, "uri_too_long");
    client.raw(format!("GET /{}", "x".repeat(100_000))).problem(414, "uri_too_long");
    client.get(SELECT).ok();
}

#[test]
fn the_number_of_header_fields() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    // `Host`, `Authorization` and `Connection` are fields too.
    let with_fields = |count: usize| {
        let more: String = (3..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
        client.request("GET", SELECT, &more, None)
    };
    with_fields(100).ok();
    with_fields(101).problem(431, "headers_too_large");
    with_fields(1000).problem(431, "headers_too_large");
    client.get(SELECT).ok();
}

#[test]
fn names_coordinates_and_tokens() {
    let longest = "k".repeat(512);
    let tenants = vec![Tenant::new("alice", 1341).with_key(&longest, "write", None)];
    let running = Deployment::start(&Setup { tenants, ..Setup::default() });
    let client = running.client(Some(&longest));
    let named = |length: usize| {
        client.get(&format!("{}&s=x", UPDATE.replace("p=text", &format!("p={}", "n".repeat(length)))))
    };
    let at = |c: &str| client.get(&format!("/api/v2/update?p=text&c={c}&s=x"));
    assert_eq!(named(240).ok(), "Updated 1 bytes");
    at("1.1.1/1.1.1/1.1.99999").ok();
    let stored = running.stored();
    named(241).problem(400, "invalid_phext");
    at("1.1.1/1.1.1/1.1.100000").problem(400, "invalid_coordinate");
    at("1.1.1/1.1.1/1.1.0").problem(400, "invalid_coordinate");
    at("99999999999999999999.1.1/1.1.1/1.1.1").problem(400, "invalid_coordinate");
    let answer = running.client(Some(&"k".repeat(513))).get(SELECT);
    answer.problem(401, "invalid_key");
    assert_eq!(running.stored(), stored);
    client.get(SELECT).ok();
}

#[test]
fn connections() {
    let running = with_limits("connections = 3");
    let client = running.client_of("alice");
    let head = client.head("GET", SELECT) + "\r\n";
    let mut kept: Vec<_> = (0..3).map(|_| client.connect()).collect();
    for connection in &mut kept {
        connection.send(head.as_bytes());
        connection.answer().ok();
    }
    // New connections wait, and no accepted connection is closed.
    let mut next = client.connect();
    next.send(head.as_bytes());
    assert!(!next.hears_within(Duration::from_millis(300)), "a fourth was served");
    for connection in &mut kept {
        connection.send(head.as_bytes());
        connection.answer().ok();
    }
    kept.pop();
    next.answer().ok();
}

/// The time for a head runs from the start of the connection, and for the next head from its first byte.
#[test]
fn heads_that_come_slowly() {
    let head_time = Duration::from_secs(1);
    let timeouts = "head = \"1s\"\nidle = \"60s\"".to_owned();
    let running = Deployment::start(&Setup { timeouts, ..Setup::default() });
    let client = running.client_of("alice");
    let began = Instant::now();
    let (mut silent, mut dripping, mut idle) = (client.connect(), client.connect(), client.connect());
    idle.send((client.head("GET", SELECT) + "\r\n").as_bytes());
    idle.answer().ok();
    while !dripping.hears_within(Duration::from_millis(100)) {
        dripping.send(b"G");
    }
    for slow in [&mut silent, &mut dripping] {
        slow.answer().problem(408, "request_timeout");
        slow.assert_closed();
    }
    assert!(began.elapsed() >= head_time, "{:?}", began.elapsed());
    // It was idle for longer than a head may take; now its next head begins, and does not end.
    assert!(!idle.hears_within(Duration::from_millis(10)), "an idle connection was closed");
    let began = Instant::now();
    while !idle.hears_within(Duration::from_millis(100)) {
        idle.send(b"G");
    }
    idle.answer().problem(408, "request_timeout");
    idle.assert_closed();
    assert!(began.elapsed() >= head_time, "{:?}", began.elapsed());
}

/// A refusal does not read the whole rest of the body.
#[test]
fn a_refused_client_that_goes_on_sending() {
    let running = with_limits("head = \"2KiB\"");
    let endless_body = "POST /api/v2/update HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless_head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(3000));
    for (opening, status) in [(endless_body, "401"), (endless_head.as_str(), "431")] {
        let mut stream = TcpStream::connect(running.listen).unwrap();
        stream.write_all(opening.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(start, format!("HTTP/1.1 {status}").as_bytes());
        let chunk = chunk_of(&[b'x'; 64 << 10]);
        let began = Instant::now();
        // Besides what the server reads, the kernels at both ends buffer some megabytes.
        let sent = (0..1024).position(|_| stream.write_all(&chunk).is_err());
        assert!(sent.is_some_and(|chunks| chunks < 512), "{sent:?} chunks of 64 KiB were taken");
        assert!(began.elapsed() < LINGER_TIME + Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

/// The contract fixes the window of ten seconds, so the test takes as long.
#[test]
fn a_body_slower_than_a_kibibyte_a_second() {
    let running = Deployment::start(&Setup::default());
    let begin = |text: &str| {
        let client = running.client_of("alice");
        let mut upload = client.connect();
        upload.send((client.head("POST", UPDATE) + "Content-Length: 100000\r\n\r\n" + text).as_bytes());
        upload
    };
    let (mut stalled, mut dripping) = (begin("some"), begin(""));
    while !dripping.hears_within(Duration::from_millis(250)) {
        dripping.send(b"x");
    }
    dripping.answer().problem(408, "request_timeout");
    stalled.answer().problem(408, "request_timeout");
    assert!(running.stored().is_empty(), "{:?}", running.stored());
    running.client_of("alice").post(UPDATE, "quick").ok();
}
