//! Customers over TLS, through nginx with the shipped configuration: what they may send and read, whose address
//! counts, and that idle connections fail no request.

use std::fs;
use std::net::SocketAddrV4;

use sq_tests::deployment::Deployment;
use sq_tests::nginx::{Nginx, works};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{process, wait};

use crate::seed::{SCRIPT, TENANTS, shell};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// A body at the gateway's limit.
const LONGEST_BODY: usize = 64 << 20;

fn behind_nginx(setup: &Setup, changes: &[(&str, &str)]) -> (Deployment, Nginx) {
    let running = Deployment::start(setup);
    let nginx = Nginx::start_with(running.listen, running.address, running.path(), changes);
    (running, nginx)
}

fn bearer(tenant: &str) -> String {
    format!("Authorization: Bearer {}", key_of(tenant))
}

#[test]
fn the_users_own_test_over_tls() {
    if !works("the user's own test over TLS") {
        return;
    }
    for version in VERSIONS {
        let root = Root::without_registry(&Setup::default());
        let folder = root.path().to_str().unwrap().to_owned();
        root.write("sq-test-tenants.json", &TENANTS.replace("$DIR", &folder));
        let tenants = root.join("sq-test-tenants.json");
        let running = Deployment::up(root, &["--tenants", tenants.to_str().unwrap()]);
        let nginx = Nginx::start(running.listen, running.address, running.path());
        let options = nginx.curl_arguments().join(" ");
        let script = SCRIPT
            .replace("http://localhost:9999", &format!("https://{}", Nginx::host()))
            .replace("curl ", &format!("curl {version} {options} "));
        assert_eq!(shell(&script), "Inserted 9 bytesInserted 7 bytes", "{version}");
        let cat = |name: &str| shell(&format!("cat {folder}/{name}/test.phext"));
        assert_eq!((cat("alice"), cat("bob")), ("AliceData".to_owned(), "BobData".to_owned()), "{version}");
    }
}

#[test]
fn longest_bodies_pass_in_both_directions() {
    if !works("64 MiB through nginx") {
        return;
    }
    let (running, nginx) = behind_nginx(&Setup::default(), &[]);
    let (up, down) = (running.join("up"), running.join("down"));
    let (from, to) = (format!("@{}", up.display()), down.display().to_string());
    for version in VERSIONS {
        let ask = |more: &[&str], target: &str| {
            nginx.curl(&[&[version, "-H", &bearer("alice")], more].concat(), target).success()
        };
        fs::write(&up, version.repeat(LONGEST_BODY / version.len() + 1).split_at(LONGEST_BODY).0).unwrap();
        assert_eq!(ask(&["--data-binary", &from], UPDATE), format!("Updated {LONGEST_BODY} bytes"));
        assert_eq!(ask(&["-o", &to, "-w", "%{http_code}"], SELECT), "200");
        assert!(fs::read(&up).unwrap() == fs::read(&down).unwrap(), "{version}: another text came down");

        fs::write(&up, "a".repeat(LONGEST_BODY + 1)).unwrap();
        let refused = ask(&["--data-binary", &from, "-o", &to, "-w", "%{http_code}"], UPDATE);
        assert_eq!(refused, "413", "{version}: one byte more");

        let text = "q".repeat(60 << 10);
        assert_eq!(
            ask(&[], &format!("{UPDATE}&s={text}")),
            format!("Updated {} bytes", text.len()),
            "{version}"
        );
        assert!(ask(&[], SELECT) == text, "{version}: another text came down");
    }
}

/// Each of the two comes from a different address, which only nginx sees.
#[test]
fn the_clients_address_is_limited_and_it_cannot_name_another() {
    if !works("addresses through nginx") {
        return;
    }
    let gateway = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
    let setup = Setup { gateway, limits: "per_ip = \"3/h\"".to_owned(), ..Setup::default() };
    let (_running, nginx) = behind_nginx(&setup, &[]);
    let ask = |from: &str, forwarded: &str| {
        let field = format!("X-Forwarded-For: {forwarded}");
        let options = ["--interface", from, "-H", &bearer("alice"), "-H", &field, "-o", "/dev/null"];
        nginx.curl(&[&options[..], &["-w", "%{http_code}"]].concat(), SELECT).success()
    };
    let (one, other) = ("127.0.0.2", "127.0.0.3");
    assert_eq!([(); 3].map(|()| ask(one, "203.0.113.1")), ["200"; 3]);
    assert_eq!([ask(one, "203.0.113.2"), ask(one, "127.0.0.3"), ask(one, "127.0.0.1")], ["429"; 3]);
    // A client that claims another's address does not use up its count.
    assert_eq!([(); 3].map(|()| ask(other, one)), ["200"; 3]);
    assert_eq!(ask(other, ""), "429");
}

/// The same request, with the same id, directly and through nginx.
#[test]
fn refusals_are_byte_for_byte_the_gateways() {
    if !works("refusals through nginx") {
        return;
    }
    let limits = "per_tenant = \"6/h\"\nquota = \"1KiB\"".to_owned();
    let (running, nginx) = behind_nginx(&Setup { limits, ..Setup::default() }, &[]);
    let id = "X-Request-Id: 0192f0c1-2345-7abc-8def-0123456789ab\r\n";
    let [direct, through] = [running.client_of("alice"), nginx.client(Some(&key_of("alice")))];
    let both = |target: &str, body: &[u8]| {
        [&direct, &through].map(|client| client.request("POST", target, id, Some(body)))
    };
    let bad_utf8: &[u8] = b"ab\xff";
    let refused = [(bad_utf8, 400, "invalid_utf8"), (&[b'a'; 2000], 507, "quota_exceeded")];
    for (body, status, code) in refused {
        let [direct, through] = both(UPDATE, body);
        through.problem(status, code);
        assert_eq!(direct.body, through.body, "{code}");
        assert_eq!(direct.header("content-type"), through.header("content-type"), "{code}");
    }
    let [_, _] = both(SELECT, b"");
    let [direct, through] = both(UPDATE, b"x");
    through.problem(429, "rate_limited_tenant");
    // There may be a second between them.
    let seconds =
        [&direct, &through].map(|answer| answer.header("retry-after").unwrap().parse::<u64>().unwrap());
    assert!(seconds[0] >= seconds[1] && seconds[0] - seconds[1] <= 2, "{seconds:?}");
    for field in ["ratelimit-policy", "x-request-id", "cache-control", "content-type"] {
        assert_eq!(direct.header(field), through.header(field), "{field}");
    }
}

/// Enables the optional lines.
#[test]
fn optional_rate_limit_stops_a_flood() {
    if !works("the first line in nginx") {
        return;
    }
    let changes = [
        (
            "#limit_req_zone $binary_remote_addr zone=sq_requests:10m rate=50r/s;",
            "limit_req_zone $binary_remote_addr zone=sq_requests:10m rate=1r/m;",
        ),
        ("#limit_conn_zone", "limit_conn_zone"),
        ("#limit_req zone=sq_requests burst=100 nodelay;", "limit_req zone=sq_requests burst=2 nodelay;"),
        ("#limit_conn ", "limit_conn "),
    ];
    let (_running, nginx) = behind_nginx(&Setup::default(), &changes);
    let client = nginx.client(Some(&key_of("alice")));
    for _ in 0..3 {
        client.get(SELECT).ok();
    }
    let answer = client.get(SELECT);
    answer.problem(429, "rate_limited_ip");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
}

#[test]
fn responses_have_strict_transport_security() {
    if !works("HSTS") {
        return;
    }
    let (_running, nginx) = behind_nginx(&Setup::default(), &[]);
    for (target, status) in [("/health", "200"), (SELECT, "401"), ("/.nginx/late", "404")] {
        let form = "%{http_code} %header{strict-transport-security} %header{x-content-type-options}";
        let said = nginx.curl(&["-o", "/dev/null", "-w", form], target).success();
        assert_eq!(said, format!("{status} max-age=31536000 nosniff"), "{target}");
    }
}

/// Twice the same: first nginx's timeout for idle connections to the gateway is shorter, then the gateway's.
#[test]
fn an_idle_connection_that_either_side_closes_costs_no_request() {
    if !works("idle connections through nginx") {
        return;
    }
    let short = [("keepalive_timeout 60s;", "keepalive_timeout 2s;")];
    let cases: [(&str, &[(&str, &str)]); 2] = [("", &short), ("idle = \"2s\"", &[])];
    for (timeouts, changes) in cases {
        let setup = Setup { timeouts: timeouts.to_owned(), ..Setup::default() };
        let (running, nginx) = behind_nginx(&setup, changes);
        // The client keeps its connection to nginx.
        let mut client = nginx.client(Some(&key_of("alice"))).connect();
        let head = nginx.client(Some(&key_of("alice"))).head("POST", UPDATE);
        for number in 0..2 {
            client.send(format!("{head}Content-Length: 1\r\n\r\n{number}").as_bytes());
            client.answer_to("POST").ok();
            assert_eq!(process::connections(gateway_of(&running)), 1, "nginx keeps its connection at first");
            wait::until("the idle connection is closed", || process::connections(gateway_of(&running)) == 0);
        }
    }
}

fn gateway_of(running: &Deployment) -> SocketAddrV4 {
    SocketAddrV4::new(running.address, running.listen.port())
}
