//! The operator's ports, held by clients that any user of the machine may be: metrics and health answer all the same.

use std::net::SocketAddr;
use std::time::Duration;

use sq_tests::client::{Client, Connection};
use sq_tests::crowd::{Crowd, Manner};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::{address, wait};

/// Far more than there are places, and fewer than the queue of either port has room for.
const HELD: usize = 300;

/// How long an answer may take. It takes milliseconds; without a place it would take 10 s and more.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is asked of each port.
const TARGETS: [&str; 3] = ["/health", "/metrics", "/health"];

fn ports(running: &Deployment) -> [SocketAddr; 2] {
    [1338, 1339].map(|port| address::at(running.address, port))
}

/// A connection that sends this much and waits.
fn held(client: &Client, opening: &str) -> Connection {
    let mut connection = client.connect();
    connection.send(opening.as_bytes());
    connection
}

fn assert_answers(port: SocketAddr, beside: &str) {
    let client = Client::new(port, None);
    for target in TARGETS {
        let mut connection = client.connect().with_patience(PATIENCE);
        connection.send((client.head("GET", target) + "\r\n").as_bytes());
        let answer = connection.try_answer("GET");
        let answer = answer.unwrap_or_else(|error| panic!("{port}{target} beside {beside}: {error}"));
        assert_eq!(answer.status, 200, "{answer}");
    }
}

#[test]
fn connections_without_a_whole_head_keep_nobody_out() {
    let running = Deployment::start(&Setup::default());
    for port in ports(&running) {
        let client = Client::new(port, None);
        let head = client.head("GET", "/metrics");
        for opening in
            ["", "G", "GET /metrics HTTP/1.1\r\n", &head, &format!("{head}X-Padding: {}", "x".repeat(30_000))]
        {
            let connections: Vec<Connection> = (0..HELD).map(|_| held(&client, opening)).collect();
            assert_answers(port, &format!("{HELD} that sent {} bytes", opening.len()));
            drop(connections);
        }
    }
}

#[test]
fn heads_that_drip_keep_nobody_out() {
    let running = Deployment::start(&Setup::default());
    for port in ports(&running) {
        let opening = Client::new(port, None).head("GET", "/metrics").into_bytes();
        let drip = Some((b'x', Duration::from_millis(200)));
        let manner =
            Manner { name: "dripping", opening: [opening, b"X-Drip: ".to_vec()].concat(), drip, reads: true };
        let crowd = Crowd::start(port, vec![(HELD, manner)]);
        // Those who lose their place come again at once: the port is under a flood.
        wait::until("the crowd", || crowd.connected() >= 60);
        for _ in 0..5 {
            assert_answers(port, "a crowd that drips");
        }
        crowd.end();
    }
}

/// A crowd of those who ask and read is no attack: each of them is answered, over the number of places too.
#[test]
fn who_asks_and_reads_is_answered_in_a_crowd_too() {
    let running = Deployment::start(&Setup::default());
    for port in ports(&running) {
        let client = Client::new(port, None);
        let request = client.head("GET", "/metrics") + "\r\n";
        let mut connections: Vec<Connection> = (0..HELD).map(|_| held(&client, &request)).collect();
        for connection in &mut connections {
            connection.answer().ok();
        }
    }
}

/// Heads in which two readers might see two hosts, or none. `HOST` stands for the port's own.
const AMBIGUOUS: [&str; 16] = [
    "GET /health HTTP/1.1\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: evil.example\r\nHost: HOST\r\n\r\n",
    "GET /health HTTP/1.0\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: user@HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: evil.example@HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: user:secret@HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: @HOST\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost:\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: localhost:http\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: localhost:65536\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: localhost:1:2\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: localhost, evil.example:1\r\n\r\n",
    "GET http://evil.example/health HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET http://user@HOST/health HTTP/1.1\r\nHost: HOST\r\n\r\n",
];

#[test]
fn a_request_is_for_one_host() {
    let running = Deployment::start(&Setup::default());
    let mut clients = ports(&running).map(|port| Client::new(port, None)).to_vec();
    // The client port, and a worker past it, are no more lenient.
    clients.extend([running.client(None), running.slot(1341, None)]);
    for client in clients {
        let host = client.address.to_string();
        for head in AMBIGUOUS {
            let answer = client.raw(head.replace("HOST", &host));
            assert_eq!(answer.status, 400, "{host}, {head}: {answer}");
            answer.refused(400, "bad_request");
        }
        for head in [
            "GET /health HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: [::1]:1\r\nConnection: close\r\n\r\n",
            "GET http://HOST/health HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
        ] {
            client.raw(head.replace("HOST", &host)).ok();
        }
    }
    // The key does not open what the host keeps shut, and nothing is changed.
    let admin = running.admin();
    let add = admin.head("POST", "/admin/tenants/add").replace("Host: ", "Host: user@");
    let answer = admin.raw(add + "Content-Length: 16\r\n\r\n{\"name\":\"carol\"}");
    answer.problem(400, "bad_request");
    assert_eq!(admin.get("/admin/tenants/carol").status, 404);
}

/// Where other machines may ask by any name, it is a name all the same.
#[test]
fn a_remote_admin_port_is_for_one_host_too() {
    let gateway = "admin_allow_remote = true\n".to_owned();
    let running = Deployment::start(&Setup { gateway, ..Setup::default() });
    let admin = Client::new(ports(&running)[0], None);
    admin.raw("GET /health HTTP/1.1\r\nHost: admin.example.org\r\nConnection: close\r\n\r\n").ok();
    for hosts in ["Host: user@admin.example.org\r\n", "Host: a\r\nHost: a\r\n", ""] {
        admin.raw(format!("GET /health HTTP/1.1\r\n{hosts}\r\n")).problem(400, "bad_request");
    }
}
