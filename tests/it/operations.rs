//! An operator's day in half a minute, while customers write and read: reloads, upgrades of the gateway, the workers and
//! the pool, and finally a stop and a start.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{ADMIN_KEY, Setup, Tenant, registry_text};
use sq_tests::writers::{Manner, Writers, Written};
use sq_tests::{address, binaries, wait};

const TENANTS: usize = 10;

/// The clients of each tenant: one keeps its connection, one connects for each request.
const BOTH: [(usize, Manner); 2] = [(1, Manner::Kept), (1, Manner::Fresh)];

/// The pause between two requests of a client: together they send about 200 per second.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of reloads, each by a file change, a signal or the admin API.
const RELOADS: usize = 20;

/// The number of writes between two reloads.
const BETWEEN_RELOADS: usize = 20;

fn tenants() -> Vec<Tenant> {
    (1..=TENANTS).zip(1341..).map(|(number, port)| Tenant::new(&format!("t{number}"), port)).collect()
}

fn admin(root: &Root) -> Client {
    Client::new(root.admin(), Some(ADMIN_KEY))
}

#[test]
fn operator_actions_fail_no_request() {
    let root = Arc::new(Root::new(&Setup { tenants: tenants(), ..Setup::default() }));
    let program = root.join("sq-worker");
    fs::copy(binaries::worker(), &program).unwrap();
    let pool = Pool::begin(&root, &program, &[]);
    pool.wait_ready();
    let gateway = Gateway::serve(&root);
    let clients: Vec<Client> = tenants().iter().map(|tenant| gateway.client_of(&tenant.name)).collect();
    let begun = Instant::now();
    let writers = Writers::of_each(&clients, &BOTH, PAUSE, 0);

    for number in 0..RELOADS {
        reload(&root, &gateway, &pool, number);
        writers.wait_for(BETWEEN_RELOADS);
    }
    let gateway = gateway.upgrade();
    writers.go_on();
    replace_workers(&root, &program, &pool);
    writers.go_on();
    let pool = pool.upgrade(&program);
    writers.go_on();

    writers.be_patient();
    gateway.stop();
    let _gateway = Gateway::serve(&root);
    writers.go_on();

    let written = writers.stop();
    let seconds = begun.elapsed().as_secs_f64();
    written.iter().for_each(Written::assert_complete);
    let sum = |count: fn(&Written) -> usize| written.iter().map(count).sum::<usize>();
    say(&format!(
        "operations: {} writes in {seconds:.0} s, each acknowledged and there once; at the stop {} refused with 503, {} \
         found nobody",
        sum(|client| client.count),
        sum(|client| client.refused),
        sum(|client| client.not_connected)
    ));
    pool.stop();
}

/// Reloads in one of the ways, and adds or removes a tenant.
fn reload(root: &Root, gateway: &Gateway, pool: &Pool, number: usize) {
    let mut registry = tenants();
    if number.is_multiple_of(2) {
        registry.push(Tenant::new("guest", 1400));
    }
    let guests = |wanted| {
        let health = admin(root).get("/health").json();
        health.get("tenants").and_then(serde_json::Value::as_u64) == Some(wanted)
    };
    root.write_registry(&registry_text(&registry));
    match number % 3 {
        0 => {}
        1 => {
            gateway.signal(Signal::HUP);
            pool.signal(Signal::HUP);
        }
        _ => _ = admin(root).request("POST", "/admin/reload", "", Some(b"")).ok(),
    }
    wait::until("the reload", || guests(registry.len() as u64));
}

/// Replaces the workers' program, and waits until each worker runs the new one.
fn replace_workers(root: &Root, program: &Path, pool: &Pool) {
    let before = workers(root);
    assert_eq!(before.len(), TENANTS);
    let new = root.join("sq-worker.new");
    fs::copy(binaries::worker(), &new).unwrap();
    fs::rename(new, program).unwrap();
    pool.signal(Signal::HUP);
    wait::until("new workers", || {
        let after = workers(root);
        after.len() == before.len() && after.iter().all(|pid| !before.contains(pid))
    });
}

/// The processes of the workers.
fn workers(root: &Root) -> Vec<u64> {
    let status = Client::new(address::at(root.address, 1339), None).get("/status").json();
    let running = status.get("running").and_then(|running| running.as_array()).expect("the running workers");
    running.iter().filter_map(|worker| worker.get("pid")?.as_u64()).collect()
}
