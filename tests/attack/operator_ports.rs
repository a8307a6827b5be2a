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
