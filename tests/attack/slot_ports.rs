//! A tenant's slot, held by programs of this machine that know no key of the tenant: the tenant is served all the same.

use std::time::Duration;

use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;

/// More than a worker has places for.
const HELD: usize = 600;

/// How long an answer may take. Without a place it would take a minute and a half.
const PATIENCE: Duration = Duration::from_secs(10);

const TARGET: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn held(client: &Client, opening: &str) -> Connection {
    let mut connection = client.connect();
    connection.send(opening.as_bytes());
    connection
}

#[test]
fn connections_without_a_right_key_keep_no_tenant_out() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    let stranger = running.slot(1341, Some("not-a-key-of-alice"));
    let wrong = stranger.head("GET", TARGET);
    for opening in ["", "G", &wrong, &format!("{wrong}\r\n"), &(stranger.head("GET", "/health") + "\r\n")] {
        let connections: Vec<Connection> = (0..HELD).map(|_| held(&stranger, opening)).collect();
        for _ in 0..3 {
            let mut connection = alice.connect().with_patience(PATIENCE);
            connection.send((alice.head("GET", TARGET) + "Connection: close\r\n\r\n").as_bytes());
            let answer = connection.try_answer("GET");
            let answer = answer.unwrap_or_else(|error| panic!("beside {HELD} of {opening:?}: {error}"));
            assert_eq!(answer.status, 200, "beside {HELD} of {opening:?}: {answer}");
        }
        drop(connections);
    }
    // Nor do they hold up a stop.
    let _held: Vec<Connection> = ["", "G", &wrong]
        .iter()
        .flat_map(|opening| (0..HELD / 3).map(|_| held(&stranger, opening)))
        .collect();
    running.stop();
}
