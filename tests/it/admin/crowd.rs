//! Many changes at once: none is lost, and served tenants are not disturbed.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sq_tests::test_time::is_long;
use sq_tests::{notice, wait};

use super::{SELECT, UPDATE, served, start};

const SLOTS: usize = 500;
const CLIENTS: usize = 8;

/// How many tenants a short test adds. Each makes the registry longer, which makes the next one slower.
const ADDED_IN_SHORT: usize = 100;

#[test]
fn eight_clients_add_500_tenants_while_others_are_served() {
    let (running, api) = start();
    let first = if is_long() { 2 } else { SLOTS - ADDED_IN_SHORT };
    if first > 2 {
        // Beside alice and bob.
        running.with_config(&["provision", "--slots", &(first - 2).to_string()]).success();
    }
    wait::until("the provisioned tenants", || api.names().len() == first);
    let (next, added, is_over) = (AtomicUsize::new(first), Mutex::new(Vec::new()), AtomicBool::new(false));
    let started = Instant::now();
    let (add_time, answered) = thread::scope(|scope| {
        let adders: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= SLOTS {
                            return;
                        }
                        let name = format!("t-{number}");
                        let key = api.add(&name);
                        added.lock().unwrap().push((name, key));
                    }
                })
            })
            .collect();
        let served = ["alice", "bob"].map(|name| {
            let (client, is_over) = (running.client_of(name), &is_over);
            scope.spawn(move || {
                let mut served = 0;
                while !is_over.load(Ordering::Relaxed) {
                    client.post(UPDATE, name).ok();
                    assert_eq!(client.get(SELECT).ok(), name);
                    served += 2;
                }
                served
            })
        });
        let outcomes: Vec<_> = adders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let add_time = started.elapsed();
        is_over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.expect("an adder"));
        (add_time, served.map(|thread| thread.join().expect("alice and bob are served")))
    });
    notice::say(&format!(
        "{} tenants by {CLIENTS} clients in {add_time:.1?}, beside {answered:?} requests of two others",
        SLOTS - first
    ));
    let names: HashSet<String> = api.names().into_iter().collect();
    assert_eq!(names.len(), SLOTS);
    api.call("POST", "/admin/tenants/add", Some(r#"{"name": "one-more"}"#)).problem(409, "no_free_slot");
    assert_eq!(running.admin().get("/health").json()["tenants"], SLOTS);
    for (name, key) in added.into_inner().unwrap() {
        assert!(names.contains(&name), "{name} is lost");
        served(&running, &key);
    }
}

#[test]
fn concurrent_commands_and_api_calls_lose_nothing() {
    let (running, api) = start();
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (running, api, failed) = (&running, &api, &failed);
            scope.spawn(move || {
                for round in 0..5 {
                    api.add(&format!("api-{thread}-{round}"));
                    api.created("/admin/tenants/alice/keys", "{}");
                }
            });
            scope.spawn(move || {
                for round in 0..5 {
                    let name = format!("cli-{thread}-{round}");
                    let added = running.with_config(&["tenants", "add", &name]);
                    let key = running.with_config(&["tenants", "add-key", "alice"]);
                    failed.fetch_add(
                        usize::from(added.code() != Some(0) || key.code() != Some(0)),
                        Ordering::Relaxed,
                    );
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0);
    // The gateway notices changes by the command line within a second.
    let keys = || api.get("/admin/tenants/alice")["keys"].as_array().unwrap().len();
    wait::until("every tenant", || api.names().len() == 2 + 4 * 5 * 2);
    wait::until("every key", || keys() == 1 + 4 * 5 * 2);
    let names: HashSet<String> = api.names().into_iter().collect();
    for thread in 0..4 {
        for round in 0..5 {
            for writer in ["api", "cli"] {
                assert!(
                    names.contains(&format!("{writer}-{thread}-{round}")),
                    "{writer}-{thread}-{round} is lost"
                );
            }
        }
    }
    running.with_config(&["check"]).success();
}
