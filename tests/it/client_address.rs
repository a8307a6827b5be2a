//! The client's address for limits and the access line: from trusted and other peers, in every notation, and with
//! malformed fields.

use std::net::{IpAddr, TcpListener};

use serde_json::Value;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;
use sq_tests::{notice, wait};

const QUOTA: u32 = 1000;

/// The only trusted proxy; the tests connect from 127.0.0.1.
const PROXY: &str = "127.9.9.9";

fn deployment(gateway: &str) -> Deployment {
    let setup = Setup {
        gateway: gateway.to_owned(),
        limits: format!("per_ip = \"{QUOTA}/day\""),
        ..Setup::default()
    };
    let root = Root::new(&setup);
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = root.gateway_command(&["--log-format", "json", "up", "--root", &folder]);
    Deployment::spawn(root, &mut command)
}

fn with_proxy() -> Deployment {
    deployment(&format!("trusted_proxies = [\"{PROXY}\", \"10.0.0.0/8\"]"))
}

fn at(running: &Deployment, source: &str) -> Client {
    running.client_of("alice").calling_from(source.parse::<IpAddr>().unwrap())
}

/// Sends these lines unchanged, with any bytes.
fn send(client: &Client, lines: &[u8]) -> Answer {
    let head = client.head("GET", SELECT);
    client.raw([head.as_bytes(), lines, b"Connection: close\r\n\r\n"].concat())
}

/// The client's address in a request's access line.
fn logged(running: &Deployment, answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap();
    wait::until_some("the access line", || {
        let log = running.log();
        let line = log.lines().find(|line| line.contains("\"target\":\"access\"") && line.contains(id))?;
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["client"].as_str().unwrap().to_owned())
    })
}

fn remaining(answer: &Answer) -> u32 {
    let field = answer.header("ratelimit").unwrap_or_else(|| panic!("no RateLimit: {answer}"));
    let state = field.strip_prefix("\"ip\";r=").unwrap();
    state.split(';').next().unwrap().parse().unwrap()
}

/// Checks that a request with these lines is charged to this address, and logged with it: the remaining count of the
/// address decreases by one.
fn assert_client(running: &Deployment, client: &Client, used: &mut u32, lines: &[u8], expected: &str) {
    let shown = String::from_utf8_lossy(&lines[..lines.len().min(200)]).into_owned();
    let answer = send(client, lines);
    assert_eq!(logged(running, &answer), expected, "{shown}");
    *used += 1;
    assert_eq!(remaining(&answer), QUOTA - *used, "another address was charged: {shown}");
}

fn forwarded_for(list: impl AsRef<[u8]>) -> Vec<u8> {
    [b"X-Forwarded-For: ", list.as_ref(), b"\r\n"].concat()
}

#[test]
fn a_stranger_is_who_it_is_whatever_it_says() {
    let running = with_proxy();
    let stranger = at(&running, "127.0.0.5");
    let mut used = 0;
    for lines in [
        forwarded_for("198.51.100.1"),
        forwarded_for(PROXY),
        forwarded_for("10.0.0.1, 127.9.9.9"),
        forwarded_for("junk"),
        b"X-Real-IP: 198.51.100.1\r\nForwarded: for=198.51.100.1\r\nCF-Connecting-IP: 198.51.100.1\r\n"
            .to_vec(),
        Vec::new(),
    ] {
        assert_client(&running, &stranger, &mut used, &lines, "127.0.0.5");
    }
    assert_client(&running, &at(&running, "127.0.0.6"), &mut 0, &forwarded_for("127.0.0.5"), "127.0.0.6");
}

#[test]
fn forwarded_addresses_are_read_from_the_right() {
    let running = with_proxy();
    let proxy = at(&running, PROXY);
    let (mut client, mut itself, mut v6) = (0, 0, 0);
    for list in [
        "198.51.100.1",
        " 198.51.100.1\t",
        "198.51.100.1:4711",
        "::ffff:198.51.100.1",
        "[::ffff:198.51.100.1]:80",
        "::FFFF:C633:6401",
        "203.0.113.9, 198.51.100.1",
        "203.0.113.9,198.51.100.1,10.0.0.2",
        "junk, 198.51.100.1",
        "198.51.100.1,",
        "198.51.100.1, ,10.0.0.2,,",
        "127.9.9.9, 198.51.100.1, 127.9.9.9",
    ] {
        assert_client(&running, &proxy, &mut client, &forwarded_for(list), "198.51.100.1");
    }
    for fields in [["203.0.113.9", "198.51.100.1"], ["198.51.100.1", "10.0.0.2"], ["198.51.100.1", ""]] {
        let lines = fields.map(forwarded_for).concat();
        assert_client(&running, &proxy, &mut client, &lines, "198.51.100.1");
    }
    for (list, address) in [
        ("2001:db8:1:2::1", "2001:db8:1:2::1"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::1"),
        ("[2001:DB8:1:2::1]:443", "2001:db8:1:2::1"),
        // A /64 is one customer.
        ("198.51.100.1, 2001:db8:1:2:ffff::9, 10.0.0.2", "2001:db8:1:2:ffff::9"),
    ] {
        assert_client(&running, &proxy, &mut v6, &forwarded_for(list), address);
    }
    for junk in
        ["unknown", "fe80::1%eth0", "[fe80::1%1]:80", "[198.51.100.2]", "198.51.100.2:x", "198.51.100.02", ""]
    {
        assert_client(&running, &proxy, &mut itself, &forwarded_for(junk), PROXY);
    }
    let others = b"X-Real-IP: 198.51.100.1\r\nForwarded: for=198.51.100.1\r\nX-Client-IP: 198.51.100.1\r\n";
    assert_client(&running, &proxy, &mut itself, others, PROXY);
    assert_client(&running, &proxy, &mut itself, &forwarded_for("198.51.100.1, unknown"), PROXY);
}

#[test]
fn junk_and_long_lists_cost_little_and_end_at_who_passed_them_on() {
    let running = with_proxy();
    let proxy = at(&running, PROXY);
    let (mut client, mut itself, mut inner) = (0, 0, 0);
    let junk = vec!["junk"; 100].join(", ");
    assert_client(&running, &proxy, &mut itself, &forwarded_for(&junk), PROXY);
    assert_client(
        &running,
        &proxy,
        &mut client,
        &forwarded_for(format!("{junk}, 198.51.100.1")),
        "198.51.100.1",
    );
    assert_client(&running, &proxy, &mut itself, &forwarded_for(b"198.51.100.1, \xff\xfe"), PROXY);
    assert_client(&running, &proxy, &mut itself, &forwarded_for("198.51.100.1, \u{ff11}98.51.100.1"), PROXY);
    let mixed = forwarded_for([&b"\xff\xfe, "[..], b"198.51.100.1"].concat());
    assert_client(&running, &proxy, &mut client, &mixed, "198.51.100.1");
    // A head of the maximum length with only proxies: the walk ends after a fixed number.
    let long = format!("198.51.100.1{}", ",10.0.0.2".repeat(6000));
    assert_client(&running, &proxy, &mut inner, &forwarded_for(&long), "10.0.0.2");
    assert_client(&running, &proxy, &mut itself, &forwarded_for(",".repeat(60_000)), PROXY);
    assert_client(&running, &proxy, &mut itself, &forwarded_for("9".repeat(60_000)), PROXY);
    // `Host`, the key and `Connection` are fields too, and there may be a hundred.
    let many = forwarded_for("203.0.113.9").repeat(96);
    let lines = [many, forwarded_for("198.51.100.1")].concat();
    assert_client(&running, &proxy, &mut client, &lines, "198.51.100.1");
    let proxies = [forwarded_for("198.51.100.1"), forwarded_for("10.0.0.2").repeat(96)].concat();
    assert_client(&running, &proxy, &mut inner, &proxies, "10.0.0.2");
}

const MALFORMED: &str = "GET / HTTP/1.1\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n";

/// The sender of malformed requests behind a proxy is unknown. They must not count against the proxy, and with it
/// against all its clients.
#[test]
fn what_the_edge_refuses_is_charged_to_its_peer_unless_that_is_a_proxy() {
    let running = with_proxy();
    for used in [1, 2] {
        let refused = at(&running, "127.0.0.5").raw(MALFORMED);
        refused.problem(400, "bad_request");
        assert_eq!((logged(&running, &refused).as_str(), remaining(&refused)), ("127.0.0.5", QUOTA - used));
    }
    let refused = at(&running, PROXY).raw(MALFORMED);
    refused.problem(400, "bad_request");
    assert_eq!((logged(&running, &refused).as_str(), refused.header("ratelimit")), (PROXY, None));
    assert_client(&running, &at(&running, PROXY), &mut 0, b"", PROXY);
}

#[test]
fn what_the_edge_refuses_says_that_nothing_is_left() {
    let running = Deployment::start(&Setup {
        gateway: format!("trusted_proxies = [\"{PROXY}\"]"),
        limits: "per_ip = \"2/day\"".to_owned(),
        ..Setup::default()
    });
    let stranger = at(&running, "127.0.0.5");
    let left: Vec<u32> = (0..4).map(|_| remaining(&stranger.raw(MALFORMED))).collect();
    assert_eq!(left, [1, 0, 0, 0]);
    stranger.get(SELECT).problem(429, "rate_limited_ip");
    // Other clients send as many through the proxy, and are still served.
    let proxy = at(&running, PROXY);
    for _ in 0..4 {
        proxy.raw(MALFORMED).problem(400, "bad_request");
    }
    proxy.get(SELECT).ok();
}

#[test]
fn peers_of_ipv6_and_those_of_ipv4_that_come_in_by_it() {
    if TcpListener::bind("[::1]:0").is_err() {
        notice::not_allowed_here("client addresses of IPv6: this machine has no ::1");
        return;
    }
    let running = deployment("listen = \"[::1]:0\"\ntrusted_proxies = [\"::1\"]");
    assert!(running.listen.is_ipv6(), "{}", running.listen);
    let client = running.client_of("alice");
    assert_client(&running, &client, &mut 0, b"", "::1");
    assert_client(&running, &client, &mut 0, &forwarded_for("2001:db8::5, ::1"), "2001:db8::5");
    assert_client(&running, &client, &mut 0, &forwarded_for("198.51.100.1"), "198.51.100.1");

    let running = deployment("listen = \"[::1]:0\"\ntrusted_proxies = []");
    assert_client(&running, &running.client_of("alice"), &mut 0, &forwarded_for("2001:db8::5"), "::1");

    // One socket for both: an IPv4 peer has the address ::ffff:127.9.9.9 there, and is trusted by its IPv4 address.
    let running = deployment(&format!("listen = \"[::]:0\"\ntrusted_proxies = [\"{PROXY}\"]"));
    let mut stranger = 0;
    assert_client(&running, &at(&running, PROXY), &mut 0, b"", PROXY);
    assert_client(&running, &at(&running, PROXY), &mut 0, &forwarded_for("198.51.100.1"), "198.51.100.1");
    assert_client(&running, &at(&running, "127.0.0.5"), &mut stranger, b"", "127.0.0.5");
    assert_client(
        &running,
        &at(&running, "127.0.0.5"),
        &mut stranger,
        &forwarded_for("198.51.100.1"),
        "127.0.0.5",
    );
}
