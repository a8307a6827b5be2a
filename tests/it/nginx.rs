//! nginx in front, with the shipped configuration: clients get the gateway's responses through it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use sq_tests::address;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::nginx::{NAME, Nginx, works};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};

/// A system behind nginx; `None` without nginx.
fn behind_nginx(skipped: &str, limits: &str) -> Option<(Deployment, Nginx)> {
    if !works(skipped) {
        return None;
    }
    let running = Deployment::start(&Setup { limits: limits.to_owned(), ..Setup::default() });
    let nginx = Nginx::start(running.listen, running.address, running.path());
    Some((running, nginx))
}

fn client_of(nginx: &Nginx, tenant: &str) -> Client {
    nginx.client(Some(&key_of(tenant)))
}

#[test]
fn nginx_accepts_the_configuration_without_warnings() {
    if !works("nginx -t") {
        return;
    }
    let root = Root::empty();
    let outcome = Nginx::check(root.listen(), root.address, root.path());
    let (code, said) = (outcome.code(), outcome.stderr);
    assert_eq!(code, Some(0), "{said}");
    let is_good = |line: &str| line.ends_with("syntax is ok") || line.ends_with("test is successful");
    assert!(said.lines().all(is_good), "{said}");
}

#[test]
fn customers_write_and_read_over_tls() {
    let Some((_running, nginx)) = behind_nginx("TLS through nginx", "") else { return };
    let key = format!("Authorization: Bearer {}", key_of("alice"));
    for version in ["--http1.1", "--http2"] {
        let ask = |more: &[&str], target: &str| {
            nginx.curl(&[&[version, "-H", &key], more].concat(), target).success()
        };
        let text = format!("over TLS, with {version}");
        assert_eq!(ask(&["--data-binary", &text], UPDATE), format!("Updated {} bytes", text.len()));
        assert_eq!(ask(&[], SELECT), text);
        let used = ask(&["-o", "/dev/null", "-w", "%{http_version} %{ssl_verify_result}"], SELECT);
        assert_eq!(used, format!("{} 0", version.trim_start_matches("--http")));
    }
    let old = nginx.curl(&["--tlsv1.1", "--tls-max", "1.1", "-H", &key], SELECT);
    assert_eq!(old.code(), Some(35), "TLS 1.1 is not spoken: {old:?}");
}

#[test]
fn plain_http_redirects_to_https() {
    let Some((_running, nginx)) = behind_nginx("the way to HTTPS", "") else { return };
    let answer = nginx.redirecting().raw(format!("POST {UPDATE} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
    // The method is kept, and the server name is ours, whatever the client sends.
    assert_eq!(answer.status, 308, "{answer}");
    assert_eq!(answer.header("location"), Some(format!("https://{NAME}{UPDATE}").as_str()));
}

#[test]
fn the_client_cannot_say_who_it_is() {
    let Some((running, nginx)) = behind_nginx("X-Forwarded-For through nginx", "per_ip = \"4/h\"") else {
        return;
    };
    let client = client_of(&nginx, "alice");
    let spoofed = [
        "X-Forwarded-For: 203.0.113.1\r\n",
        "X-Forwarded-For: 203.0.113.2, 203.0.113.3\r\nX-Forwarded-For: 203.0.113.4\r\n",
        "Connection: X-Forwarded-For\r\nX-Forwarded-For: 203.0.113.5\r\n",
        "x_forwarded_for: 203.0.113.6\r\nForwarded: for=203.0.113.6\r\n",
    ];
    for fields in spoofed {
        client.request("GET", SELECT, fields, None).ok();
    }
    // nginx reports this machine as the client, whatever the requests claim.
    client.request("GET", SELECT, "X-Forwarded-For: 203.0.113.7\r\n", None).problem(429, "rate_limited_ip");
    running.client_of("alice").get(SELECT).problem(429, "rate_limited_ip");
}

#[test]
fn gateway_errors_pass_unchanged() {
    let Some((_running, nginx)) = behind_nginx("refusals through nginx", "") else { return };
    let client = client_of(&nginx, "alice");
    nginx.client(None).get(SELECT).problem(401, "missing_key");
    client.get("/api/v2/nowhere").problem(404, "unknown_route");
    client.post(SELECT, "x").problem(405, "method_not_allowed");
    client.post(UPDATE, b"\xff").problem(400, "invalid_utf8");
    client.get(&format!("{SELECT}&x={}", "a".repeat(65 << 10))).problem(414, "uri_too_long");
    let long = format!("X-Long: {}\r\n", "a".repeat(65 << 10));
    client.request("GET", SELECT, &long, None).problem(431, "headers_too_large");
    let many = "X-Many: 1\r\n".repeat(120);
    client.request("GET", SELECT, &many, None).problem(431, "headers_too_large");

    let mut connection = client.connect();
    let head = client.head("POST", UPDATE);
    connection.send(format!("{head}Content-Length: {}\r\n\r\n", (64 << 20) + 1).as_bytes());
    connection.answer_to("POST").problem(413, "body_too_large");
}

/// nginx refuses malformed requests itself, in the same form.
#[test]
fn nginx_errors_have_the_form_of_all_errors() {
    let Some((_running, nginx)) = behind_nginx("malformed requests at nginx", "") else { return };
    let client = client_of(&nginx, "alice");
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Host: another\r\n",
        "X : y\r\n",
    ] {
        let answer = client.raw(client.head("POST", UPDATE) + fields + "\r\nhello");
        answer.problem(400, "bad_request");
    }
    let newer = client.head("GET", SELECT).replace("HTTP/1.1", "HTTP/2.0");
    client.raw(newer + "\r\n").problem(400, "bad_request");
    nginx.plain_at_tls().get(SELECT).problem(400, "bad_request");
    let traced = client.raw(client.head("TRACE", SELECT) + "\r\n");
    traced.problem(405, "method_not_allowed");
    assert!(traced.header("allow").is_some() && traced.header("retry-after").is_none(), "{traced}");
    // Clients cannot request nginx's error texts directly.
    client.get("/.nginx/unreachable").problem(404, "unknown_route");
}

/// More than nginx's buffers hold. (What only the gateway finds too long passes nginx.)
#[test]
fn nginx_length_errors_have_the_form_of_all_errors() {
    let Some((_running, nginx)) = behind_nginx("long heads at nginx", "") else { return };
    let client = client_of(&nginx, "alice");
    client.get(&format!("{SELECT}&x={}", "a".repeat(80 << 10))).problem(414, "uri_too_long");
    for fields in [
        format!("X-Long: {}\r\n", "a".repeat(80 << 10)),
        format!("X-Long: {}\r\n", "a".repeat(50 << 10)).repeat(4),
    ] {
        client.request("GET", SELECT, &fields, None).problem(431, "headers_too_large");
    }
}

#[test]
fn clients_are_told_to_retry_while_the_gateway_is_down() {
    let Some((running, nginx)) = behind_nginx("nginx without a gateway", "") else { return };
    let client = client_of(&nginx, "alice");
    client.post(UPDATE, "before").ok();
    let _root = running.stop();
    for answer in [client.get(SELECT), client.post(UPDATE, "x"), client.get("/api/v2/nowhere")] {
        answer.problem(503, "worker_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    }
}

#[test]
fn bodies_pass_unchanged() {
    let Some((running, nginx)) = behind_nginx("bodies through nginx", "") else { return };
    let client = client_of(&nginx, "alice");
    let long: String = (0..400_000).map(|number| format!("line {number}\n")).collect();
    client.post(UPDATE, &long).ok();
    assert!(client.get(SELECT).ok() == long, "a long text came back as another");
    client.post_chunks(UPDATE, &[b"in ", b"chunks"]).ok();
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "in chunks");

    // An ETag of a compressed response is weak, and would match nothing.
    let read = client.request("GET", SELECT, "Accept-Encoding: gzip\r\n", None);
    let tag = read.header("etag").expect("a tag").to_owned();
    let conditional = format!("If-Match: {tag}\r\n");
    client.request("POST", UPDATE, &conditional, Some(b"next")).ok();
    client.request("POST", UPDATE, &conditional, Some(b"late")).problem(412, "precondition_failed");
    // The target is neither decoded nor merged on its way.
    client.get("/api//v2/version").problem(404, "unknown_route");
    client.get("/api/v2/%76ersion").problem(404, "unknown_route");
    client.get(&format!("{UPDATE}&s=a%2Bb%26c%3Dd%C3%A9%00")).ok();
    assert_eq!(client.get(SELECT).ok(), "a+b&c=d\u{e9}\0");
}

#[test]
fn what_is_written_is_not_logged() {
    let Some((running, nginx)) = behind_nginx("nginx's logs", "") else { return };
    let id = "0192f0c1-2345-7abc-8def-0123456789ab";
    let client = client_of(&nginx, "alice");
    client.request("GET", &format!("{UPDATE}&s=private"), &format!("X-Request-Id: {id}\r\n"), None).ok();
    let _root = running.stop();
    assert_eq!(client.get(&format!("{UPDATE}&s=private")).status, 503, "nobody is behind nginx any more");
    let access = nginx.read("sq.access.log");
    assert!(access.contains(id) && access.contains("/api/v2/update"), "{access}");
    for log in ["sq.access.log", "sq.error.log", "nginx.log"] {
        let text = nginx.read(log);
        assert!(!text.contains("private") && !text.contains(&key_of("alice")), "{log}: {text}");
    }
}

/// A gateway that answers the first request of each connection, and closes when it has read the next: the worst
/// moment for a write. Returns the number of requests it had read when it received `stop`.
fn breaking_gateway(listener: TcpListener) -> usize {
    let mut requests = 0;
    loop {
        let (mut stream, _) = listener.accept().expect("a connection");
        for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""] {
            let request = whole_request(&mut stream);
            if request.starts_with(b"GET /stop") {
                return requests;
            }
            requests += usize::from(!request.is_empty());
            stream.write_all(answer.as_bytes()).expect("nginx reads");
        }
    }
}

/// A request with the body `x`, or one that stops it, without a body. nginx may send a head and its body separately.
fn whole_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let is_whole = |request: &[u8]| {
        request.ends_with(b"\r\n\r\nx") || request.starts_with(b"GET /stop") && request.ends_with(b"\r\n\r\n")
    };
    while !is_whole(&request) {
        match stream.read(&mut piece).unwrap_or(0) {
            0 => break,
            length => request.extend_from_slice(&piece[..length]),
        }
    }
    request
}

/// Even a GET may write, so nginx must not send one again, not even on a kept connection, which is its default.
#[test]
fn requests_are_forwarded_once() {
    if !works("nginx without a gateway") {
        return;
    }
    let root = Root::empty();
    let gateway: SocketAddr = address::at(root.address, 0);
    let listener = TcpListener::bind(gateway).expect("a socket");
    let gateway = listener.local_addr().expect("its address");
    let broken = thread::spawn(move || breaking_gateway(listener));
    let nginx = Nginx::start(gateway, root.address, root.path());
    let client = client_of(&nginx, "alice");
    let answers: Vec<Answer> = ["GET", "GET", "POST", "GET", "POST"]
        .into_iter()
        .map(|method| client.request(method, UPDATE, "", Some(b"x")))
        .collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 502, 200, 502, 200]);
    // It was sent, so it may have been applied: the client is not told to retry.
    answers[1].problem(502, "worker_failed");
    assert_eq!(answers[1].header("retry-after"), None);
    // The connection is kept: the last request is the second one on it.
    client.get("/stop");
    assert_eq!(broken.join().expect("how many requests came"), answers.len());
}
